"""Structural causal models: graphs, mechanisms, priors, simulation."""
