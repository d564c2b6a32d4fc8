"""Admission, the match scheduler and the executors of blocking work."""
