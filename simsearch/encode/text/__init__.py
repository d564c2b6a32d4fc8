"""Text: its normal forms, windows and MinHash."""
