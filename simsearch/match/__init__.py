"""Matching: search of a view, thresholds and verdicts, without a network."""
