"""Trained models beside each other: what they came to, and who is better."""
