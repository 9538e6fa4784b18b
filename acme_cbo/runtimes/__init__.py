"""Ways to run the same actor and learner: today one process, one device."""
