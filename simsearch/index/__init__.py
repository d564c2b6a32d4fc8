"""Nearest-neighbour indexes for vectors and 256-bit hashes: rows, keys and groups; no banks, no
models."""
