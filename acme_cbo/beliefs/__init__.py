"""Beliefs about the parents of the target, given the data."""
