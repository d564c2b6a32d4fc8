"""Autobatching: match calls of one process that go to the server together."""
