"""CSV reader: our own columns, and those of the threatexchange command line."""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import BadContent, BadRequest, SimsearchError
from simsearch.lists.byte_streams import HEAD_BYTES, ByteStream, LineBlock, lines_of, without_mark
from simsearch.lists.fields import (
    SIGNALS,
    RowDefaults,
    about_of,
    contents_of,
    group_of,
    ids_of,
    width_of,
    with_ids,
)
from simsearch.lists.item_groups import ItemGrouper
from simsearch.lists.readers.plain import decode_line, from_hex, numbered_lines, refused_long_line
from simsearch.lists.rows import (
    About,
    HashChunk,
    Item,
    ListRow,
    RowContent,
    SkippedRow,
    refused_row,
)
from simsearch.types import Signal

OPEN_LINES_MAX: Final = 200
"""Lines that one quoted cell may span; the line of an unclosed quote is refused."""

BLOCK_ROWS: Final = 128
"""Rows of a block that is read in bulk again, to isolate a row at fault."""

ABOUTS_KEPT_MAX: Final = 65_536

_DELIMITERS: Final = (",", ";", "\t")

COLUMN_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "hash": "value",
        "label": "labels",
        "tags": "labels",
        "group": "entry",
        "entry_group": "entry",
        "severity_level": "severity",
        "notes": "note",
        "description": "note",
        "expires_at": "expires",
        "expiry": "expires",
    }
)
"""Other names of our columns."""

OWN_COLUMNS: Final = frozenset(
    [
        "signal",
        "value",
        "text",
        "labels",
        "source",
        "source_id",
        "source_ids",
        "severity",
        "note",
        "action",
        "withdrawn",
        "state",
        "expires",
        "entry",
    ]
)


ID_COLUMNS: Final = frozenset(("source_id", "source_ids"))


class Dialect(Protocol):
    """How the columns of a table are read. `names` maps column names to ours;
    `about` depends on the `about_columns` alone."""

    names: Mapping[str, str]
    about_columns: frozenset[str]

    def about(self, row: Mapping[str, str], defaults: RowDefaults) -> About:
        """The details of a row, without source ids. Raises BadInput."""
        ...

    def contents(
        self, row: Mapping[str, str], about: About, defaults: RowDefaults
    ) -> tuple[RowContent, ...]:
        """The contents of a row. Raises BadInput."""
        ...


class OwnColumns:
    """See docs/formats.md."""

    names = COLUMN_ALIASES
    about_columns = OWN_COLUMNS - {"signal", "value", "text", "entry"} - ID_COLUMNS

    def about(self, row: Mapping[str, str], defaults: RowDefaults) -> About:
        """Details from our own columns."""
        return about_of(row, defaults)

    def contents(
        self, row: Mapping[str, str], about: About, defaults: RowDefaults
    ) -> tuple[RowContent, ...]:
        """Contents from our own columns."""
        return contents_of(row, about, defaults)


@dataclass(frozen=True)
class Header:
    """The first line of a table and its column names."""

    raw: bytes
    delimiter: str
    names: tuple[str, ...]

    def has(self, *names: str) -> bool:
        """Whether all of these columns are there."""
        return set(names) <= set(self.names)


def header_of(data: bytes) -> Header | None:
    """The first line, if it could be one. Commas, semicolons or tabs stand between its cells."""
    line = without_mark(data).partition(b"\n")[0]
    try:
        text = line.decode().rstrip("\r")
    except UnicodeDecodeError:
        return None
    delimiter = max(_DELIMITERS, key=text.count)
    try:
        cells = next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None
    names = tuple(cell.strip().lower().replace(" ", "_") for cell in cells)
    return Header(line, delimiter, names)


def read_table(stream: ByteStream, defaults: RowDefaults, dialect: Dialect) -> Iterator[Item]:
    """Raises BadContent where there is no header that can be read."""
    header = header_of(stream.head)
    if header is None or len(header.raw) >= HEAD_BYTES:
        raise BadContent(f"{stream.name} has no header: name its columns in the first line")
    table = _Table(stream.name, header, defaults, dialect)
    held = b""
    for lines in lines_of(stream, defaults.limits.line_bytes_max):
        if lines.cut:
            yield from table.read(lines.first, held, last=True)
            yield refused_long_line(stream.name, lines, defaults)
            held = b""
            continue
        first, data = lines.first, lines.data
        if first == 1:
            first, data = 2, data[len(header.raw) + 1 :]
        first -= held.count(b"\n")
        held = yield from table.read(first, held + data, last=False)
    if held:
        yield from table.read(table.next_number, held, last=True)
    yield from table.grouping.flush()


@dataclass
class _Table:
    file: str
    header: Header
    defaults: RowDefaults
    dialect: Dialect
    next_number: int = 2
    abouts: dict[tuple[str, ...], About] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = tuple(self.dialect.names.get(name, name) for name in self.header.names)
        twice = sorted(
            {name for name in self.names if name in OWN_COLUMNS and self.names.count(name) > 1}
        )
        if twice:
            raise BadContent(f"{self.file} has two columns for {', '.join(twice)}: keep one")
        self.grouping = ItemGrouper(self.defaults.limits)
        self._at = {name: n for n, name in enumerate(self.names)}
        self._about_at = self._places(self.dialect.about_columns)
        self._ids_at = self._places(ID_COLUMNS)
        self._has_source_id_alone = "source_ids" not in self._at

    def _places(self, wanted: frozenset[str]) -> tuple[int, ...]:
        return tuple(n for n, name in enumerate(self.names) if name in wanted)

    def read(self, first: int, data: bytes, *, last: bool) -> Generator[Item, None, bytes]:
        """The records of whole lines; returns what may go on in the lines after them."""
        if not data:
            return b""
        rows = self._rows(data)
        if rows is None:
            return (yield from self._one_by_one(first, data, last))
        items = self._in_bulk(first, rows)
        yield from self._in_blocks(first, rows, data) if items is None else items
        self.next_number = first + len(rows)
        return b""

    # ------------------------------------------------------------ in bulk

    def _in_blocks(self, first: int, rows: Sequence[Sequence[str]], data: bytes) -> Iterator[Item]:
        """Lines of one record each, some of which cannot be read in bulk: by blocks."""
        raws = [raw for _, raw in numbered_lines(LineBlock(first, data))]
        for at in range(0, len(rows), BLOCK_ROWS):
            block = rows[at : at + BLOCK_ROWS]
            items = self._in_bulk(first + at, block)
            if items is not None:
                yield from items
                continue
            for n, cells in enumerate(block, at):
                yield from self._record(first + n, raws[n], cells)

    def _in_bulk(self, first: int, rows: Sequence[Sequence[str]]) -> list[Item] | None:
        """Lines that are each one hash and an item of its own; None: there are others."""
        if set(map(len, rows)) != {len(self.names)} or "value" not in self._at:
            return None
        last = self._last_of_group(rows)
        whole = rows[:-1] if last else rows
        if not whole:
            return None
        columns = dict(zip(self.names, zip(*whole, strict=True), strict=True))
        if any(columns.get("text", ())) or not self._stand_alone(columns.get("entry", ()), last):
            return None
        try:
            chunks = self._chunks(first, columns)
            held = [self._row(first + len(whole), last)] if last else []
        except SimsearchError:
            return None
        if chunks is None:
            return None
        done: list[Item] = [*self.grouping.flush(), *chunks]
        return done + [row for new in held for row in self.grouping.add(new)]

    def _last_of_group(self, rows: Sequence[Sequence[str]]) -> Sequence[str] | None:
        """The last row, where the lines that come next may be of the same item."""
        return rows[-1] if "entry" in self._at and rows[-1][self._at["entry"]] else None

    def _rows(self, data: bytes) -> list[list[str]] | None:
        """Of lines that are a record each."""
        try:
            lines = data.decode().removesuffix("\n").split("\n")
            rows = list(csv.reader(lines, delimiter=self.header.delimiter, strict=True))
        except (UnicodeDecodeError, csv.Error):
            return None
        return rows if len(rows) == len(lines) else None

    def _stand_alone(self, groups: Sequence[str], last: Sequence[str] | None) -> bool:
        """Whether each row is an item of its own."""
        neighbours = [self.grouping.group, *groups]
        if last:
            neighbours.append(last[self._at["entry"]])
        return not any(a and a == b for a, b in pairwise(neighbours))

    def _chunks(self, first: int, columns: Mapping[str, Sequence[str]]) -> list[HashChunk] | None:
        count = len(columns["value"])
        names = columns.get("signal", ("",) * count)
        signals = {name: self._signal(name) for name in dict.fromkeys(names)}
        if None in signals.values():
            return None
        abouts, about_of_row = self._abouts(columns, count)
        chunks = []
        for signal in dict.fromkeys(signals.values()):
            assert signal is not None
            if len(signals) == 1:
                at, digits = np.arange(count), columns["value"]
            else:
                at = np.flatnonzero([signals[name] is signal for name in names])
                digits = [columns["value"][n] for n in at.tolist()]
            width = width_of(signal)
            if set(map(len, digits)) != {2 * width}:
                return None
            values = from_hex("".join(digits), len(at), width)
            if values is None:
                return None
            numbers = (at + first).astype(np.int64)
            chunks.append(HashChunk(self.file, signal, values, numbers, abouts, about_of_row[at]))
        return chunks

    def _signal(self, name: str) -> Signal | None:
        name = name.strip().lower()
        return SIGNALS.get(name) if name else self.defaults.signal

    def _abouts(
        self, columns: Mapping[str, Sequence[str]], count: int
    ) -> tuple[tuple[About, ...], NDArray[np.int32]]:
        """What is said, each once, and which of it is said of which row."""
        words = self._cells_at(columns, self._about_at, count)
        if self._ids_at:
            ids = self._cells_at(columns, self._ids_at, count)
            return tuple(map(self._about, words, ids)), np.arange(count, dtype=np.int32)
        said: dict[tuple[str, ...], int] = {}
        of_row = [said.setdefault(cells, len(said)) for cells in words]
        return tuple(self._about(cells, ()) for cells in said), np.array(of_row, np.int32)

    def _cells_at(
        self, columns: Mapping[str, Sequence[str]], places: Sequence[int], count: int
    ) -> Iterator[tuple[str, ...]]:
        if not places:
            return repeat((), count)
        return zip(*(columns[self.names[n]] for n in places), strict=True)

    def _about(self, words: tuple[str, ...], ids: tuple[str, ...]) -> About:
        """Of the cells at `_about_at` and `_ids_at`. Most lists say the same of very many rows."""
        about = self.abouts.get(words)
        if about is None:
            if len(self.abouts) >= ABOUTS_KEPT_MAX:
                self.abouts.clear()
            row = dict(zip((self.names[n] for n in self._about_at), words, strict=True))
            about = self.abouts[words] = self.dialect.about(row, self.defaults)
        if not any(ids):
            return about
        if self._has_source_id_alone:
            return with_ids(about, (ids[0].strip(),), self.defaults)
        row = dict(zip((self.names[n] for n in self._ids_at), ids, strict=True))
        return with_ids(about, ids_of(row), self.defaults)

    # ------------------------------------------------------------ one by one

    def _one_by_one(self, first: int, data: bytes, last: bool) -> Generator[Item, None, bytes]:
        lines = [line for _, line in numbered_lines(LineBlock(first, data))]
        at = 0
        while at < len(lines):
            count = self._lines_of_record(lines, at)
            if count is None and not last and len(lines) - at < OPEN_LINES_MAX:
                self.next_number = first + at
                return b"\n".join(lines[at:]) + b"\n"
            raw = b"\n".join(lines[at : at + (count or 1)])
            yield from self._unparsed(first + at, raw, is_open=count is None)
            at += count or 1
        self.next_number = first + at
        return b""

    def _unparsed(self, number: int, raw: bytes, *, is_open: bool) -> Iterator[Item]:
        try:
            if is_open:
                raise BadRequest("a quote is opened and never closed")
            cells = self._cells(raw)[0] if raw.strip() else []
        except csv.Error as fault:
            yield refused_row(self.file, number, raw, BadRequest(f"the row is no CSV: {fault}"))
        except SimsearchError as refusal:
            yield refused_row(self.file, number, raw, refusal)
        else:
            yield from self._record(number, raw, cells)

    def _lines_of_record(self, lines: Sequence[bytes], at: int) -> int | None:
        """None: a quote is opened that the next lines do not close."""
        quotes = 0
        for n, line in enumerate(lines[at : at + OPEN_LINES_MAX], 1):
            quotes += line.count(b'"')
            if not quotes % 2:
                return n if n == 1 or self._is_one(b"\n".join(lines[at : at + n])) else 1
        return None

    def _is_one(self, raw: bytes) -> bool:
        """Whether these lines are one record and not several with a stray quote each."""
        try:
            return len(self._cells(raw)) == 1
        except (SimsearchError, csv.Error):
            return False

    def _cells(self, raw: bytes) -> list[list[str]]:
        lines = io.StringIO(decode_line(raw), newline="\n")  # which alone ends a line
        return list(csv.reader(lines, delimiter=self.header.delimiter, strict=True))

    def _record(self, number: int, raw: bytes, cells: Sequence[str]) -> Iterator[Item]:
        if not any(map(str.strip, cells)):
            yield SkippedRow("blank")
            return
        try:
            row = self._row(number, cells)
            yield from self.grouping.add(row)
        except SimsearchError as refusal:
            yield refused_row(self.file, number, raw, refusal)

    def _row(self, number: int, cells: Sequence[str]) -> ListRow:
        if len(cells) != len(self.names):
            raise BadRequest(f"the row has {len(cells)} cells, the header {len(self.names)}")
        words = tuple([cells[n] for n in self._about_at])
        about = self._about(words, tuple([cells[n] for n in self._ids_at]))
        row = dict(zip(self.names, cells, strict=True))
        contents = self.dialect.contents(row, about, self.defaults)
        return ListRow(self.file, number, contents, about, group_of(row, self.defaults.limits))
