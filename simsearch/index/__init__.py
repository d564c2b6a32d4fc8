"""Vectors and bits in, candidates out. Knows rows and keys; knows no banks and no models."""
