"""Signals, their widths, and the spaces of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
"""(n, dim) float32, each row of unit length, all of one space."""

Bits: TypeAlias = NDArray[np.uint8]
"""(n, width) uint8: binary signals, most significant bit first; BINARY_BYTES has the widths."""

BITS_BYTES = 32
BITS = 8 * BITS_BYTES
"""Of PDQ and of the short MinHash."""


class Band(IntEnum):
    """The action that a hit calls for, weakest first. NONE: there is no hit."""

    NONE = 0
    LOG = 1
    REVIEW = 2
    BLOCK = 3


class Modality(StrEnum):
    """The kind of content that an encoder takes."""

    IMAGE = "image"
    TEXT = "text"


class Signal(StrEnum):
    """Names of the signals that are not vectors; a vector signal is named by its space id.

    TEXT_SHA256 and MINHASH are those of the older form of texts (`simsearch.encode.text.forms`).
    """

    SHA256 = "sha256"
    MD5 = "md5"
    TEXT_SHA256 = "text_sha256"
    PDQ = "pdq"
    MINHASH = "minhash"
    TEXT_LIGHT_SHA256 = "text_light_sha256"
    TEXT_STRONG_SHA256 = "text_strong_sha256"
    MINHASH1024 = "minhash1024"


DIGESTS: Mapping[Signal, int] = MappingProxyType(
    {
        Signal.SHA256: 32,
        Signal.MD5: 16,
        Signal.TEXT_SHA256: 32,
        Signal.TEXT_LIGHT_SHA256: 32,
        Signal.TEXT_STRONG_SHA256: 32,
    }
)
"""Signals matched by equality, with their length in bytes."""

DIGEST_ENTRIES_MAX = 1024
"""Most entries of one bank that the look-up of one digest returns; more are `truncated`."""

BINARY_BYTES: Mapping[Signal, int] = MappingProxyType(
    {Signal.PDQ: BITS_BYTES, Signal.MINHASH: BITS_BYTES, Signal.MINHASH1024: 128}
)
"""Signals matched by Hamming distance, with the bytes of a row."""

BINARY = tuple(BINARY_BYTES)
"""Signals matched by Hamming distance."""

OLDER_FORM = frozenset({Signal.TEXT_SHA256, Signal.MINHASH})
"""Signals of the older form of texts: computed where a bank has a rule for them."""


@dataclass(frozen=True)
class Space:
    """The identity of an embedding geometry; vectors of two spaces are never compared."""

    model: str
    weights_sha256: str
    preprocessing: str
    dim: int

    @property
    def id(self) -> str:
        """The name of the space, such as `copyclip@1f2e3d4c5b6a/squash128-bilinear/256`."""
        return f"{self.model}@{self.weights_sha256[:12]}/{self.preprocessing}/{self.dim}"
