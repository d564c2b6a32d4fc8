"""Headers of BMP and TIFF, and of the box files AVIF, HEIF and JPEG XL, each with its bounds."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from simsearch.encode.image.containers.header_walk import FileHeaders, WalkBudget
from simsearch.errors import ContentTooLarge

TAGS_MAX = 1_000
"""Entries of one page of a TIFF; scanners write 30."""

TAG_BYTES_TIMES = 4
"""What all entries of a page may claim together, in times the file: a decoder copies each."""

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_TYPE_BYTES = _TYPE_BYTES | {16: 8, 17: 8, 18: 8}


def walk_bmp(data: bytes, budget: WalkBudget) -> FileHeaders:
    """The size is in its first header. Raises struct.error where it ends too early."""
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return FileHeaders("BMP", (abs(width), abs(height)), 1, 1, data)


class _Tiff(NamedTuple):
    """How numbers are stored: `order` for struct, and the sizes of the classic form or BigTIFF."""

    order: str
    number: str
    offset: str
    types: dict[int, int]
    at: int

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(f"{self.order}HH{self.offset}")

    @property
    def entry_bytes(self) -> int:
        return 4 + 2 * struct.calcsize(self.order + self.offset)


def walk_tiff(data: bytes, budget: WalkBudget) -> FileHeaders:
    """Every page is looked at; the largest sides give the size. Pillow turns TIFF upright itself.
    Raises ContentTooLarge where entries claim more than there is, struct.error where it ends too
    early."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", data, 2)[0] == 43:
        form = _Tiff(order, "Q", "Q", _BIG_TYPE_BYTES, 8)
    else:
        form = _Tiff(order, "H", "I", _TYPE_BYTES, 4)
    pages = list(_pages(data, form, budget))
    width, height = max(p.width for p in pages), max(p.height for p in pages)
    return FileHeaders("TIFF", (width, height), len(pages), 1, data)


class _Page(NamedTuple):
    width: int
    height: int


def _pages(data: bytes, form: _Tiff, budget: WalkBudget) -> Iterator[_Page]:
    at = struct.unpack_from(form.order + form.offset, data, form.at)[0]
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        count = struct.unpack_from(form.order + form.number, data, at)[0]
        if count > TAGS_MAX:
            raise ContentTooLarge(f"a page of the TIFF file has more than {TAGS_MAX} entries")
        at += struct.calcsize(form.order + form.number)
        yield _page(data, at, count, form, budget)
        at = struct.unpack_from(form.order + form.offset, data, at + count * form.entry_bytes)[0]
    if not seen:
        raise budget.bad("has no picture in it")


def _page(data: bytes, at: int, count: int, form: _Tiff, budget: WalkBudget) -> _Page:
    found = {256: 0, 257: 0}
    claimed = 0
    for number in range(count):
        budget.piece()
        tag, kind, values = form.entry.unpack_from(data, at + number * form.entry_bytes)
        claimed += form.types.get(kind, 0) * values
        if tag in found and kind in (3, 4):
            value_at = at + number * form.entry_bytes + form.entry.size
            found[tag] = struct.unpack_from(
                form.order + ("H" if kind == 3 else "I"), data, value_at
            )[0]
    if claimed > TAG_BYTES_TIMES * len(data):
        raise ContentTooLarge("the entries of the TIFF file claim more than it holds")
    return _Page(found[256], found[257])


# ---------------------------------------------------------------- boxes

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def box_format(data: bytes) -> str | None:
    """ "AVIF", "HEIF" or "JXL", by the brands that the file says it keeps to; None: neither."""
    if data[4:8] != b"ftyp":
        return None
    end = min(struct.unpack_from(">I", data)[0], len(data), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else None


def walk_boxes(data: bytes, budget: WalkBudget) -> FileHeaders:
    """As it came: its decoder says how large it is before it decodes a pixel."""
    return FileHeaders(budget.name, None, None, 1, data)
