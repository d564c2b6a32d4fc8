"""Rows added after a base was built, sealed into an IVF that is cast from the base's own mould.

Nothing is trained for a segment: it has the centres and codebooks of the base. Where there is no
base to take them from, lists are drawn from the rows themselves. What may have changed with the
rows, how far scores lie from cosines and how many lists must be read, is measured as it grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsearch.index.flat.row_log import Ints
from simsearch.index.ivf import faiss_io, train
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.faiss_io import one_thread
from simsearch.index.ivf.ivf_view import IvfBase
from simsearch.index.ivf.plan import NPROBE, plan
from simsearch.types import Vectors

MEASURED_ROWS_MIN = 2048
"""Fewer rows tell less about scores than what the mould says of those it was made for."""

ROOM_ROWS_MIN = 4096


@dataclass(frozen=True)
class IndexParameters:
    """Of an index: how its scores lie, and how many lists a search is to read."""

    calibration: Calibration
    nprobe: int


@dataclass(frozen=True)
class SegmentTemplate:
    """`empty` makes a trained index without rows. `known` is None where no rows have been searched
    with it yet. `centres` stands for the centres of its lists, as in IvfBase."""

    empty: Callable[[], Any]
    known: IndexParameters | None = None
    centres: object | None = None

    @staticmethod
    def from_rows(rows: NDArray[np.floating]) -> SegmentTemplate:
        """As `plan` says for so many `rows` (n, dim), with some of them as the centres of lists.
        Takes about a second. Raises BadConfig where they are few enough to be compared each."""
        chosen = plan(len(rows), rows.shape[1])
        rng = np.random.default_rng(0)
        picked = np.sort(rng.choice(len(rows), chosen.train_rows, replace=False))
        index = train.train(chosen.factory, rows[picked], drawn_lists=True)
        return SegmentTemplate(lambda: index)


class Segment:
    """An IVF base in memory that can be had larger: `extended` gives another, and this one stays
    as it is for the views that have it. Each may be extended once. What was retired in this one
    is alive in the larger one until it is retired there too. `bases` is empty or the one base."""

    def __init__(self, template: SegmentTemplate, index: Any = None) -> None:
        """`index`: filled, instead of an empty one."""
        self.template = template
        self._index = template.empty() if index is None else index
        self._room = _GrowableRows(int(self._index.d))
        self._count = 0
        self._outliers = np.empty(0, np.int64)
        self._measured_rows = MEASURED_ROWS_MIN // 2
        self.bases: tuple[IvfBase, ...] = ()

    def __len__(self) -> int:
        return self._count

    def extended(self, rows: Vectors, keys: Ints, groups: Ints) -> Segment:
        """With (n, dim) more rows; computes in the calling thread alone. About .1 ms a row and
        .1 ms for a thousand rows that were there before, which are copied."""
        larger = Segment(self.template, faiss_io.copy_of(self._index))
        larger._room = self._room.with_rows(self._count, rows, keys, groups)
        larger._count = self._count + len(rows)
        larger._measured_rows = self._measured_rows
        with one_thread():
            numbers = np.arange(self._count, larger._count)
            outliers = train.fill(larger._index, rows, numbers)
            larger._outliers = np.concatenate((self._outliers, outliers))
            larger._measure()
        known = larger.template.known
        assert known is not None, "it has just been measured"
        larger.bases = (
            IvfBase(
                larger._index,
                *larger._room.filled(larger._count),
                calibration=known.calibration,
                nprobe=known.nprobe,
                outliers=larger._outliers,
                centres=self.template.centres,
            ),
        )
        return larger

    def _measure(self) -> None:
        """Anew whenever there are twice as many rows. What was known is kept where it is wider."""
        known = self.template.known
        if known is not None and self._count < 2 * self._measured_rows:
            return
        rows, _, _ = self._room.filled(self._count)
        calibration = train.calibrate(self._index, rows)
        nprobe = max(NPROBE, train.nprobe_for(self._index, rows))
        if known is not None:
            calibration = Calibration(
                min(calibration.bias, known.calibration.bias),
                max(calibration.sd, known.calibration.sd),
            )
            nprobe = max(nprobe, known.nprobe)
        measured = IndexParameters(calibration, min(nprobe, int(self._index.nlist)))
        self.template = replace(self.template, known=measured)
        self._measured_rows = self._count


class _GrowableRows:
    """Arrays with room to spare. What lies behind a segment's count is not seen through it, so
    the next one may write there."""

    def __init__(self, dim: int, capacity: int = 0) -> None:
        self._rows = np.empty((capacity, dim), np.float16)
        self._keys = np.empty(capacity, np.int64)
        self._groups = np.empty(capacity, np.int64)

    def filled(
        self, count: int
    ) -> tuple[NDArray[np.float16], NDArray[np.int64], NDArray[np.int64]]:
        return self._rows[:count], self._keys[:count], self._groups[:count]

    def with_rows(self, count: int, rows: Vectors, keys: Ints, groups: Ints) -> _GrowableRows:
        """Itself, where `rows` fit behind the first `count`; else a larger one with both."""
        end = count + len(rows)
        room = self
        if end > len(self._keys):
            room = _GrowableRows(self._rows.shape[1], max(2 * end, ROOM_ROWS_MIN))
            room._rows[:count], room._keys[:count] = self._rows[:count], self._keys[:count]
            room._groups[:count] = self._groups[:count]
        room._rows[count:end] = rows
        room._keys[count:end] = keys
        room._groups[count:end] = groups
        return room
