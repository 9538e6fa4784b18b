"""Evaluation of policies on held-out SCMs: episodes, statistics, reports."""
