"""One question without a network: policies by value, the matcher over real indexes."""
