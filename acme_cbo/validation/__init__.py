"""Does a configuration do what it promises? Experiments with a verdict."""
