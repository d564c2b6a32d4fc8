"""Entry commands, and the migration to another encoder."""
