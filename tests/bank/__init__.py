"""The bank store, by values and across processes."""
