"""Bank store: banks, entries, fingerprints and the log of changes, in LMDB."""
