"""Pictures made from nothing, and the files they can be saved as; no test data is needed."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simsearch.encode.image.picture import ImageLimits, Picture, PictureFile, open_picture

ORIENTATION_TAG = 0x0112


@lru_cache(maxsize=64)
def landscape(seed: int = 0, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Colour with the spectrum of photographs, amplitude falling as 1/frequency. Shared: do not
    change it."""
    rng = np.random.default_rng(seed)
    channels = [_field(rng, size) for _ in range(3)]
    # Channels of a photograph go together: mix a common field in.
    common = _field(rng, size)
    stacked = np.stack([0.7 * common + 0.3 * channel for channel in channels], axis=2)
    return Image.fromarray((stacked * 255).astype(np.uint8))


def _field(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    width, height = size
    radius = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width)
    spectrum = rng.normal(size=radius.shape) + 1j * rng.normal(size=radius.shape)
    values = np.fft.irfft2(spectrum / np.maximum(radius, 1.0) ** 1.2, s=(height, width))
    low, high = np.percentile(values, (1, 99))
    scaled: NDArray[np.float64] = np.clip((values - low) / (high - low), 0.0, 1.0)
    return scaled


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.copy().save(file, format, **options)  # a copy: Pillow keeps the options at the image
    return file.getvalue()


def opened(data: bytes) -> PictureFile:
    return open_picture(data, ImageLimits())


def pixels(picture: Picture) -> NDArray[np.int16]:
    """Signed, so that differences are what they seem."""
    return np.asarray(picture.rgb()).astype(np.int16)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION_TAG] = orientation
    return tags


def png(size: tuple[int, int], depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG by hand: what Pillow cannot write, and claims that no picture backs."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_16_bit_colour(image: Image.Image) -> bytes:
    """Every value v as v × 257, the 16-bit number that stands for the same brightness."""
    values = np.asarray(image).astype(">u2") * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(image.size, 16, 2, rows)


def png_16_bit_grey(image: Image.Image) -> bytes:
    return saved(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")


def ycck_jpeg(image: Image.Image) -> bytes:
    """Pillow writes CMYK only: give it Y, Cb, Cr in the places of C, M, Y (stored inverted),
    and let the Adobe segment say that they are."""
    cyan, magenta, yellow, black = image.convert("CMYK").split()
    ycc = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr")
    inverted = [channel.point(lambda value: 255 - value) for channel in ycc.split()]
    data = saved(Image.merge("CMYK", (*inverted, black)), "JPEG", quality=95)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    return data[:at] + b"\2" + data[at + 1 :]


def copies(image: Image.Image) -> dict[str, bytes]:
    """The same picture as people's tools save it."""
    turned = image.transpose(Image.Transpose.ROTATE_90)
    return {
        "palette PNG": saved(image.quantize(256), "PNG"),
        "web palette PNG": saved(image.convert("P"), "PNG"),
        "grey PNG": saved(image.convert("L"), "PNG"),
        "grey and alpha PNG": saved(image.convert("LA"), "PNG"),
        "alpha PNG": saved(image.convert("RGBA"), "PNG"),
        "1-bit PNG": saved(image.convert("1"), "PNG"),
        "16-bit grey PNG": png_16_bit_grey(image),
        "16-bit colour PNG": png_16_bit_colour(image),
        "JPEG": saved(image, "JPEG", quality=90),
        "grey JPEG": saved(image.convert("L"), "JPEG", quality=90),
        "progressive JPEG": saved(image, "JPEG", quality=90, progressive=True),
        "CMYK JPEG": saved(image.convert("CMYK"), "JPEG", quality=90),
        "YCCK JPEG": ycck_jpeg(image),
        "JPEG turned by EXIF": saved(turned, "JPEG", quality=90, exif=exif(6)),
        "WebP": saved(image, "WEBP"),
        "lossless WebP": saved(image, "WEBP", lossless=True),
        "WebP with alpha": saved(image.convert("RGBA"), "WEBP"),
        "GIF": saved(image, "GIF"),
    }
