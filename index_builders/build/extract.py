"""Extraction: the rows of one consistent state of the bank, written to flat files.

Memory stays bounded whatever the size of the bank: entries are read in chunks and appended to
.npy files, whose header is written again when the count is known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simsearch.bank.state_reader import StateReader
from simsearch.errors import BadConfig
from simsearch.types import BINARY_BYTES, Fingerprint, Signal

ENTRIES_AT_ONCE = 4096

Progress: TypeAlias = Callable[[int], None]
"""Called with how many more entries are done."""

Chunk: TypeAlias = list[tuple[int, int, Fingerprint]]


class NpyAppender:
    """Rows appended to one .npy file; `close` writes the final count into its header.

    NumPy pads the header so that the first axis can grow in place (numpy.lib.format).
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: str) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._row_shape = row_shape
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._write_header()
        self._header_bytes = self._file.tell()

    @property
    def count(self) -> int:
        """Rows so far."""
        return self._count

    def append(self, rows: NDArray[Any]) -> None:
        """Write (n, *row_shape) rows at the end."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self._count += len(rows)

    def close(self) -> None:
        """Write the header with the final count, and close the file."""
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._header_bytes, "the header outgrew its padding"
        self._file.close()

    def drop(self) -> None:
        """Close the file without its count; a removed file keeps its disk space while open."""
        with suppress(OSError):
            self._file.close()

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._count, *self._row_shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


@dataclass(frozen=True)
class ExtractedRows:
    """What was extracted: counts by space and binary signal, and the state's log position."""

    built_through: int
    spaces: Mapping[str, tuple[int, int]]
    """Count and dim by space id, in the order of their numbers in file names."""
    signals: Mapping[str, int]
    without: tuple[str, ...] = ()
    """Ids of the spaces left out on request, sorted."""


OpenFile: TypeAlias = Callable[[str, tuple[int, ...], str], NpyAppender]
"""Opens the file of a name for rows of a shape and a dtype."""


class _Part:
    """The three files of one space or signal."""

    def __init__(self, open_file: OpenFile, name: str, kind: str, dim: int, dtype: str) -> None:
        self.dim = dim
        self._rows = open_file(f"{kind}-{name}.npy", (dim,), dtype)
        self._keys = open_file(f"keys-{name}.npy", (), "<i8")
        self._groups = open_file(f"groups-{name}.npy", (), "<u4")

    @property
    def count(self) -> int:
        return self._rows.count

    def append(self, entries: Sequence[tuple[int, int, NDArray[Any]]]) -> None:
        counts = [len(rows) for *_, rows in entries]
        self._rows.append(np.vstack([rows for *_, rows in entries]))
        self._keys.append(np.repeat(np.array([key for key, *_ in entries]), counts))
        self._groups.append(np.repeat(np.array([bank for _, bank, _ in entries]), counts))


@dataclass
class _Parts:
    """The files written so far, and which of the spaces in `without` the bank has."""

    directory: Path
    without: Collection[str] = ()
    spaces: dict[str, _Part] = field(default_factory=dict)
    signals: dict[Signal, _Part] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    files: list[NpyAppender] = field(default_factory=list)

    def open_file(self, name: str, row_shape: tuple[int, ...], dtype: str) -> NpyAppender:
        self.files.append(NpyAppender(self.directory / name, row_shape, dtype))
        return self.files[-1]

    def append(self, chunk: Chunk) -> None:
        for space, entries in _by_name(chunk, lambda f: f.vectors).items():
            if space in self.without:
                self.left_out.add(space)
                continue
            if space not in self.spaces:
                name, dim = str(len(self.spaces)), entries[0][2].shape[1]
                self.spaces[space] = _Part(self.open_file, name, "rows", dim, "<f2")
            self.spaces[space].append(entries)
        for signal, entries in _by_name(chunk, lambda f: f.bits).items():
            if signal not in self.signals:
                width = BINARY_BYTES[signal]
                self.signals[signal] = _Part(self.open_file, signal, "bits", width, "u1")
            self.signals[signal].append(entries)

    def require_left_out(self) -> None:
        if unknown := sorted({*self.without} - self.left_out):
            there = ", ".join(sorted({*self.spaces, *self.left_out})) or "no rows in any space"
            raise BadConfig(f"--without {unknown[0]}: give a space by its id; the bank has {there}")


def extract(
    reading: StateReader,
    directory: Path,
    progress: Progress = lambda _: None,
    without: Collection[str] = (),
) -> ExtractedRows:
    """Write rows, keys and groups of every active entry, in key order, into `directory`.

    Raises OSError where there is no room, BadConfig where no entry has a row in a space of
    `without`.
    """
    parts = _Parts(directory, without)
    try:
        for chunk in reading.active_chunks(ENTRIES_AT_ONCE):
            parts.append(chunk)
            progress(len(chunk))
        parts.require_left_out()
        for file in parts.files:
            file.close()
    finally:
        for file in parts.files:
            file.drop()
    return ExtractedRows(
        reading.seq,
        {space: (part.count, part.dim) for space, part in parts.spaces.items()},
        {str(signal): part.count for signal, part in parts.signals.items()},
        tuple(sorted(parts.left_out)),
    )


def _by_name(
    chunk: Chunk, part: Callable[[Fingerprint], Mapping[Any, NDArray[Any]]]
) -> dict[Any, list[tuple[int, int, NDArray[Any]]]]:
    """(key, bank id, rows) by space or signal."""
    found: dict[Any, list[tuple[int, int, NDArray[Any]]]] = {}
    for key, bank_id, fingerprint in chunk:
        for name, rows in part(fingerprint).items():
            found.setdefault(name, []).append((key, bank_id, rows))
    return found
