"""Methods of the literature that policies are compared with."""
