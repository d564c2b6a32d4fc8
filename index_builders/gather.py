"""First stage of a build: the rows of one consistent state, from the bank into flat files.

Memory stays bounded whatever the size of the bank: entries are read in chunks and appended to
.npy files, whose header is written again when the count is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simsearch.bank.reading import Reading
from simsearch.types import BITS_BYTES, Fingerprint, Signal

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
        return self._count

    def append(self, rows: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self._count += len(rows)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._header_bytes, "the header outgrew its padding"
        self._file.close()

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._count, *self._row_shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


@dataclass(frozen=True)
class Gathered:
    """Rows by space and by binary signal, and the log position that they are the state of."""

    built_through: int
    spaces: Mapping[str, tuple[int, int]]
    """Count and dim by space id, in the order of their numbers in file names."""
    signals: Mapping[str, int]


class _Part:
    """The three files of one space or signal."""

    def __init__(self, directory: Path, name: str, kind: str, dim: int, dtype: str) -> None:
        self.dim = dim
        self._rows = NpyAppender(directory / f"{kind}-{name}.npy", (dim,), dtype)
        self._keys = NpyAppender(directory / f"keys-{name}.npy", (), "<i8")
        self._groups = NpyAppender(directory / f"groups-{name}.npy", (), "<u4")

    @property
    def count(self) -> int:
        return self._rows.count

    def append(self, entries: Sequence[tuple[int, int, NDArray[Any]]]) -> None:
        counts = [len(rows) for *_, rows in entries]
        self._rows.append(np.vstack([rows for *_, rows in entries]))
        self._keys.append(np.repeat(np.array([key for key, *_ in entries]), counts))
        self._groups.append(np.repeat(np.array([bank for _, bank, _ in entries]), counts))

    def close(self) -> None:
        for file in (self._rows, self._keys, self._groups):
            file.close()


def gather(reading: Reading, directory: Path, progress: Progress = lambda _: None) -> Gathered:
    """Write rows, keys and groups of every active entry, in key order, into `directory`."""
    spaces: dict[str, _Part] = {}
    signals: dict[Signal, _Part] = {}
    for chunk in _chunks(reading):
        for space, entries in _by_name(chunk, lambda f: f.vectors).items():
            dim = entries[0][2].shape[1]
            if space not in spaces:
                spaces[space] = _Part(directory, str(len(spaces)), "rows", dim, "<f2")
            spaces[space].append(entries)
        for signal, entries in _by_name(chunk, lambda f: f.bits).items():
            if signal not in signals:
                signals[signal] = _Part(directory, signal, "bits", BITS_BYTES, "u1")
            signals[signal].append(entries)
        progress(len(chunk))
    for part in (*spaces.values(), *signals.values()):
        part.close()
    return Gathered(
        reading.seq,
        {space: (part.count, part.dim) for space, part in spaces.items()},
        {str(signal): part.count for signal, part in signals.items()},
    )


def _chunks(reading: Reading) -> Iterator[Chunk]:
    entries = reading.active_entries()
    while chunk := list(islice(entries, ENTRIES_AT_ONCE)):
        yield chunk


def _by_name(
    chunk: Chunk, part: Callable[[Fingerprint], Mapping[Any, NDArray[Any]]]
) -> dict[Any, list[tuple[int, int, NDArray[Any]]]]:
    """(key, bank id, rows) by space or signal."""
    found: dict[Any, list[tuple[int, int, NDArray[Any]]]] = {}
    for key, bank_id, fingerprint in chunk:
        for name, rows in part(fingerprint).items():
            found.setdefault(name, []).append((key, bank_id, rows))
    return found
