"""Row blocks: append-only storage of a fixed size, written by the row log and shared by views.

A row costs its payload, 8 bytes of key and 2 of group: a block numbers the groups of its rows in a
table of its own, and stores the end of those rows only that have ended (tombstones).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.index.tombstones import Tombstones, contains

P = TypeVar("P", bound=np.generic)

BLOCK_ROWS_MAX = 65_536
"""Rows and groups of a block are numbered in uint16."""

ALIVE = np.iinfo(np.int64).max
"""The end of a row that has not been retired."""


@dataclass(frozen=True)
class Rows(Generic[P]):
    """Rows to be appended to a block; `ends` is None where all are alive."""

    payload: NDArray[P]
    keys: NDArray[np.int64]
    groups: NDArray[np.int64]
    ends: NDArray[np.int64] | None = None

    def part(self, at: slice) -> Rows[P]:
        """A slice of the rows."""
        ends = None if self.ends is None else self.ends[at]
        return Rows(self.payload[at], self.keys[at], self.groups[at], ends)


class RowBlock(Generic[P]):
    """Storage for a fixed number of rows. One thread writes: `count` is published last,
    `tombstones` and `groups` by replacement, so that readers need no lock."""

    def __init__(self, row_shape: tuple[int, ...], dtype: type[P], rows_max: int) -> None:
        # empty, not zeros: a page that no row has reached costs no memory. Of rows (parts, width)
        # each part lies by itself, so that a scan of the first one reads no other.
        parts, width = row_shape[:-1], row_shape[-1:]
        payload = np.empty((*parts, rows_max, *width), dtype)
        self.payload: NDArray[P] = np.moveaxis(payload, len(parts), 0)
        self.keys: NDArray[np.int64] = np.empty(rows_max, np.int64)
        self.slots: NDArray[np.uint16] = np.empty(rows_max, np.uint16)
        self.groups: tuple[int, ...] = ()
        self.tombstones = Tombstones.none(np.uint16)
        self.count = 0
        self._slot_of: dict[int, int] = {}
        self._key_min, self._key_max = ALIVE, -ALIVE

    @property
    def room(self) -> int:
        """How many more rows fit."""
        return len(self.keys) - self.count

    @property
    def nbytes(self) -> int:
        """Bytes allocated, tombstones included."""
        columns = self.payload.nbytes + self.keys.nbytes + self.slots.nbytes
        return columns + self.tombstones.nbytes

    def append(self, rows: Rows[P]) -> None:
        """Add at least one row, and no more than there is room for."""
        start, end = self.count, self.count + len(rows.keys)
        self.payload[start:end] = rows.payload
        self.keys[start:end] = rows.keys
        self.slots[start:end] = self._slots_of(rows.groups)
        self._key_min = min(self._key_min, int(rows.keys.min()))
        self._key_max = max(self._key_max, int(rows.keys.max()))
        if rows.ends is not None:
            ended = np.flatnonzero(rows.ends < ALIVE)
            self.tombstones = self.tombstones.joined(start + ended, rows.ends[ended])
        self.count = end  # last, so that a reader that sees the row sees all of it

    def _slots_of(self, groups: NDArray[np.int64]) -> NDArray[np.intp]:
        values, inverse = np.unique(groups, return_inverse=True)
        slot_of = self._slot_of
        slots = [slot_of.setdefault(group, len(slot_of)) for group in values.tolist()]
        if len(slot_of) > len(self.groups):
            self.groups = tuple(slot_of)
        return np.asarray(slots, np.intp)[inverse]

    def retire(self, keys: NDArray[np.int64], seqs: NDArray[np.int64]) -> int:
        """End the rows of `keys` (ascending, each once); returns how many ended."""
        # Keys mostly come in ascending order, so this leaves one block of many to look through.
        low, high = np.searchsorted(keys, (self._key_min, self._key_max + 1))
        if low == high:
            return 0
        rows = np.flatnonzero(np.isin(self.keys[: self.count], keys[low:high]))
        rows = rows[~contains(self.tombstones.rows, rows)]
        if len(rows):
            self.tombstones = self.tombstones.joined(
                rows, seqs[np.searchsorted(keys, self.keys[rows])]
            )
        return len(rows)

    def freeze(self, start: int, through: int) -> FrozenBlock[P]:
        """The block at log position `through`, its rows numbered from `start`."""
        return FrozenBlock(self, start, self.count, self.tombstones.until(through), self.groups)

    def live(self, through: int) -> int:
        """Rows alive at `through`."""
        return self.count - len(self.tombstones.until(through))

    def is_sparse(self, through: int, rows_max: int) -> bool:
        """Whether at most half of `rows_max` rows are alive."""
        return 2 * self.live(through) <= rows_max

    def is_mostly_dead(self, through: int) -> bool:
        """Whether fewer than half of its own rows are alive."""
        return 2 * self.live(through) < self.count

    def rows_after(self, through: int) -> Rows[P]:
        """The rows alive at `through`, with their later ends if they have any."""
        ends = np.full(self.count, ALIVE, np.int64)
        ends[self.tombstones.rows] = self.tombstones.seqs
        at = np.flatnonzero(ends > through)
        groups = np.asarray(self.groups, np.int64)[self.slots[at]]
        return Rows(self.payload[at], self.keys[at], groups, ends[at])


@dataclass(frozen=True)
class FrozenBlock(Generic[P]):
    """A block as one view sees it: its first `count` rows, less the `dead` ones (ascending).
    `start` is the number of its first row in the view."""

    block: RowBlock[P]
    start: int
    count: int
    dead: NDArray[np.uint16]
    groups: tuple[int, ...]

    @property
    def payload(self) -> NDArray[P]:
        """The rows themselves, dead ones too."""
        return self.block.payload[: self.count]

    @property
    def live(self) -> int:
        """Rows that are alive."""
        return self.count - len(self.dead)

    def keys(self, at: NDArray[np.intp]) -> NDArray[np.int64]:
        """Keys of the rows `at`."""
        return self.block.keys[at]

    def slots(self, at: NDArray[np.intp]) -> NDArray[np.uint16]:
        """Places of their groups in `groups`."""
        return self.block.slots[at]

    def group_ids(self, at: NDArray[np.intp]) -> NDArray[np.int64]:
        """Their groups."""
        return np.asarray(self.groups, np.int64)[self.slots(at)]


@dataclass(frozen=True)
class FrozenRows(Generic[P]):
    """The rows of a view, as of `through`."""

    through: int
    blocks: tuple[FrozenBlock[P], ...]

    def __len__(self) -> int:
        return sum(block.live for block in self.blocks)
