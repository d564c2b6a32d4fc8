"""Normal forms: light and strong, and the older one; their tables and rules."""
