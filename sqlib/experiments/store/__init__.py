"""Keeping: what an experiment is, the records of those that were run, and where each came from."""
