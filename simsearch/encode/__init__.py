"""Content in, signals out: decoding, normalisation, digests, perceptual hashes, embeddings."""
