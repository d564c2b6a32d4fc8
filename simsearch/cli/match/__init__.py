"""Matching commands: match and explain."""
