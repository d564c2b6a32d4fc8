"""Header walk: what a walk over an image file finds, and how far it may go."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from simsearch.errors import BadContent, ContentTooLarge

PIECES_MAX = 200_000
"""Segments, chunks or blocks of one file; a 20 MiB GIF has 82,000 by its format."""

PROFILE_BYTES_MAX = 1 << 20
"""Of a colour profile that is applied; those of printers have half a megabyte."""

RE_ENCODE = "re-encode it with an ordinary image tool and send it again"


@dataclass(frozen=True)
class FileHeaders:
    """`format` as Pillow names it; `size` is (width, height) as stored, before `orientation`
    (EXIF, 1 to 8), and `frames` their number: None where the decoder's own headers say so.
    `drawing` is a smaller file of that format with what draws its frames, of a GIF the first
    `frames_max`; formats whose decoders are bounded come as they are. `profile` is a colour profile
    that the drawing lacks. `cut`: the file ends too early; `short`: so many bytes of its only frame
    are known to be missing, which a decoder would not notice."""

    format: str
    size: tuple[int, int] | None
    frames: int | None
    orientation: int
    drawing: bytes = field(repr=False)
    profile: bytes = field(default=b"", repr=False)
    cut: bool = False
    short: int = 0
    unseen: tuple[str, ...] = ()


@dataclass
class WalkBudget:
    """How much of one file may still be walked."""

    name: str
    frames_max: int
    pieces_left: int = PIECES_MAX

    def piece(self) -> None:
        """Count a piece. Raises ContentTooLarge."""
        self.pieces_left -= 1
        if self.pieces_left < 0:
            raise ContentTooLarge(
                f"the {self.name} file is cut into more than {PIECES_MAX} pieces: {RE_ENCODE}"
            )

    def bad(self, what: str) -> BadContent:
        """The error of a file that is not as its format asks."""
        return BadContent(f"the {self.name} file {what}: {RE_ENCODE}")


def large_profile(size: int) -> str:
    """What is said of a colour profile of more than PROFILE_BYTES_MAX bytes."""
    return f"its colour profile of {size} bytes or more was not applied: it is too large"


def orientation_of(exif: bytes) -> int:
    """EXIF tag 0x0112, or 1 (upright) where it is absent or broken: viewers do the same."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        at = struct.unpack_from(order + "I", tiff, 4)[0]
        for entry in range(struct.unpack_from(order + "H", tiff, at)[0]):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * entry)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
