"""Benchmarks of speed, relative to hardware limits and to other methods."""
