"""How fast it is: shares of what the machine can do, and ratios of one run."""
