"""Segment: an IVF index in memory of the rows added after a base was built.

Nothing is trained for a segment: it has the centres and codebooks of the base. Where there is no
base, some of the rows are taken as the centres of lists. Calibration and nprobe, which may change
with the rows, are measured again as it grows.
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
"""With fewer rows the calibration of the template is more reliable. Chosen, not measured."""

CAPACITY_ROWS_MIN = 4096


@dataclass(frozen=True)
class IndexParameters:
    """Search parameters of an index: its score calibration, and how many lists a search reads."""

    calibration: Calibration
    nprobe: int


@dataclass(frozen=True)
class SegmentTemplate:
    """Template of a segment: `empty` makes a trained index without rows; `parameters` are those of
    such an index, None before any were measured; `centres` identifies its coarse quantizer, as in
    IvfBase."""

    empty: Callable[[], Any]
    parameters: IndexParameters | None = None
    centres: object | None = None

    @staticmethod
    def from_rows(rows: NDArray[np.floating]) -> SegmentTemplate:
        """A template trained on `rows` (n, dim) by `plan`, with some of them as the centres of
        lists. Takes about a second. Raises BadConfig where they are too few for an IVF."""
        chosen = plan(len(rows), rows.shape[1])
        rng = np.random.default_rng(0)
        picked = np.sort(rng.choice(len(rows), chosen.train_rows, replace=False))
        index = train.train(chosen.factory, rows[picked], drawn_lists=True)
        return SegmentTemplate(lambda: index)


class Segment:
    """IVF base in memory that is replaced by a larger one: `extended` returns a new segment, and
    views of this one stay valid. Each may be extended once. Tombstones are not carried over: rows
    retired here must be retired in the new one too. `bases` is empty or the one base."""

    def __init__(self, template: SegmentTemplate, index: Any = None) -> None:
        """`index`: a filled index, instead of an empty one."""
        self.template = template
        self._index = template.empty() if index is None else index
        self._storage = _GrowableRows(int(self._index.d))
        self._count = 0
        self._outliers = np.empty(0, np.int64)
        self._measured_rows = MEASURED_ROWS_MIN // 2
        self.bases: tuple[IvfBase, ...] = ()

    def __len__(self) -> int:
        return self._count

    def extended(self, rows: Vectors, keys: Ints, groups: Ints) -> Segment:
        """A segment with (n, dim) more rows; computes in the calling thread alone. About .1 ms per
        new row, and .1 ms per thousand rows copied (not in benchmarks/README.md)."""
        larger = Segment(self.template, faiss_io.copy_of(self._index))
        larger._storage = self._storage.with_rows(self._count, rows, keys, groups)
        larger._count = self._count + len(rows)
        larger._measured_rows = self._measured_rows
        with one_thread():
            numbers = np.arange(self._count, larger._count)
            outliers = train.fill(larger._index, rows, numbers)
            larger._outliers = np.concatenate((self._outliers, outliers))
            larger._measure()
        parameters = larger.template.parameters
        assert parameters is not None, "it has just been measured"
        larger.bases = (
            IvfBase(
                larger._index,
                *larger._storage.filled(larger._count),
                calibration=parameters.calibration,
                nprobe=parameters.nprobe,
                outliers=larger._outliers,
                centres=self.template.centres,
            ),
        )
        return larger

    def _measure(self) -> None:
        """Measure the parameters again whenever the rows have doubled. The old ones are kept where
        they let more through."""
        parameters = self.template.parameters
        if parameters is not None and self._count < 2 * self._measured_rows:
            return
        rows, _, _ = self._storage.filled(self._count)
        calibration = train.calibrate(self._index, rows)
        nprobe = max(NPROBE, train.nprobe_for(self._index, rows))
        if parameters is not None:
            calibration = Calibration(
                min(calibration.bias, parameters.calibration.bias),
                max(calibration.sd, parameters.calibration.sd),
            )
            nprobe = max(nprobe, parameters.nprobe)
        measured = IndexParameters(calibration, min(nprobe, int(self._index.nlist)))
        self.template = replace(self.template, parameters=measured)
        self._measured_rows = self._count


class _GrowableRows:
    """Arrays with spare capacity, shared by a segment and its successor: a segment reads only up
    to its own count, so the next one may write behind it."""

    def __init__(self, dim: int, capacity: int = 0) -> None:
        self._rows = np.empty((capacity, dim), np.float16)
        self._keys = np.empty(capacity, np.int64)
        self._groups = np.empty(capacity, np.int64)

    def filled(
        self, count: int
    ) -> tuple[NDArray[np.float16], NDArray[np.int64], NDArray[np.int64]]:
        return self._rows[:count], self._keys[:count], self._groups[:count]

    def with_rows(self, count: int, rows: Vectors, keys: Ints, groups: Ints) -> _GrowableRows:
        """Itself, where `rows` fit behind the first `count`; else a larger copy."""
        end = count + len(rows)
        storage = self
        if end > len(self._keys):
            storage = _GrowableRows(self._rows.shape[1], max(2 * end, CAPACITY_ROWS_MIN))
            storage._rows[:count], storage._keys[:count] = self._rows[:count], self._keys[:count]
            storage._groups[:count] = self._groups[:count]
        storage._rows[count:end] = rows
        storage._keys[count:end] = keys
        storage._groups[count:end] = groups
        return storage
