"""Validation of a configuration: checks of its rewards, policy and learning."""
