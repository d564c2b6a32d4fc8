"""Trains a small image encoder that open_clip loads: photographs in, a checkpoint and its card out.

The only part of the batch side that knows torch and open_clip.
"""
