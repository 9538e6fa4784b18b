"""Measurements of speed, beside ceilings and other methods."""
