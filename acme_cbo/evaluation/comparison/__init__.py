"""Comparison of trained models: which one is better, and by how much."""
