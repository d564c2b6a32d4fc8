"""Metrics and traces of a server, and the HTTP endpoint for scrapes and probes."""
