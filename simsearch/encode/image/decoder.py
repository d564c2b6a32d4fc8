"""What is read out of one image file, and the port behind which that happens: in this process
here, in confined worker processes in `sandbox.py`."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Protocol, runtime_checkable

import numpy as np

from simsearch.encode.encoder_protocol import ImageEncoder, Pixels
from simsearch.encode.image import pdq
from simsearch.encode.image.picture import ImageLimits, Picture, open_picture
from simsearch.encode.image.preprocess import Preprocess
from simsearch.encode.image.region_edges import FINE_PX, refined_box
from simsearch.encode.image.regions import regions_of, small_size
from simsearch.errors import SimsearchError
from simsearch.types import NO_CALL, Bits, CallContext, Region


class PdqRows(IntEnum):
    """How many rows of PDQ are wanted; `DIHEDRAL` is a picture turned and flipped."""

    NONE = 0
    UPRIGHT = 1
    DIHEDRAL = 8


@dataclass(frozen=True)
class ImageRequest:
    """What is wanted of one image, and of up to `regions_max` pictures in it. Nothing at all is
    worth asking too: is it an image?"""

    pdq: PdqRows = PdqRows.NONE
    ways: tuple[Preprocess, ...] = ()
    regions_max: int = 0


@dataclass(frozen=True)
class DecodedImage:
    """`pdq` is (1 or 8, 32), or None: not asked for, or LOW_INFORMATION. `pixels` has one array,
    (height, width, 3) uint8, for each way that was asked for. `parts` are pictures in it."""

    pdq: Bits | None
    pixels: Mapping[Preprocess, Pixels]
    parts: tuple[tuple[Region, DecodedImage], ...] = ()


@dataclass(frozen=True)
class DecodeCounts:
    """Since the start. Each image is counted once, in one of the first six."""

    decoded: int = 0
    refused: int = 0
    """For what it is: no image, broken, too large."""
    crashes: int = 0
    """Its worker died of it, or answered nonsense."""
    timeouts: int = 0
    """It computed for longer than an image may; its worker was killed."""
    starved: int = 0
    """Its worker got no time to compute and was killed: the machine's fault, not the image's."""
    digests_refused: int = 0
    """Killed workers before, and was not given to another one."""
    restarts: int = 0
    """Workers started in the place of others."""
    regions: int = 0
    """Pictures found in those decoded, and read like them."""


class ImageDecoder(Protocol):
    """Thread-safe."""

    @property
    def counts(self) -> DecodeCounts: ...

    def decode(
        self, data: bytes, request: ImageRequest, call: CallContext = NO_CALL
    ) -> DecodedImage:
        """One image file. Raises EmptyContent, BadContent, ContentTooLarge and, where others
        decode, DecoderFailed, Overloaded, DeadlinePassed and NotReady."""
        ...

    def decode_each(
        self, files: Sequence[bytes], request: ImageRequest, call: CallContext = NO_CALL
    ) -> list[DecodedImage | SimsearchError]:
        """As `decode`, many at a time where that is quicker; in order, with what it raises for an
        image in the place of that image."""
        ...

    def close(self) -> None:
        """Refuse what comes."""
        ...


@runtime_checkable
class DescribesPreprocess(Protocol):
    """An image encoder that can say how its pixels are made; None: only its `prepare` knows."""

    @property
    def preprocess(self) -> Preprocess | None: ...


def preprocess_of(encoder: ImageEncoder) -> Preprocess | None:
    """How the pixels of this encoder are made, if that can be told to another process."""
    return encoder.preprocess if isinstance(encoder, DescribesPreprocess) else None


def decode_image(data: bytes, request: ImageRequest, limits: ImageLimits) -> DecodedImage:
    """Here and now. Raises EmptyContent, BadContent, ContentTooLarge."""
    picture = open_picture(data, limits)
    whole = _read(picture, request)
    if not request.regions_max:
        return whole
    found = _regions(picture, request.regions_max)
    return replace(whole, parts=tuple((r, _read(picture.part(r), request)) for r in found))


def _regions(picture: Picture, most: int) -> Iterable[Region]:
    look = picture.rgb(at_least=small_size(picture.size))
    rough = regions_of(look, picture.size, most)
    if not rough:
        return ()
    fine = np.asarray(picture.rgb(at_least=(FINE_PX, FINE_PX)))
    return dict.fromkeys(refined_box(region, fine) for region in rough)


def _read(picture: Picture, request: ImageRequest) -> DecodedImage:
    return DecodedImage(_pdq(picture, request.pdq), {way: way.fit(picture) for way in request.ways})


def _pdq(picture: Picture, rows: PdqRows) -> Bits | None:
    match rows:
        case PdqRows.NONE:
            return None
        case PdqRows.UPRIGHT:
            return pdq.pdq_of(picture)
        case PdqRows.DIHEDRAL:
            return pdq.pdq_dihedral(picture)


class InProcessDecoder:
    """An ImageDecoder without walls: an image that crashes the decoder ends this process. For
    builders, tests and servers that are told to."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._counter = DecodeCounter()

    @property
    def counts(self) -> DecodeCounts:
        return self._counter.counts

    def decode(
        self, data: bytes, request: ImageRequest, call: CallContext = NO_CALL
    ) -> DecodedImage:
        try:
            decoded = decode_image(data, request, self._limits)
        except SimsearchError:
            self._counter.add("refused")
            raise
        self._counter.add("decoded")
        self._counter.add("regions", len(decoded.parts))
        return decoded

    def decode_each(
        self, files: Sequence[bytes], request: ImageRequest, call: CallContext = NO_CALL
    ) -> list[DecodedImage | SimsearchError]:
        return [decoded_or_refused(self, data, request, call) for data in files]

    def close(self) -> None:
        """There is nothing to end."""


def decoded_or_refused(
    decoder: ImageDecoder, data: bytes, request: ImageRequest, call: CallContext
) -> DecodedImage | SimsearchError:
    try:
        return decoder.decode(data, request, call)
    except SimsearchError as refusal:
        return refusal


class DecodeCounter:
    """Counts that many threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> DecodeCounts:
        with self._lock:
            return DecodeCounts(**self._counts)

    def add(self, name: str, count: int = 1) -> None:
        """So many more in that field of DecodeCounts."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + count
