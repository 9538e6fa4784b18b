"""The policy network and the distribution of its actions."""
