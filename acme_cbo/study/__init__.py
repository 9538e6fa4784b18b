"""Studies of a real system: the log of what was suggested and observed."""
