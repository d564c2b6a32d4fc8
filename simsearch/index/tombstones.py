"""Tombstones: which rows of an index have ended, and at which position of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

R = TypeVar("R", bound=np.integer[Any])


@dataclass(frozen=True, eq=False)
class Tombstones(Generic[R]):
    """An immutable set: `rows` ascending, each once, and the `seqs` at which they ended, both
    (n,). `newest` is the highest of these, 0 where there are none."""

    rows: NDArray[R]
    seqs: NDArray[np.int64]
    newest: int = 0

    @staticmethod
    def none(dtype: type[R]) -> Tombstones[R]:
        """No tombstones, for rows that are numbered in `dtype`."""
        return Tombstones(np.empty(0, dtype), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.rows.nbytes + self.seqs.nbytes

    def until(self, through: int) -> NDArray[R]:
        """The rows that ended at or before `through`; `rows` itself where all did."""
        return self.rows if self.newest <= through else self.rows[self.seqs <= through]

    def joined(self, rows: NDArray[np.integer[Any]], seqs: NDArray[np.int64]) -> Tombstones[R]:
        """With more `rows` and their `seqs`, in any order. A row ends once: the end that is here
        already counts, then the lower of two seqs."""
        order = np.lexsort((seqs, rows))
        rows, first = np.unique(rows[order], return_index=True)
        seqs = seqs[order][first]
        is_new = ~contains(self.rows, rows)
        if not is_new.any():
            return self
        rows, seqs = rows[is_new], seqs[is_new]
        at = np.searchsorted(self.rows, rows)
        return Tombstones(
            np.insert(self.rows, at, rows),
            np.insert(self.seqs, at, seqs),
            max(self.newest, int(seqs.max())),
        )


def contains(ascending: NDArray[R], values: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which of `values` are in `ascending`, whose dtype must be able to hold them: np.isin for a
    sorted set, without its set-up."""
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    # one dtype on both sides, or searchsorted would convert the whole set at each call
    wanted = values.astype(ascending.dtype, copy=False)
    at = np.searchsorted(ascending, wanted)
    found: NDArray[np.bool_] = ascending[np.minimum(at, len(ascending) - 1)] == wanted
    return found
