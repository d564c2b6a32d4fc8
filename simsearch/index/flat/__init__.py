"""Exact search over rows in memory, by cosine and by Hamming distance."""
