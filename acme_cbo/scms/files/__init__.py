"""SCMs from files: YAML descriptions, graphs, and fits to data."""
