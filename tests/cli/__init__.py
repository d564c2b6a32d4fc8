"""What a person sees at a shell: words, JSON, help, exit codes."""
