"""`simsearch demo`: a real server, real content, and a table of what was caught."""
