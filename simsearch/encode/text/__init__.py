"""Text: the strong normal form, its tables, windows and MinHash."""
