"""Ways to run the same actor and learner."""
