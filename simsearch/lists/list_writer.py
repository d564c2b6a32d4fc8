"""List writer: entries as JSONL, CSV or Parquet with a manifest, in a form that can be read again.

An entry is named by its content and stands in the order of these names. So a list depends on
what its entries are, not on their keys or on the order in which a bank took them up: a list that
is read into an empty bank and written from there is the same, byte for byte.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import heapq
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import numpy as np

from simsearch.errors import BadRequest, NoSignal
from simsearch.lists.export_manifest import MANIFEST_NAME, ListFile, Manifest, size_and_sha256
from simsearch.lists.fields import format_time, join_cell
from simsearch.lists.formats import Format
from simsearch.lists.readers.arrays import ROWS_AT_ONCE, VECTOR_PREFIX, pyarrow_parquet
from simsearch.lists.rows import About
from simsearch.types import Fingerprint, Signal

RUN_BYTES: Final = 64 << 20
"""Sorted in memory; what is more goes through temporary files."""

COLUMNS: Final = (
    "entry",
    "signal",
    "value",
    "labels",
    "source",
    "source_ids",
    "severity",
    "note",
    "state",
    "expires",
)

_LISTS: Final = ("labels", "source_ids")
_NAME_DIGITS: Final = 32

OutputRow = dict[str, Any]
"""A row: the columns by name, `labels` and `source_ids` as lists."""


@dataclass(frozen=True)
class ListEntry:
    """An entry of a bank. Vectors are written as float16, as a bank stores them."""

    fingerprint: Fingerprint
    about: About


@dataclass(frozen=True)
class _Written:
    entries: int
    rows: int
    signals: Mapping[str, int]
    states: Mapping[str, int]
    spaces: Mapping[str, int]


def write_list(
    entries: Iterable[ListEntry],
    folder: Path,
    format: Format = Format.JSONL,
    *,
    notes: Mapping[str, str] | None = None,
) -> Manifest:
    """Makes `folder`, with `entries.<format>` and the manifest in it, which is written last. Raises
    BadRequest where the folder holds anything or the format is not written, NoSignal, BadConfig."""
    _check_format(format)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BadRequest(f"{folder} is not empty: name a new folder")
    path = folder / f"entries.{format}"
    with path.open("xb") as file:
        written = _write(entries, file, format, folder)
        file.flush()
        os.fsync(file.fileno())
    size_bytes, sha256 = size_and_sha256(path)
    manifest = Manifest(
        entries=written.entries,
        files=(ListFile(path.name, str(format), written.rows, size_bytes, sha256),),
        signals=written.signals,
        states=written.states,
        spaces=written.spaces,
        notes=dict(notes or {}),
    )
    with (folder / MANIFEST_NAME).open("xb") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())
    return manifest


def write_entries(
    entries: Iterable[ListEntry],
    file: BinaryIO,
    format: Format = Format.JSONL,
    *,
    folder: Path | None = None,
) -> int:
    """To any binary file, as to standard output, without a manifest; returns how many entries.
    Temporary files are put into `folder`. Raises BadRequest, NoSignal, BadConfig."""
    _check_format(format)
    return _write(entries, file, format, folder).entries


def _check_format(format: Format) -> None:
    if format is Format.PARQUET:
        pyarrow_parquet()
    elif format not in (Format.JSONL, Format.CSV):
        raise BadRequest(f"lists are not written as {format}: choose jsonl, csv or parquet")


def _write(
    entries: Iterable[ListEntry], file: BinaryIO, format: Format, folder: Path | None
) -> _Written:
    signals: Counter[str] = Counter()
    states: Counter[str] = Counter()
    spaces: dict[str, int] = {}

    def counted() -> Iterator[bytes]:
        for entry in entries:
            rows = _rows_of(entry)
            signals.update(row["signal"] for row in rows)
            states[rows[0]["state"]] += 1
            spaces.update({s: v.shape[1] for s, v in entry.fingerprint.vectors.items()})
            yield _named(rows)

    with ExitStack() as stack:
        rows = _flat(_in_order(counted(), stack, folder))
        if format is Format.PARQUET:
            _write_parquet(rows, file, spaces)
        elif format is Format.CSV:
            _write_csv(rows, file)
        else:
            for row in rows:
                file.write(_json(row) + b"\n")
    return _Written(
        entries=states.total(),
        rows=signals.total(),
        signals=dict(sorted(signals.items())),
        states=dict(sorted(states.items())),
        spaces=dict(sorted(spaces.items())),
    )


# ---------------------------------------------------------------- one entry


def _rows_of(entry: ListEntry) -> list[OutputRow]:
    """A row for each of its values, in the order of signal and value. Raises NoSignal."""
    values = sorted(_values(entry.fingerprint))
    if not values:
        raise NoSignal("an entry to be written has no signals")
    about = entry.about
    said = {
        "labels": list(dict.fromkeys(filter(None, about.labels))),
        "source": about.source,
        "source_ids": list(dict.fromkeys(filter(None, about.source_ids))),
        "severity": about.severity,
        "note": about.note,
        "state": about.state or ("retracted" if about.withdrawn else ""),
        "expires": format_time(about.expires_us),
    }
    return [{"signal": signal, "value": value} | said for signal, value in values]


def _values(fingerprint: Fingerprint) -> Iterator[tuple[str, str]]:
    for signal, digests in fingerprint.digests.items():
        yield from ((str(signal), digest.hex()) for digest in digests)
    for signal, bits in fingerprint.bits.items():
        yield from ((str(signal), row.tobytes().hex()) for row in bits)
    for space, vectors in fingerprint.vectors.items():
        for row in vectors.astype("<f2"):
            yield space, base64.b64encode(row.tobytes()).decode()


def _named(rows: list[OutputRow]) -> bytes:
    """A line of its own: the name, which tells entries apart that differ in anything, then them."""
    body = b"[" + b",".join(map(_json, rows)) + b"]"
    return hashlib.sha256(body).hexdigest()[:_NAME_DIGITS].encode() + b" " + body + b"\n"


def _json(row: OutputRow) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


# ---------------------------------------------------------------- all of them


def _in_order(lines: Iterator[bytes], stack: ExitStack, folder: Path | None) -> Iterator[bytes]:
    """Sorted, whatever there is of it: in runs that are merged. All of `lines` has been taken when
    this returns."""
    runs: list[IO[bytes]] = []
    while run := _run(lines):
        if not runs and sum(map(len, run)) < RUN_BYTES:
            return iter(run)
        runs.append(stack.enter_context(_kept(run, folder)))
    return heapq.merge(*runs)


@contextmanager
def _kept(run: list[bytes], folder: Path | None) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.writelines(run)
        file.seek(0)
        yield file


def _run(lines: Iterator[bytes]) -> list[bytes]:
    found, size = [], 0
    for line in lines:
        found.append(line)
        size += len(line)
        if size >= RUN_BYTES:
            break
    return sorted(found)


def _flat(lines: Iterator[bytes]) -> Iterator[OutputRow]:
    """Entries that are the same in everything stay as many as they are, and are numbered."""
    for name, same in groupby(lines, key=lambda line: line[:_NAME_DIGITS].decode()):
        for n, line in enumerate(same, 1):
            entry = {"entry": name if n == 1 else f"{name}-{n}"}
            yield from (entry | row for row in json.loads(line[_NAME_DIGITS + 1 :]))


def _write_csv(rows: Iterator[OutputRow], file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        for row in rows:
            lists = {name: join_cell(row[name]) for name in _LISTS}
            cells = [lists[name] if name in lists else row[name] for name in COLUMNS]
            # Left to itself, the writer would not quote a carriage return.
            (quoting if any("\r" in cell for cell in cells) else writer).writerow(cells)
    finally:
        text.detach()  # the file is the caller's to close


def _write_parquet(rows: Iterator[OutputRow], file: BinaryIO, spaces: Mapping[str, int]) -> None:
    parquet = pyarrow_parquet()
    import pyarrow as pa

    kinds = {name: pa.list_(pa.string()) for name in _LISTS}
    columns = [(name, kinds.get(name, pa.string())) for name in COLUMNS]
    columns += [
        (VECTOR_PREFIX + space, pa.list_(pa.float16(), dim))
        for space, dim in sorted(spaces.items())
    ]
    schema = pa.schema(columns)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([_parted(row) for row in batch], schema))


def _parted(row: OutputRow) -> OutputRow:
    """Vectors go into the column of their space."""
    if row["signal"] in set(Signal):
        return row
    vector = np.frombuffer(base64.b64decode(row["value"]), "<f2")
    return row | {"value": None, VECTOR_PREFIX + row["signal"]: vector}
