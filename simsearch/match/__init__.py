"""One question without a network: what was asked, which thresholds it passed, what follows."""
