"""Dynamic batching: the items of concurrent calls share encoder batches."""
