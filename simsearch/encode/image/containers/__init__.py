"""Containers: the structure of image files, walked before any decoder sees them."""
