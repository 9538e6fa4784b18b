"""Baseline methods from the literature."""
