"""Training of a small image encoder for open_clip: photographs in, weights and model card out.

The only part of the batch side that imports torch and open_clip.
"""
