"""Batch side: builds and checks on a bank's directory, without a server. Nothing imports it."""
