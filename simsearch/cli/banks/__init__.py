"""Bank commands, policies as text, and differences between banks."""
