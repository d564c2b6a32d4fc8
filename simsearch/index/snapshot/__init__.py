"""Snapshots on disk: written, sealed, published, opened."""
