"""Commands of a server: serve, status, config, token, demo."""
