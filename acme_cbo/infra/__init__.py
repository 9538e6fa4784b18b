"""Programs, processes, files and configs; nothing of the domain, and no jax."""
