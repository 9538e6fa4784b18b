"""Commands, and what they run: training, sweeps, replay, validation, speed."""
