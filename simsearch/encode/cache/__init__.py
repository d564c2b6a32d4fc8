"""The fingerprint cache: content seen before, or in flight, is encoded once."""
