"""Export of opinions on hits, in formats of our own and of partners."""
