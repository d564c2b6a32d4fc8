"""List rows: single rows, hashes in bulk, refused and skipped rows, and counts of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import BadContent, ContentTooLarge, EmptyContent, NoSignal, SimsearchError
from simsearch.types import (
    DIGESTS,
    Fingerprint,
    HashContent,
    ImageContent,
    Signal,
    TextContent,
    VectorContent,
)

RAW_CHARS_MAX = 200
"""Characters of a refused row that are shown."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a row and a file; the defaults are those of a bank. `ratio_max` is how many
    times its size a gzip file may grow to, once it has grown to `ratio_from_bytes`."""

    labels_max: int = 32
    label_chars_max: int = 64
    source_chars_max: int = 256
    source_ids_max: int = 32
    severity_chars_max: int = 64
    note_chars_max: int = 4_000
    text_chars_max: int = 200_000
    contents_max: int = 1_024
    dim_max: int = 8_192
    image_bytes_max: int = 32 << 20
    line_bytes_max: int = 1 << 20
    record_bytes_max: int = 4 << 20
    nesting_max: int = 32
    files_max: int = 1_000_000
    unpacked_bytes_max: int = 256 << 30
    ratio_max: int = 200
    ratio_from_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class About:
    """Details of an item in a list. `state` is the state of an entry in an export, else empty;
    `withdrawn`: the source takes the item back; `expires_us`: when its ban ends by itself, in
    microseconds since 1970 (0: never)."""

    labels: tuple[str, ...] = ()
    source: str = ""
    source_ids: tuple[str, ...] = ()
    severity: str = ""
    note: str = ""
    state: str = ""
    withdrawn: bool = False
    expires_us: int = 0


EMPTY_ABOUT = About()


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that stays on disk until it is loaded."""

    path: Path
    bytes_max: int

    def load(self) -> ImageContent:
        """Read the image. Raises EmptyContent, ContentTooLarge, BadContent."""
        try:
            with self.path.open("rb") as file:
                data = file.read(self.bytes_max + 1)
        except OSError as fault:
            raise BadContent(f"cannot read {self.path}: {fault.strerror}") from None
        if not data:
            raise EmptyContent(f"{self.path} is empty")
        if len(data) > self.bytes_max:
            raise ContentTooLarge(f"{self.path} has more than {self.bytes_max} bytes")
        return ImageContent(data)


RowContent: TypeAlias = HashContent | VectorContent | TextContent | ImageFile


@dataclass(frozen=True, slots=True)
class ListRow:
    """One item: all `contents` are views of it. `number` counts lines, or records where a file has
    no lines, from 1; the item was made of `records` of them, the first of which is `number`. Only
    what is withdrawn may come without contents: then `about.source_ids` say what it is. `group` is
    the list's own name of an item that several records make up."""

    file: str
    number: int
    contents: tuple[RowContent, ...]
    about: About = EMPTY_ABOUT
    group: str = ""
    records: int = 1


@dataclass(frozen=True, slots=True)
class HashChunk:
    """Items of one hash each, of one signal, in the order of the file. Item i is `values[i]`, of
    line `numbers[i]`, and `abouts[about_of[i]]` is said of it. `values` is (n, width) uint8,
    `numbers` (n,) int64, `about_of` (n,) int32."""

    file: str
    signal: Signal
    values: NDArray[np.uint8]
    numbers: NDArray[np.int64]
    abouts: tuple[About, ...]
    about_of: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.values)

    def rows(self) -> Iterator[ListRow]:
        """The same, one by one."""
        width = self.values.shape[1]
        data = self.values.tobytes()
        places = zip(self.numbers.tolist(), self.about_of.tolist(), strict=True)
        for n, (number, about) in enumerate(places):
            content = HashContent(self.signal, data[n * width : (n + 1) * width])
            yield ListRow(self.file, number, (content,), self.abouts[about])


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A record that cannot be used, with the reason by name and in words. `raw` is how it begins;
    `record` is all of it, to be fixed and read again, or None where it is too long or no text."""

    file: str
    number: int
    raw: str = field(repr=False)
    reason: str
    words: str
    record: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """Records without an item that are no error: `kind` is "blank", "comment" or the like."""

    kind: str
    records: int = 1


Item: TypeAlias = ListRow | HashChunk | RefusedRow | SkippedRow


@dataclass(slots=True)
class ReadCounts:
    """Counts of one pass so far. Every record is in one of `accepted`, `refused` and `skipped`;
    accepted records make up `items`. A header is no record."""

    records: int = 0
    accepted: int = 0
    items: int = 0
    withdrawn: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, item: Item) -> None:
        """Count one item."""
        match item:
            case ListRow():
                self._accept(1, item.records, int(item.about.withdrawn))
            case HashChunk():
                gone = np.array([about.withdrawn for about in item.abouts])
                self._accept(len(item), len(item), int(gone[item.about_of].sum()))
            case RefusedRow():
                self.records += 1
                self.refused[item.reason] += 1
            case SkippedRow():
                self.records += item.records
                self.skipped[item.kind] += item.records

    def _accept(self, items: int, records: int, withdrawn: int) -> None:
        self.records += records
        self.accepted += records
        self.items += items
        self.withdrawn += withdrawn


def refused_row(file: str, number: int, record: bytes, why: SimsearchError) -> RefusedRow:
    """A refused row with its error; `record` must be the whole record."""
    return RefusedRow(file, number, shown(record), why.reason, why.message, record)


def shown(record: bytes) -> str:
    """The beginning of a record as text, to be shown."""
    text = record[: 4 * RAW_CHARS_MAX].decode("utf-8", "replace").rstrip("\r\n")
    return text[:RAW_CHARS_MAX]


def fingerprint_of(row: ListRow) -> Fingerprint:
    """The signals of a row of hashes and vectors, in its order. Vectors as they are, in float32.
    Raises NoSignal where it holds a text or an image: they have no signals yet."""
    digests: dict[Signal, tuple[bytes, ...]] = {}
    bits: dict[Signal, list[bytes]] = {}
    vectors: dict[str, list[NDArray[np.floating]]] = {}
    for content in row.contents:
        match content:
            case HashContent(signal, value) if signal in DIGESTS:
                digests[signal] = (*digests.get(signal, ()), value)
            case HashContent(signal, value):
                bits.setdefault(signal, []).append(value)
            case VectorContent(space, rows):
                vectors.setdefault(space, []).append(rows)
            case _:
                raise NoSignal(
                    f"record {row.number} of {row.file} is a text or an image: let a server "
                    "compute its signals"
                )
    return Fingerprint(
        digests=digests,
        bits={
            signal: np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)
            for signal, values in bits.items()
        },
        vectors={
            space: np.concatenate(rows).astype(np.float32, copy=False)
            for space, rows in vectors.items()
        },
    )
