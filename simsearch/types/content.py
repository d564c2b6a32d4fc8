"""Submitted content and the fingerprint computed from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from simsearch.types.signals import Bits, Modality, Signal, Vectors


@dataclass(frozen=True)
class FileContent:
    """Any file. Its digests are asked; it has the signals of an image where it is one."""

    data: bytes = field(repr=False)

    @property
    def sha256(self) -> bytes:
        """Of the file; computed once."""
        return _once(self, "_sha256", lambda: hashlib.sha256(self.data).digest())

    @property
    def md5(self) -> bytes:
        """Of the file, for lists that are exchanged as MD5; computed once."""
        return _once(self, "_md5", lambda: _md5(self.data))


@dataclass(frozen=True)
class ImageContent(FileContent):
    """An encoded image file: refused where it is none and no digest of it hits."""


@dataclass(frozen=True)
class TextContent:
    """A text, as it was posted."""

    text: str = field(repr=False)

    @property
    def sha256(self) -> bytes:
        """Of the text as it came, in UTF-8; computed once. The signal TEXT_SHA256 is another one:
        that of the normalised text."""
        return _once(self, "_sha256", lambda: hashlib.sha256(self._utf8()).digest())

    @property
    def md5(self) -> bytes:
        """Of the text as it came, in UTF-8; computed once."""
        return _once(self, "_md5", lambda: _md5(self._utf8()))

    def _utf8(self) -> bytes:
        return self.text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class VectorContent:
    """Ready vectors: (n, dim) float16 or float32. `space` is an id or an encoder's name."""

    space: str
    vectors: NDArray[np.floating] = field(repr=False)
    modality: Modality | None = None


@dataclass(frozen=True)
class HashContent:
    """A ready hash: a digest, or one row of a binary signal."""

    signal: Signal
    value: bytes


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _once(content: object, name: str, compute: Callable[[], bytes]) -> bytes:
    """A digest kept beside the fields. `functools.cached_property` would lock all contents against
    each other before Python 3.12; here two threads may both compute one, and find the same."""
    kept = vars(content)
    if name not in kept:
        kept[name] = compute()
    digest: bytes = kept[name]
    return digest


Content: TypeAlias = FileContent | ImageContent | TextContent | VectorContent | HashContent


class SignalState(Enum):
    """What became of a signal. SEARCHED: computed from all of the content, and searched.
    LOW_INFORMATION: the content is too plain or too short for it. UNAVAILABLE: its encoder is off
    or failed, or there was no time. NOT_ASKED: computed, and no asked bank has a rule for it.
    NOT_COMPUTED: it cannot be computed of this content. PARTIAL: computed from a part of the
    content, and searched."""

    SEARCHED = "searched"
    LOW_INFORMATION = "low_information"
    UNAVAILABLE = "unavailable"
    NOT_ASKED = "not_asked"
    NOT_COMPUTED = "not_computed"
    PARTIAL = "partial"


@dataclass(frozen=True)
class SignalReport:
    """The state of one signal of one content."""

    signal: str
    state: SignalState
    detail: str = ""


@dataclass(frozen=True)
class Fingerprint:
    """All signals of one content or entry: digests by signal, binary signals as (n, width)
    uint8 rows, vectors by space id as (n, dim) float32 rows."""

    digests: Mapping[Signal, tuple[bytes, ...]] = field(default_factory=dict)
    bits: Mapping[Signal, Bits] = field(default_factory=dict)
    vectors: Mapping[str, Vectors] = field(default_factory=dict)

    def rows(self) -> dict[str, int]:
        """Rows by signal name."""
        return (
            {str(s): len(v) for s, v in self.digests.items()}
            | {str(s): len(v) for s, v in self.bits.items()}
            | {s: len(v) for s, v in self.vectors.items()}
        )
