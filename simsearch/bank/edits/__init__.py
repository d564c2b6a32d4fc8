"""The edits of a bank, each inside one transaction of the store."""
