"""A list as the parts in which it is sent to a server, each small enough for one message."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from simsearch.errors import SimsearchError
from simsearch.lists import About, HashChunk, ImageFile, ListReader, ListRow, RefusedRow, RowContent
from simsearch.types import Content, EntryState, HashContent, VectorContent
from simsearch.v1 import bank_pb2, content_pb2
from simsearch.wire import HASH_SIGNAL_NUMBERS, content_to, time_to

HASH_ROWS: Final = 2_048
READY_ROWS: Final = 512
"""Items of several hashes, or of vectors."""

ENCODED_ROWS: Final = 32
"""Images and texts: the server encodes them within the call."""

NAME_BYTES: Final = 16
PART_BYTES: Final = 8 << 20
READ_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True)
class Part:
    """Rows to send. `numbers` are their lines or records; what could not even be read from disk is
    left out. `request` lacks who, why and where."""

    file: str
    numbers: Sequence[int]
    request: bank_pb2.ImportEntriesRequest


Item: TypeAlias = Part | RefusedRow


def parts_of(reading: ListReader, state: EntryState) -> Iterator[Item]:
    """In the order of the list, and the same ones for the same list: their numbers name them for
    good. Raises as `read_list`."""
    gathered = _Gathered(state)
    for item in reading.batches():
        match item:
            case HashChunk():
                yield from gathered.taken()
                yield from _hash_parts(item, state)
            case ListRow():
                yield from gathered.add(item)
            case RefusedRow():
                yield item
    yield from gathered.taken()


# ---------------------------------------------------------------- hashes in bulk


def _hash_parts(chunk: HashChunk, state: EntryState) -> Iterator[Part]:
    for start in range(0, len(chunk), HASH_ROWS):
        rows = slice(start, start + HASH_ROWS)
        used, about_of = np.unique(chunk.about_of[rows], return_inverse=True)
        hashes = bank_pb2.HashRows(
            signal=HASH_SIGNAL_NUMBERS[chunk.signal],
            values=np.ascontiguousarray(chunk.values[rows]).tobytes(),
            abouts=[_about(chunk.abouts[number], state) for number in used.tolist()],
            about_of=about_of.tolist(),
        )
        request = bank_pb2.ImportEntriesRequest(hashes=hashes)
        yield Part(chunk.file, chunk.numbers[rows].tolist(), request)


def _about(about: About, state: EntryState) -> bank_pb2.ImportItem:
    return bank_pb2.ImportItem(entry=_draft(about, (), state), withdrawn=about.withdrawn)


def _draft(about: About, contents: Sequence[Content], state: EntryState) -> bank_pb2.EntryDraft:
    begins = EntryState[about.state.upper()] if about.state and not about.withdrawn else state
    return bank_pb2.EntryDraft(
        contents=[content_to(content) for content in contents],
        labels=about.labels,
        source=about.source,
        source_id=about.source_ids[0] if about.source_ids else "",
        aliases=about.source_ids[1:],
        note=about.note,
        severity=about.severity,
        state=int(begins),  # type: ignore[arg-type]
        expire_time=time_to(about.expires_us),
    )


# ---------------------------------------------------------------- other rows


class _Gathered:
    """Rows that wait until they are enough for a part."""

    def __init__(self, state: EntryState) -> None:
        self._state = state
        self._file = ""
        self._numbers: list[int] = []
        self._request = bank_pb2.ImportEntriesRequest()
        self._encoded = 0
        self._bytes = 0

    def add(self, row: ListRow) -> Iterator[Item]:
        try:
            contents = [_loaded(content) for content in row.contents]
            item = bank_pb2.ImportItem(
                entry=_draft(row.about, contents, self._state), withdrawn=row.about.withdrawn
            )
        except SimsearchError as why:
            yield RefusedRow(row.file, row.number, "", why.reason, why.message)
            return
        size, encoded = item.ByteSize(), not all(map(_is_ready, contents))
        if row.file != self._file or self._bytes + size > PART_BYTES:
            yield from self.taken()
        self._file = row.file
        self._numbers.append(row.number)
        self._request.items.append(item)
        self._bytes += size
        self._encoded += encoded
        if len(self._numbers) >= READY_ROWS or self._encoded >= ENCODED_ROWS:
            yield from self.taken()

    def taken(self) -> Iterator[Part]:
        """What there is."""
        if self._numbers:
            yield Part(self._file, self._numbers, self._request)
        self._numbers, self._request = [], bank_pb2.ImportEntriesRequest()
        self._encoded = self._bytes = 0


def _loaded(content: RowContent) -> Content:
    """Raises EmptyContent, ContentTooLarge, BadContent."""
    return content.load() if isinstance(content, ImageFile) else content


def _is_ready(content: Content) -> bool:
    return isinstance(content, HashContent | VectorContent)


# ---------------------------------------------------------------- names


def names_of(request: bank_pb2.ImportEntriesRequest) -> Iterator[bytes]:
    """Of each row: what has one content has one name."""
    if request.HasField("hashes"):
        values, count = request.hashes.values, len(request.hashes.about_of)
        width = len(values) // count
        for n in range(count):
            hash_ = content_pb2.Hash(
                signal=request.hashes.signal, value=values[n * width : (n + 1) * width]
            )
            yield _name([content_pb2.Content(hash=hash_)])
    for item in request.items:
        yield _name(item.entry.contents)


def _name(contents: Sequence[content_pb2.Content]) -> bytes:
    """It does not hang on their order."""
    each = sorted(hashlib.sha256(content.SerializeToString()).digest() for content in contents)
    return hashlib.sha256(b"".join(each)).digest()[:NAME_BYTES]


def import_id_of(path: Path, how: str) -> tuple[str, int]:
    """The name under which a list is imported for good: its content's and `how`'s SHA-256. And its
    lines, 0 where it has none. Of a folder: names and content of all its files."""
    whole, lines = hashlib.sha256(how.encode()), 0
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        whole.update(f"\0{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(READ_AT_ONCE):
                whole.update(block)
                lines += block.count(b"\n")
    return whole.hexdigest(), lines if path.is_file() else len(files)
