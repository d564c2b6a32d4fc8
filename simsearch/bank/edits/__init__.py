"""Bank edits, each inside one transaction of the store."""
