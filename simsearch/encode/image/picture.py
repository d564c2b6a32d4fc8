"""Picture: one image file, checked before a pixel is decoded, then decoded to upright RGB.

Of an animation the frames come as they are composed, one after the other.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO

import numpy as np
from PIL import AvifImagePlugin, Image

from simsearch.encode.image.colour_profiles import ProfileFault, in_srgb
from simsearch.encode.image.containers.file_headers import read_file_headers
from simsearch.encode.image.containers.header_walk import (
    PROFILE_BYTES_MAX,
    FileHeaders,
    large_profile,
    orientation_of,
)
from simsearch.encode.image.cut_files import made_whole
from simsearch.errors import BadConfig, BadContent, ContentTooLarge, EmptyContent
from simsearch.types import Region

Size = tuple[int, int]
"""(width, height) in pixels."""

# Pillow warns with text taken from the file, and Python keeps every distinct text for ever.
# Once, at import, because changing filters around a call is not safe with threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Pillow's own bound: above it Image.open refuses, whatever the limit here.
_PILLOW_PIXELS_MAX = 2 * (Image.MAX_IMAGE_PIXELS or 0)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright (EXIF 2.3, tag 0x0112)."""

CUT_WHOLE = "cut off: all of its rows are there"

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
OPAQUE = 255

FRAME_PIXELS_MAX = 200_000_000
"""Of all frames of one file that are decoded, width times height: about two seconds."""

_DRAFT_SCALES = (8, 4, 2)
"""Fractions at which libjpeg can decode without computing the pixels in between."""


@dataclass(frozen=True)
class ImageLimits:
    """What is accepted. Of an animation the first `frames_max` frames are decoded, no more than
    FRAME_PIXELS_MAX pixels in all."""

    bytes_max: int = 20 * 1024 * 1024
    pixels_max: int = 40_000_000
    frames_max: int = 1_000

    def __post_init__(self) -> None:
        if min(self.bytes_max, self.pixels_max, self.frames_max) < 1:
            raise BadConfig("every image limit must be 1 or more")
        if self.pixels_max > _PILLOW_PIXELS_MAX:
            raise BadConfig(
                f"images of {self.pixels_max} pixels cannot be decoded: "
                f"set the limit to {_PILLOW_PIXELS_MAX} or less"
            )


def open_picture(data: bytes, limits: ImageLimits) -> PictureFile:
    """Check a picture file without decoding a pixel of it.

    Raises EmptyContent, BadContent (another format, broken, 0 pixels) and ContentTooLarge
    (bytes, pixels, pieces).
    """
    check_length(data, limits)
    container = read_file_headers(data, limits.frames_max)
    if container.size is not None:
        _check_size(container.size, limits)
    if not has_decoder(container.format):
        raise BadContent(
            f"this server reads no {container.format}, its extra `heif` is not installed: "
            "convert it to JPEG or PNG"
        )
    with _named_errors(container.format), _decoder(container) as image:
        _check_size(image.size, limits)
        return PictureFile(_completed(container, image), image.size, limits)


def check_length(data: bytes, limits: ImageLimits) -> None:
    """Raises EmptyContent, ContentTooLarge."""
    if not data:
        raise EmptyContent("the image has 0 bytes: send the file's content")
    if len(data) > limits.bytes_max:
        raise ContentTooLarge(
            f"the image has {len(data)} bytes, {limits.bytes_max} are allowed: send a smaller copy"
        )


def _check_size(size: Size, limits: ImageLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BadContent(f"the image is {width} × {height} and has 0 pixels: send a whole image")
    if width * height > limits.pixels_max:
        raise ContentTooLarge(
            f"the image is {width} × {height}, {limits.pixels_max} pixels are allowed: "
            "send a smaller copy"
        )


def _completed(container: FileHeaders, image: Image.Image) -> FileHeaders:
    """With what the decoder's own headers say, where the container was not asked."""
    profile = container.profile or image.info.get("icc_profile") or b""
    if len(profile) > PROFILE_BYTES_MAX:
        unseen = (*container.unseen, large_profile(len(profile)))
        container, profile = replace(container, unseen=unseen), b""
    container = replace(container, profile=profile)
    if container.frames is not None:
        return container
    turn = orientation_of(image.info.get("exif") or b"")
    return replace(
        container, size=image.size, frames=getattr(image, "n_frames", 1), orientation=turn
    )


class Picture(ABC):
    """One picture that a file shows: a frame of it, or a part of one. Thread-safe."""

    @property
    @abstractmethod
    def size(self) -> Size:
        """(width, height) upright."""

    @abstractmethod
    def rgb(self, at_least: Size | None = None) -> Image.Image:
        """In 8-bit RGB, upright, over one colour where it is transparent.

        With `at_least` a JPEG may come at a half, a quarter or an eighth of its size, the
        smallest that still has that many pixels in both directions (or its full size, if it
        has fewer). The same arguments always give the same pixels. The image is shared: do
        not change it. Raises BadContent for a file that is cut off or broken.
        """

    def part(self, region: Region) -> Picture:
        """The same picture, cut to a region of it."""
        return _Part(self, region)


class PictureFile(Picture):
    """A checked image file; as a Picture, its first frame over white. Decodes on demand and keeps
    what it has decoded, so that several encoders share it: drop it when its signals are
    computed."""

    def __init__(self, container: FileHeaders, stored: Size, limits: ImageLimits) -> None:
        self._container = container
        self._stored = stored
        self._limits = limits
        self._drawn: dict[int, Image.Image] = {}
        self._rgb: dict[int, Image.Image] = {}
        self._unseen = dict.fromkeys(container.unseen)
        self._remarks: dict[str, None] = {}
        if container.cut and not container.short:
            self._say_cut(1.0)

    @property
    def size(self) -> Size:
        return _upright(self._stored, self._container.orientation)

    @property
    def format(self) -> str:
        """As Pillow names it, such as "JPEG" or "WEBP"."""
        return self._container.format

    @property
    def frames(self) -> int:
        """How many frames or pages the file holds."""
        return self._container.frames or 1

    @property
    def unseen(self) -> tuple[str, ...]:
        """What was not looked at, in words, as far as it was decoded by now."""
        return tuple(self._unseen)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What else there is to say of it, as far as it was decoded by now."""
        return tuple(self._remarks)

    def rgb(self, at_least: Size | None = None) -> Image.Image:
        scale = self._draft_scale(at_least)
        if scale not in self._rgb:
            self._rgb[scale] = over(WHITE, self._at(scale))
        return self._rgb[scale]

    def drawn(self) -> Image.Image:
        """The first frame upright at full size, RGB, or RGBA where it is transparent. Shared, and
        raises, as `rgb`."""
        return self._at(1)

    def frames_drawn(self) -> Iterator[Image.Image]:
        """The frames as they are composed, from the first, each as in `drawn`; as many as the
        limits allow. Raises BadContent at one that is broken, ContentTooLarge."""
        pixels_left = FRAME_PIXELS_MAX
        with _named_errors(self.format), _decoder(self._container) as image:
            for number in range(min(self.frames, self._limits.frames_max)):
                if number and not _next_frame(image, number):
                    return
                _check_size(image.size, self._limits)
                pixels_left -= math.prod(image.size)
                if number and pixels_left < 0:
                    return
                image.load()
                yield self._finished(image.copy())

    def _at(self, scale: int) -> Image.Image:
        if scale not in self._drawn:
            self._drawn[scale] = self._decode(scale)
        return self._drawn[scale]

    def _draft_scale(self, at_least: Size | None) -> int:
        if at_least is None or self.format != "JPEG":
            return 1
        width, height = self.size
        room = min(width // max(at_least[0], 1), height // max(at_least[1], 1))
        return next((scale for scale in _DRAFT_SCALES if scale <= room), 1)

    def _decode(self, scale: int) -> Image.Image:
        """Where the file is cut off, as far as it goes: strictly first, then made whole."""
        if not self._container.short:
            try:
                return self._decode_whole(scale)
            except BadContent:
                pass
        with _named_errors(self.format):
            self._container, rows = made_whole(self._container)
        drawn = self._decode_whole(scale)
        self._say_cut(rows)
        return drawn

    def _decode_whole(self, scale: int) -> Image.Image:
        with _named_errors(self.format), _decoder(self._container) as image:
            if scale > 1:
                image.draft(None, (self._stored[0] // scale, self._stored[1] // scale))
            image.load()
            return self._finished(image)

    def _say_cut(self, rows: float) -> None:
        """`rows`: the share of them that is there."""
        self._remarks.pop(CUT_WHOLE, None)
        if rows < 1:
            self._unseen[f"cut off: {math.floor(100 * rows)} % of its rows are there"] = None
        elif self.frames > 1:
            self._unseen["cut off: later frames may be missing"] = None
        else:
            self._remarks[CUT_WHOLE] = None

    def _finished(self, image: Image.Image) -> Image.Image:
        upright = _TURNS.get(self._container.orientation)
        drawn = self._in_srgb(image) if self._container.profile else to_drawn(image)
        return drawn.transpose(upright) if upright is not None else drawn

    def _in_srgb(self, image: Image.Image) -> Image.Image:
        """As in `to_drawn`, with the profile applied; grey stays grey for a profile of grey."""
        profile = self._container.profile
        if image.mode in ("L", "CMYK") and not image.has_transparency_data:
            shown = in_srgb(image, profile)
            if isinstance(shown, Image.Image):
                return shown
        drawn = to_drawn(image)
        opaque = drawn if drawn.mode == "RGB" else drawn.convert("RGB")
        colours = in_srgb(opaque, profile)
        if isinstance(colours, ProfileFault):
            if colours is ProfileFault.BROKEN:
                self._remarks[colours.value] = None
            return drawn
        if drawn.mode == "RGBA":
            colours.putalpha(drawn.getchannel("A"))
        return colours


class DrawnPicture(Picture):
    """A frame that is decoded, over white or over black where it is transparent."""

    def __init__(self, image: Image.Image, on_black: bool = False) -> None:
        """`image`: RGB or RGBA, upright."""
        self._image = image
        self._ground = BLACK if on_black else WHITE
        self._rgb: Image.Image | None = None

    @property
    def size(self) -> Size:
        return self._image.size

    def rgb(self, at_least: Size | None = None) -> Image.Image:
        if self._rgb is None:
            self._rgb = over(self._ground, self._image)
        return self._rgb


class _Part(Picture):
    """A region of another Picture; all that is decoded is kept there."""

    def __init__(self, whole: Picture, region: Region) -> None:
        self._picture = whole
        self._region = region

    @property
    def size(self) -> Size:
        return _extent(self._box(self._picture.size))

    def rgb(self, at_least: Size | None = None) -> Image.Image:
        if at_least is not None:
            whole, own = self._picture.size, self.size
            at_least = (
                math.ceil(at_least[0] * whole[0] / own[0]),
                math.ceil(at_least[1] * whole[1] / own[1]),
            )
        image = self._picture.rgb(at_least)
        return image.crop(self._box(image.size))

    def _box(self, size: Size) -> tuple[int, int, int, int]:
        """In pixels of a copy of that size; never empty."""
        shown = self._region
        left, right = _span(shown.left, shown.right, size[0])
        top, bottom = _span(shown.top, shown.bottom, size[1])
        return left, top, right, bottom


def _span(begin: float, end: float, side: int) -> tuple[int, int]:
    first = min(round(begin * side), side - 1)
    return first, max(round(end * side), first + 1)


def _extent(box: tuple[int, int, int, int]) -> Size:
    return box[2] - box[0], box[3] - box[1]


def _upright(size: Size, orientation: int) -> Size:
    return (size[1], size[0]) if orientation >= 5 else size


def _next_frame(image: Image.Image, number: int) -> bool:
    """Whether there is one: a file may announce more than it has."""
    try:
        image.seek(number)
    except EOFError:
        return False
    return True


# Workers may start no thread; in the server every picture has one of its own.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


@cache
def has_decoder(name: str) -> bool:
    """Whether there is a decoder for a format that may come with an extra; loads it."""
    if name != "HEIF":
        return True
    try:
        import pi_heif
    except ImportError:
        return False
    pi_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    return True


def _decoder(container: FileHeaders) -> Image.Image:
    """One format only, the one whose container was walked."""
    return Image.open(BytesIO(container.drawing), formats=(container.format,))


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Everything that Pillow was seen or is documented to raise about a file, by our names.

    Its own text is left out: some of it quotes the file.
    """
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise ContentTooLarge(
            f"the {name} image takes too much memory to decode: send a smaller copy"
        ) from None
    except _BROKEN:
        raise BadContent(
            f"the {name} image is broken or cut off: send the whole file, or re-encode it"
        ) from None


_BROKEN = (
    OSError,  # cut off, unidentified, broken data stream
    SyntaxError,  # what a plugin raises about a header
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AssertionError,  # Pillow asserts what a file can break: a palette picture with no palette,
    AttributeError,  # and this is what follows where assertions are off
    OverflowError,
    RuntimeError,  # what the decoder of AVIF says
    struct.error,
    zlib.error,
    UserWarning,  # only where a caller turned warnings into errors
)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode that Pillow can convert, over white where it is transparent: what most
    viewers show."""
    return over(WHITE, to_drawn(image))


def to_drawn(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode that Pillow can convert, or RGBA where some of it is transparent.

    16-bit grey keeps its upper eight bits, as Pillow does with 16-bit colour; its own conversion
    would clip everything above 255 to white.
    """
    if image.mode.startswith("I"):
        return _to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        drawn = _straight(image).convert("RGBA")
        least, _ = drawn.getchannel("A").getextrema()
        return drawn if least != OPAQUE else drawn.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Of 16-bit grey, in any of Pillow's modes for it."""
    values = np.clip(np.asarray(image), 0, 0xFFFF) >> 8
    return Image.fromarray(values.astype(np.uint8))


def _straight(image: Image.Image) -> Image.Image:
    """With colours no longer multiplied by alpha: Pillow has no direct way from La and RGBa."""
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return image.convert(straight) if straight else image


def over(ground: tuple[int, int, int], image: Image.Image) -> Image.Image:
    """RGB of an RGB or RGBA image, over one colour."""
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGBA", image.size, ground)
    return Image.alpha_composite(canvas, image).convert("RGB")
