"""Search with the inverted lists on GPUs. Unverified on a GPU."""
