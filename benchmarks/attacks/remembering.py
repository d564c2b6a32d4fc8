"""Encoders that keep what they computed on disk, so that the same question costs nothing again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from simsearch.encode.encoder_protocol import ImageEncoder, Pixels, TextEncoder
from simsearch.encode.image.decoder import preprocess_of
from simsearch.encode.image.picture import Picture
from simsearch.encode.image.preprocess import Preprocess
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.types import NO_CALL, CallContext, Space, Vectors


def remembered(encoders: EncoderSet, directory: Path) -> EncoderSet:
    """The same encoders; what one call gave is kept below `directory`, by the digest of what was
    asked and the space."""
    return EncoderSet({e.name: _remembered(e, directory) for e in encoders})


def _remembered(encoder: LoadedEncoder, directory: Path) -> LoadedEncoder:
    return LoadedEncoder(
        encoder.name,
        encoder.home,
        image=RememberedImages(encoder.image, directory) if encoder.image else None,
        text=RememberedTexts(encoder.text, directory) if encoder.text else None,
        off_reason=encoder.off_reason,
    )


class RememberedImages:
    """An ImageEncoder."""

    def __init__(self, encoder: ImageEncoder, directory: Path) -> None:
        self._encoder = encoder
        self._directory = directory

    @property
    def space(self) -> Space:
        return self._encoder.space

    @property
    def precision(self) -> str:
        return self._encoder.precision

    @property
    def preprocess(self) -> Preprocess | None:
        return preprocess_of(self._encoder)

    def prepare(self, picture: Picture) -> Pixels:
        return self._encoder.prepare(picture)

    def encode_images(self, pixels: Sequence[Pixels], call: CallContext = NO_CALL) -> Vectors:
        path = _path(self._directory, self._encoder, (p.tobytes() for p in pixels))
        return _kept(path, lambda: self._encoder.encode_images(pixels, call))


class RememberedTexts:
    """A TextEncoder."""

    def __init__(self, encoder: TextEncoder, directory: Path) -> None:
        self._encoder = encoder
        self._directory = directory

    @property
    def space(self) -> Space:
        return self._encoder.space

    @property
    def precision(self) -> str:
        return self._encoder.precision

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        spelt = (f"{len(text)}:{text}".encode("utf-8", "surrogatepass") for text in texts)
        path = _path(self._directory, self._encoder, spelt)
        return _kept(path, lambda: self._encoder.encode_texts(texts, call))


def _path(directory: Path, encoder: ImageEncoder | TextEncoder, asked: Iterable[bytes]) -> Path:
    digest = sha256(f"{encoder.space.id} {encoder.precision}".encode())
    for part in asked:
        digest.update(part)
    return directory / f"{digest.hexdigest()}.npy"


def _kept(path: Path, make: Callable[[], Vectors]) -> Vectors:
    """From the file; else made, and put there in one step."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        making = path.with_suffix(".making.npy")
        np.save(making, make(), allow_pickle=False)
        making.rename(path)
    vectors: Vectors = np.load(path, allow_pickle=False)
    return vectors
