"""GPU search: inverted lists on GPUs, the CPU as fallback. Unverified on a GPU."""
