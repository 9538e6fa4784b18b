"""Studies of real systems: records of experiments, and what to try next."""
