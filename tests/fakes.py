"""Encoders that need no model: deterministic unit vectors, small enough to reason about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from simsearch.encode.encoder_protocol import Pixels
from simsearch.encode.image.picture import Picture
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.types import NO_CALL, CallContext, Modality, Space, Vectors

DIM = 8
SIDE_PX = 8

PROSE = Space("prose", "a" * 64, "none", DIM)
"""A space of texts."""

PICTURES = Space("pictures", "b" * 64, "none", DIM)
"""A space of images that texts may ask in."""


def unit_of(name: str | bytes, dim: int = DIM) -> Vectors:
    """(dim,) float32, unit: always the same for one name."""
    data = name if isinstance(name, bytes) else name.encode()
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(dim)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def near(vector: Vectors, cosine: float) -> Vectors:
    """A unit vector at this cosine to `vector`."""
    base = vector.astype(np.float64)
    aside = np.roll(base, 1) + np.eye(len(base))[0]
    aside -= aside @ base * base
    aside /= np.linalg.norm(aside)
    return np.asarray(cosine * base + np.sqrt(1 - cosine**2) * aside, np.float32)


class FakeTextEncoder:
    """A TextEncoder. `placed` fixes the vector of a text, `asked` keeps what each call was
    given, `calls` for whom it was, and `on_encode` runs within each call."""

    precision = "float32"

    def __init__(
        self,
        space: Space = PROSE,
        placed: Mapping[str, Vectors] | None = None,
        on_encode: Callable[[], None] = lambda: None,
    ) -> None:
        self.space = space
        self.asked: list[list[str]] = []
        self.calls: list[CallContext] = []
        self._placed = placed or {}
        self._on_encode = on_encode

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        self.asked.append(list(texts))
        self.calls.append(call)
        self._on_encode()
        rows = [self._placed.get(t, unit_of(t, self.space.dim)) for t in texts]
        return np.stack(rows) if rows else np.empty((0, self.space.dim), np.float32)


class FakeImageEncoder:
    """An ImageEncoder: equal pixels get equal vectors; `asked` counts the images of each call, and
    `calls` says for whom it was."""

    precision = "float32"

    def __init__(self, space: Space = PICTURES, on_encode: Callable[[], None] = lambda: None):
        self.space = space
        self.prepared = 0
        self.asked: list[int] = []
        self.calls: list[CallContext] = []
        self._on_encode = on_encode

    def prepare(self, picture: Picture) -> Pixels:
        self.prepared += 1
        return np.asarray(picture.rgb().resize((SIDE_PX, SIDE_PX)), np.uint8)

    def encode_images(self, pixels: Sequence[Pixels], call: CallContext = NO_CALL) -> Vectors:
        self.asked.append(len(pixels))
        self.calls.append(call)
        self._on_encode()
        return np.stack([unit_of(p.tobytes(), self.space.dim) for p in pixels])


def encoders(
    prose: FakeTextEncoder | None = None,
    pictures: FakeImageEncoder | None = None,
    captions: FakeTextEncoder | None = None,
    prose_off: str = "",
    pictures_off: str = "",
) -> EncoderSet:
    """Two encoders, `prose` and `pictures`; `captions` is the text side of the second. What is
    given as off has no side and that reason; what is not given at all is not configured."""
    loaded = {}
    if prose or prose_off:
        loaded["prose"] = LoadedEncoder("prose", Modality.TEXT, text=prose, off_reason=prose_off)
    if pictures or pictures_off:
        loaded["pictures"] = LoadedEncoder(
            "pictures", Modality.IMAGE, image=pictures, text=captions, off_reason=pictures_off
        )
    return EncoderSet(loaded)
