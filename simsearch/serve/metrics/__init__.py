"""Metrics and traces of a server, and the port that shows them."""
