"""Trained models for others: the list of them, and folders to give away."""
