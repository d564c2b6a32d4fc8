"""Search in inverted lists: codes propose, exact rows decide."""
