"""What an embedding model must do to take part: batches in, unit vectors of one space out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simsearch.types import Space, Vectors

if TYPE_CHECKING:
    from simsearch.encode.image import Picture

Pixels: TypeAlias = NDArray[np.uint8]
"""(height, width, 3) uint8 RGB at the size that one encoder takes."""


class TextEncoder(Protocol):
    """Thread-safe. `precision` is "float32" or "bfloat16"."""

    @property
    def space(self) -> Space: ...

    @property
    def precision(self) -> str: ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """(n, dim) float32, unit, in the order of `texts` (normalised already, none empty)."""
        ...


class ImageEncoder(Protocol):
    """Thread-safe. Decoding is apart from encoding, so that a bad image fails alone."""

    @property
    def space(self) -> Space: ...

    @property
    def precision(self) -> str: ...

    def prepare(self, picture: Picture) -> Pixels:
        """Decode and resize one picture. Raises BadContent, ContentTooLarge."""
        ...

    def encode_images(self, pixels: Sequence[Pixels]) -> Vectors:
        """(n, dim) float32, unit, in the order of `pixels`."""
        ...
