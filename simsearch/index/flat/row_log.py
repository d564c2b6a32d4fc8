"""Row log: append-only multi-version storage of an in-memory index, and the views frozen from it.

One writer appends and retires; a view is a frozen list of (block, row count, dead rows). The
writer never changes what a view refers to: rows past its count are new, and its tombstones are
replaced, not edited. So readers need no lock, and an old view always gives the same results.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Generic, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import InternalFault
from simsearch.index.flat.row_blocks import BLOCK_ROWS_MAX, FrozenRows, P, RowBlock, Rows

Ints: TypeAlias = Sequence[int] | NDArray[np.integer]

NO_INTS = np.empty(0, np.int64)


class RowLog(Generic[P]):
    """All rows of one index, in the order they were appended. For one writing thread."""

    def __init__(self, row_shape: tuple[int, ...], dtype: type[P], block_rows: int) -> None:
        if not 0 < block_rows <= BLOCK_ROWS_MAX:
            raise InternalFault(f"block_rows is {block_rows}: choose 1 to {BLOCK_ROWS_MAX}")
        self.row_shape = row_shape
        self._dtype = dtype
        self._block_rows = block_rows
        self._blocks: tuple[RowBlock[P], ...] = ()
        self._compacted_through = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks, as allocated; pages never written to cost no memory yet."""
        return sum(block.nbytes for block in self._blocks)

    def __len__(self) -> int:
        return sum(block.count for block in self._blocks)

    def append(self, payload: NDArray[P], keys: Ints, groups: Ints) -> None:
        """Add len(payload) rows. Raises InternalFault where keys or groups are not as many."""
        rows = Rows(payload, np.asarray(keys, np.int64), np.asarray(groups, np.int64))
        if not len(payload) == len(rows.keys) == len(rows.groups):
            raise InternalFault(
                f"{len(payload)} rows came with {len(rows.keys)} keys and {len(rows.groups)} "
                "groups: give one of each for every row"
            )
        self._blocks = self._extended(self._blocks, rows)

    def retire(self, keys: Ints, seqs: Ints) -> int:
        """End every row of keys[i] as of seqs[i]; returns how many rows ended.

        A row ends once: retiring it again changes nothing, and of two seqs for one key in one
        call the lower counts. A key without rows is no error: an entry need not have a row here.
        """
        key, seq = np.asarray(keys, np.int64), np.asarray(seqs, np.int64)
        order = np.lexsort((seq, key))
        key, first = np.unique(key[order], return_index=True)
        return sum(block.retire(key, seq[order][first]) for block in self._blocks)

    def freeze(self, through: int) -> FrozenRows[P]:
        """The rows appended so far, less those that ended at or before `through`."""
        if through < self._compacted_through:
            raise InternalFault(
                f"cannot freeze at seq {through}: rows that ended by {self._compacted_through} "
                "have been compacted away"
            )
        starts = accumulate((block.count for block in self._blocks), initial=0)
        return FrozenRows(
            through,
            tuple(b.freeze(s, through) for b, s in zip(self._blocks, starts, strict=False)),
        )

    def live_rows(self, through: int) -> tuple[NDArray[P], NDArray[np.int64], NDArray[np.int64]]:
        """Payload, keys and groups of the rows that `freeze` would contain, in order. For the
        writing thread."""
        parts = [block.rows_after(through) for block in self._blocks]
        none = np.empty((0, *self.row_shape), self._dtype)
        return (
            np.concatenate([none, *(part.payload for part in parts)]),
            np.concatenate([NO_INTS, *(part.keys for part in parts)]),
            np.concatenate([NO_INTS, *(part.groups for part in parts)]),
        )

    def compact(self, through: int) -> int:
        """Rewrite blocks more than half dead as of `through`; returns how many rows that dropped.

        Neighbours that fit together become one block. Rows keep their order, views keep the old
        blocks, and no later freeze may go below `through`.
        """
        self._compacted_through = max(through, self._compacted_through)
        before = len(self)
        blocks: tuple[RowBlock[P], ...] = ()
        for sparse, run in groupby(self._blocks, lambda b: b.is_sparse(through, self._block_rows)):
            old = tuple(run)
            worth = sparse and (len(old) > 1 or old[0].is_mostly_dead(through))
            blocks += self._rewritten(old, through) if worth else old
        self._blocks = blocks
        return before - len(self)

    def _rewritten(self, old: Sequence[RowBlock[P]], through: int) -> tuple[RowBlock[P], ...]:
        new: tuple[RowBlock[P], ...] = ()
        for block in old:
            new = self._extended(new, block.rows_after(through))
        return new

    def _extended(self, blocks: tuple[RowBlock[P], ...], rows: Rows[P]) -> tuple[RowBlock[P], ...]:
        """`rows` in the room left in the last block, then in new ones."""
        while len(rows.keys):
            if not blocks or not blocks[-1].room:
                blocks += (RowBlock(self.row_shape, self._dtype, self._block_rows),)
            room = blocks[-1].room
            blocks[-1].append(rows.part(slice(room)))
            rows = rows.part(slice(room, None))
        return blocks
