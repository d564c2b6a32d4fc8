"""A build: from a consistent state of the bank to a published snapshot."""
