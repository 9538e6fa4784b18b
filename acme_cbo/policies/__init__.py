"""Policies: the trained one, heuristics and baselines, behind one interface."""
