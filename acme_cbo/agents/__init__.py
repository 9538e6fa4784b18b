"""Agents: how a policy acts while it is trained, and how it learns."""
