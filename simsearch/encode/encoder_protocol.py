"""Encoder protocols: embedding models that turn batches into unit vectors of one space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simsearch.types import NO_CALL, CallContext, Space, Vectors

if TYPE_CHECKING:
    from simsearch.encode.image.picture import Picture

Pixels: TypeAlias = NDArray[np.uint8]
"""(height, width, 3) uint8 RGB at the size that one encoder takes."""


class TextEncoder(Protocol):
    """Thread-safe. `precision` is "float32" or "bfloat16"."""

    @property
    def space(self) -> Space:
        """The space of its vectors."""
        ...

    @property
    def precision(self) -> str:
        """The dtype it computes in, "float32" or "bfloat16"."""
        ...

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        """(n, dim) float32, unit, in the order of `texts` (normalised already, none empty). `call`
        is for encoders that let callers wait; those that compute at once have no use for it."""
        ...


@runtime_checkable
class KnowsItsScripts(Protocol):
    """A text encoder that says which texts it cannot tell from others."""

    def blind_to(self, texts: Sequence[str]) -> list[str]:
        """For each normalised text, why its vector would say nothing about it; empty where it
        does."""
        ...


class ImageEncoder(Protocol):
    """Thread-safe. Decoding is apart from encoding, so that a bad image fails alone."""

    @property
    def space(self) -> Space:
        """The space of its vectors."""
        ...

    @property
    def precision(self) -> str:
        """The dtype it computes in, "float32" or "bfloat16"."""
        ...

    def prepare(self, picture: Picture) -> Pixels:
        """Decode and resize one picture. Raises BadContent, ContentTooLarge."""
        ...

    def encode_images(self, pixels: Sequence[Pixels], call: CallContext = NO_CALL) -> Vectors:
        """(n, dim) float32, unit, in the order of `pixels`; `call` as for texts."""
        ...
