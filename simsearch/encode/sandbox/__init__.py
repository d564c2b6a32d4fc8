"""The decode sandbox: worker processes in which images are decoded."""
