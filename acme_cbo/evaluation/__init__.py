"""Policies side by side on held-out SCMs, and what the numbers say."""
