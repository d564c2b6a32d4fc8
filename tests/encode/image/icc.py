"""Colour profiles made from nothing (ICC.1:2001-04), to do to colours what a test needs."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

# The primaries of sRGB, adapted to D50.
_SRGB = {
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
}
_WHITE = (0.9642, 1.0, 0.8249)


def rgb_profile(curve: Sequence[float], padding: int = 0) -> bytes:
    """What a value of 0 to 255 means in linear light, 0 to 1, is `curve` of it, for each channel;
    the primaries are those of sRGB."""
    tags = {name: _xyz(value) for name, value in _SRGB.items()}
    tags |= {name: _curve(curve) for name in (b"rTRC", b"gTRC", b"bTRC")}
    if padding:
        tags[b"pad "] = b"text\0\0\0\0" + bytes(padding)
    return _profile(b"RGB ", b"XYZ ", tags)


def grey_profile(curve: Sequence[float]) -> bytes:
    """The same for one channel."""
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": _curve(curve)})


def ink_profile() -> bytes:
    """Of CMYK: black ink is light, and the other inks are nothing."""
    lightness = np.array([[255 * (n % 2), 128, 128] for n in range(16)], np.uint8)
    straight = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix
    table += straight * 4 + lightness.tobytes() + straight * 3
    return _profile(b"CMYK", b"Lab ", {b"A2B0": table})


def srgb_curve() -> list[float]:
    """What sRGB means by 0 to 255."""
    values = np.arange(256) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return [float(v) for v in linear]


def _profile(colours: bytes, space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    tags = {b"wtpt": _xyz(_WHITE), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    begin = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", begin + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    size = begin + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"test", 0x02100000, b"scnr", colours, space)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *map(_fixed, _WHITE))
    return head.ljust(128, b"\0") + table + body


def _xyz(value: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, value))


def _fixed(value: float) -> int:
    return round(value * 65536)


def _curve(values: Sequence[float]) -> bytes:
    entries = (round(65535 * v) for v in values)
    return b"curv\0\0\0\0" + struct.pack(f">I{len(values)}H", len(values), *entries)
