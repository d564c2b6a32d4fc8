"""The `simsearch` command. Imports what it needs when it needs it: help costs no model."""
