"""Opinions on hits, written in the formats of partners."""
