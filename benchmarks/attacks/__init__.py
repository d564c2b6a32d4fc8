"""Copies that are disguised, and what finds them: shared by `image_attacks` and `text_attacks`."""
