"""Embedding models: CLIP and sentence-transformers, found, loaded and run."""
