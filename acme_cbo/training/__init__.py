"""The training engine: loop, callbacks, loggers and checkpoints."""
