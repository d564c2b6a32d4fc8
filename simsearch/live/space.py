"""Live index of one embedding space: the bases of a snapshot, a segment, and an exact index.

New rows go into the exact index. When it has more rows than a search should compare one by one,
they are sealed into the segment by another thread. Until that is done they are still searched
exactly, so edits do not wait and no search misses a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future

import numpy as np

from simsearch.index.flat.cosine import ExactIndex
from simsearch.index.flat.row_log import Ints
from simsearch.index.index_protocol import CosineView
from simsearch.index.ivf.ivf_view import IvfBase
from simsearch.index.ivf.plan import FLAT_ROWS_MAX
from simsearch.index.ivf.segment import Segment, SegmentTemplate
from simsearch.index.union import UnionView
from simsearch.telemetry import EventLog
from simsearch.types import Vectors

log = EventLog(__name__)

SEAL_ROWS = 1024
"""Rows beside an IVF that are compared one by one, about as much work as reading its lists. Chosen;
what rows beside a base cost is in benchmarks/README.md, index_search (delta_cost)."""


class LiveSpace:
    """The index of one space. One thread calls the methods; any thread may search the views."""

    def __init__(
        self,
        dim: int,
        sealer: Executor,
        bases: Sequence[IvfBase] = (),
        template: SegmentTemplate | None = None,
    ) -> None:
        """`bases` are immutable; `template` is that of the segment, None where it is to be made
        from the rows themselves."""
        self._dim = dim
        self._bases = tuple(bases)
        self._template = template
        self._segment: Segment | None = None
        self._waiting: tuple[ExactIndex, ...] = ()
        self._newest = ExactIndex(dim)
        self._retired: list[tuple[Ints, Ints]] = []
        self._sealer = sealer
        self._sealing: Future[Segment] | None = None
        self._sealed_of = 0
        self._unsealable = 0

    # ------------------------------------------------------------ edits

    def append(self, vectors: Vectors, keys: Ints, groups: Ints) -> None:
        """Add (n, dim) unit vectors with their keys and groups (ExactIndex.append)."""
        self._newest.append(vectors, keys, groups)

    def retire(self, keys: Ints, seqs: Ints) -> None:
        """End the rows of keys[i] at seqs[i]. No rows of these keys may be added later: a retracted
        entry stays retracted."""
        for base in (*self._bases, *self._segment_bases):
            base.retire(keys, seqs)
        for index in (*self._waiting, self._newest):
            index.retire(keys, seqs)
        self._retired.append((keys, seqs))

    def compact(self, through: int) -> None:
        """Drop rows outside the bases and the segment that ended by `through`."""
        for index in (*self._waiting, self._newest):
            index.compact(through)

    # ------------------------------------------------------------ views

    def freeze(self, through: int) -> CosineView:
        """The view at log position `through`."""
        parts: list[CosineView] = [base.freeze(through) for base in self._bases]
        parts += [base.freeze(through) for base in self._segment_bases]
        parts += [index.freeze(through) for index in self._waiting]
        if len(self._newest) or not parts:
            parts.append(self._newest.freeze(through))
        return parts[0] if len(parts) == 1 else UnionView(parts)

    # ------------------------------------------------------------ sealing

    def maintain(self, through: int) -> bool:
        """Adopt a finished segment; start sealing where there are enough rows. True where a view
        frozen from now on is searched faster. Rows that ended by `through` are not sealed."""
        adopted = self._adopt()
        rows = len(self._newest) + sum(map(len, self._waiting))
        enough = SEAL_ROWS if self._template else FLAT_ROWS_MAX + 1
        if self._sealing is None and rows >= self._unsealable + enough:
            self._begin(through)
        return adopted

    def wait_until_sealed(self, through: int) -> None:
        """Wait until no rows are left that should be sealed."""
        while self.maintain(through) or self._sealing is not None:
            if self._sealing is not None:
                self._sealing.exception()

    def _begin(self, through: int) -> None:
        if len(self._newest):
            self._waiting = (*self._waiting, self._newest)
            self._newest = ExactIndex(self._dim)
        parts = [index.live_rows(through) for index in self._waiting]
        vectors, keys, groups = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._sealed_of = len(self._waiting)
        self._sealing = self._sealer.submit(
            _seal, self._segment, self._template, vectors, keys, groups
        )

    def _adopt(self) -> bool:
        if self._sealing is None or not self._sealing.done():
            return False
        sealing, self._sealing = self._sealing, None
        if fault := sealing.exception():
            # The rows are still searched exactly; tried again when there are as many more.
            self._unsealable = sum(map(len, self._waiting))
            log.error("sealing_failed", rows=self._unsealable, fault=repr(fault))
            return False
        self._unsealable = 0
        self._segment = sealing.result()
        self._template = self._segment.template
        self._waiting = self._waiting[self._sealed_of :]
        if self._retired:
            # In one call: thousands of single ones would delay edits.
            keys, seqs = (np.concatenate(column) for column in zip(*self._retired, strict=True))
            self._retired = [(keys, seqs)]
            for base in self._segment.bases:
                base.retire(keys, seqs)
        log.info("rows_sealed", rows=len(self._segment))
        return True

    @property
    def _segment_bases(self) -> tuple[IvfBase, ...]:
        return () if self._segment is None else self._segment.bases


def _seal(
    segment: Segment | None,
    template: SegmentTemplate | None,
    vectors: Vectors,
    keys: Ints,
    groups: Ints,
) -> Segment:
    """In the sealer's thread."""
    begun = segment or Segment(template or SegmentTemplate.from_rows(vectors))
    return begun.extended(vectors, keys, groups)
