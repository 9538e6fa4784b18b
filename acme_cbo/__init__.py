"""Amortised causal Bayesian optimisation: learn once, then decide at once."""

__version__ = '0.2.0'
