"""Image decoder: PDQ rows and model input of the pictures that an image file shows.

The interface, and an implementation in this process; encode/sandbox has one in confined worker
processes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import zip_longest
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from simsearch.encode.encoder_protocol import ImageEncoder, Pixels
from simsearch.encode.image import pdq
from simsearch.encode.image.frames import views_of
from simsearch.encode.image.picture import ImageLimits, Picture, open_picture
from simsearch.encode.image.preprocess import Preprocess
from simsearch.encode.image.region_edges import FINE_PX, refined_box
from simsearch.encode.image.regions import regions_of, small_size
from simsearch.errors import SimsearchError
from simsearch.types import NO_CALL, WHOLE_PICTURE, Bits, CallContext, PicturePart, Region


class PdqRows(IntEnum):
    """How many PDQ rows are wanted; `DIHEDRAL`: all eight rotations and flips."""

    NONE = 0
    UPRIGHT = 1
    DIHEDRAL = 8


@dataclass(frozen=True)
class ImageRequest:
    """What is wanted of one image: of up to `frames_max` frames of it, and of up to `regions_max`
    pictures in them. An empty request checks that it is an image."""

    pdq: PdqRows = PdqRows.NONE
    ways: tuple[Preprocess, ...] = ()
    regions_max: int = 0
    frames_max: int = 1

    @property
    def parts_max(self) -> int:
        """Most pictures that the answer has: every frame over two grounds, and the regions."""
        return 2 * self.frames_max + self.regions_max


@dataclass(frozen=True)
class DecodedImage:
    """`pdq` is (1 or 8, 32), or None: not asked for, or LOW_INFORMATION. `pixels` has one array,
    (height, width, 3) uint8, for each way that was asked for. Both are of `part`, the whole of the
    first frame that shows anything; `parts` are the other frames and the pictures in them. `unseen`
    names what was not looked at, `remarks` say what else there is to say of the file."""

    pdq: Bits | None
    pixels: Mapping[Preprocess, Pixels]
    parts: tuple[tuple[PicturePart, DecodedImage], ...] = ()
    part: PicturePart = WHOLE_PICTURE
    unseen: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodeCounts:
    """Since the start. Each image is counted once, in one of the first six."""

    decoded: int = 0
    refused: int = 0
    """For what it is: no image, broken, too large."""
    crashes: int = 0
    """Its worker died, or broke the protocol."""
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
    """Decodes images. Thread-safe."""

    @property
    def counts(self) -> DecodeCounts:
        """Totals since the start."""
        ...

    def decode(
        self, data: bytes, request: ImageRequest, call: CallContext = NO_CALL
    ) -> DecodedImage:
        """Decode one image file. Raises EmptyContent, BadContent, ContentTooLarge and, in worker
        processes, DecoderFailed, Overloaded, DeadlinePassed and NotReady."""
        ...

    def decode_each(
        self, files: Sequence[bytes], request: ImageRequest, call: CallContext = NO_CALL
    ) -> list[DecodedImage | SimsearchError]:
        """Decode several files, in parallel where that is faster. The outcomes are in order, with
        the error of an image in its place."""
        ...

    def close(self) -> None:
        """Refuse further images."""
        ...


@runtime_checkable
class DescribesPreprocess(Protocol):
    """An image encoder that describes its preprocessing; None: only its `prepare` has it."""

    @property
    def preprocess(self) -> Preprocess | None:
        """How the pixels of its input are made."""
        ...


def preprocess_of(encoder: ImageEncoder) -> Preprocess | None:
    """The preprocessing of this encoder, None where only the encoder can do it."""
    return encoder.preprocess if isinstance(encoder, DescribesPreprocess) else None


def decode_image(data: bytes, request: ImageRequest, limits: ImageLimits) -> DecodedImage:
    """Decode in this process. Raises EmptyContent, BadContent, ContentTooLarge."""
    picture = open_picture(data, limits)
    if request == ImageRequest():
        return DecodedImage(None, {})
    views = views_of(picture, request.frames_max)
    regions, unseen = _regions(views.shown, request.regions_max)
    first, whole = views.shown[0]
    others = [*views.shown[1:], *regions]
    return replace(
        _read(whole, request),
        parts=tuple((part, _read(shown, request)) for part, shown in others),
        part=first,
        unseen=(*picture.unseen, *views.unseen, *unseen),
        remarks=(*picture.remarks, *views.remarks),
    )


Shown: TypeAlias = tuple[PicturePart, Picture]


def _regions(views: Sequence[Shown], most: int) -> tuple[list[Shown], tuple[str, ...]]:
    """At most `most` pictures in all views together, the likeliest of each view first; and, where
    there are more, so in words."""
    if not most:
        return [], ()
    found = [
        [(replace(part, region=region), view.part(region)) for region in _regions_of(view, most)]
        for part, view in views
    ]
    turns = zip_longest(*found)
    regions = [shown for turn in turns for shown in turn if shown is not None]
    if len(regions) <= most:
        return regions, ()
    return regions[:most], (f"{most} of the pictures found in it were looked at, there are more",)


def _regions_of(picture: Picture, most: int) -> Iterable[Region]:
    """One more than `most`, if there are."""
    look = picture.rgb(at_least=small_size(picture.size))
    rough = regions_of(look, picture.size, most + 1)
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
    """An ImageDecoder without a sandbox: an image that crashes it ends this process. For builders,
    tests, and servers without decode workers."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._counter = DecodeCounter()

    @property
    def counts(self) -> DecodeCounts:
        """Totals since the start."""
        return self._counter.counts

    def decode(
        self, data: bytes, request: ImageRequest, call: CallContext = NO_CALL
    ) -> DecodedImage:
        """In the calling thread."""
        try:
            decoded = decode_image(data, request, self._limits)
        except SimsearchError:
            self._counter.add("refused")
            raise
        self._counter.add_decoded(decoded)
        return decoded

    def decode_each(
        self, files: Sequence[bytes], request: ImageRequest, call: CallContext = NO_CALL
    ) -> list[DecodedImage | SimsearchError]:
        """One after the other."""
        return [decoded_or_refused(self, data, request, call) for data in files]

    def close(self) -> None:
        """Does nothing."""


def decoded_or_refused(
    decoder: ImageDecoder, data: bytes, request: ImageRequest, call: CallContext
) -> DecodedImage | SimsearchError:
    """What `decode` returns, or the error it raises."""
    try:
        return decoder.decode(data, request, call)
    except SimsearchError as refusal:
        return refusal


class DecodeCounter:
    """Thread-safe DecodeCounts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> DecodeCounts:
        """The totals so far."""
        with self._lock:
            return DecodeCounts(**self._counts)

    def add_decoded(self, image: DecodedImage) -> None:
        """Count one that was decoded."""
        self.add("decoded")
        self.add("regions", sum(part.region is not None for part, _ in image.parts))

    def add(self, name: str, count: int = 1) -> None:
        """Add to that field of DecodeCounts."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + count
