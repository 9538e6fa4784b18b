"""Commands of the program `acme-cbo`, a module each."""
