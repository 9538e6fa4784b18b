"""Amortised causal Bayesian optimisation: learn once, then decide at once."""
