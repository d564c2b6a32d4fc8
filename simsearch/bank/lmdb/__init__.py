"""The LMDB environment: files, transactions, tables, locks and their errors."""
