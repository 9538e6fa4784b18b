"""The network of the policy and the distribution of its actions."""
