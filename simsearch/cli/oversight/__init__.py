"""Oversight commands: audit log, proposals, opinions, review."""
