"""The rows of one space: the base of a snapshot, and behind it whatever was added since.

New rows go into an exact index. When that holds more than a search should compare one by one,
they are sealed into a segment, in a thread of its own: until that is done they are searched
exactly, so no edit waits for it and no search misses one.
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
"""How many rows beside an IVF are compared one by one: about as much work as reading its lists."""


class LiveSpace:
    """One thread appends, retires, tends and freezes; views are read by any."""

    def __init__(
        self,
        dim: int,
        sealer: Executor,
        bases: Sequence[IvfBase] = (),
        template: SegmentTemplate | None = None,
    ) -> None:
        """`bases` never grow; `mould` is what segments are cast from, None where lists are to be
        drawn from the rows."""
        self._dim = dim
        self._bases = tuple(bases)
        self._template = template
        self._segment: Segment | None = None
        self._waiting: tuple[ExactIndex, ...] = ()
        self._newest = ExactIndex(dim)
        self._ended: list[tuple[Ints, Ints]] = []
        self._sealer = sealer
        self._sealing: Future[Segment] | None = None
        self._sealed_of = 0
        self._unsealable = 0

    # ------------------------------------------------------------ edits

    def append(self, vectors: Vectors, keys: Ints, groups: Ints) -> None:
        """As ExactIndex.append."""
        self._newest.append(vectors, keys, groups)

    def retire(self, keys: Ints, seqs: Ints) -> None:
        """As RowLog.retire. No rows of these keys may come later: a retracted entry stays so."""
        for base in (*self._bases, *self._segment_bases):
            base.retire(keys, seqs)
        for index in (*self._waiting, self._newest):
            index.retire(keys, seqs)
        self._ended.append((keys, seqs))

    def compact(self, through: int) -> None:
        """As RowLog.compact, of what no base holds."""
        for index in (*self._waiting, self._newest):
            index.compact(through)

    # ------------------------------------------------------------ views

    def freeze(self, through: int) -> CosineView:
        """What a search at log position `through` sees."""
        parts: list[CosineView] = [base.freeze(through) for base in self._bases]
        parts += [base.freeze(through) for base in self._segment_bases]
        parts += [index.freeze(through) for index in self._waiting]
        if len(self._newest) or not parts:
            parts.append(self._newest.freeze(through))
        return parts[0] if len(parts) == 1 else UnionView(parts)

    # ------------------------------------------------------------ sealing

    def maintain(self, through: int) -> bool:
        """Take over what was sealed, and begin to seal what should be; True where a view frozen
        from now on is searched faster. Rows that ended by `through` are left out."""
        adopted = self._adopt()
        rows = len(self._newest) + sum(map(len, self._waiting))
        enough = SEAL_ROWS if self._template else FLAT_ROWS_MAX + 1
        if self._sealing is None and rows >= self._unsealable + enough:
            self._begin(through)
        return adopted

    def wait_until_sealed(self, through: int) -> None:
        """Wait until nothing is left to seal."""
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
            _sealed, self._segment, self._template, vectors, keys, groups
        )

    def _adopt(self) -> bool:
        if self._sealing is None or not self._sealing.done():
            return False
        sealing, self._sealing = self._sealing, None
        if fault := sealing.exception():
            # They stay where they are searched exactly, and are tried again with as many more.
            self._unsealable = sum(map(len, self._waiting))
            log.error("sealing_failed", rows=self._unsealable, fault=repr(fault))
            return False
        self._unsealable = 0
        self._segment = sealing.result()
        self._template = self._segment.template
        self._waiting = self._waiting[self._sealed_of :]
        if self._ended:
            # As one: base by base and edit by edit, edits would wait for thousands of them.
            keys, seqs = (np.concatenate(column) for column in zip(*self._ended, strict=True))
            self._ended = [(keys, seqs)]
            for base in self._segment.bases:
                base.retire(keys, seqs)
        log.info("rows_sealed", rows=len(self._segment))
        return True

    @property
    def _segment_bases(self) -> tuple[IvfBase, ...]:
        return () if self._segment is None else self._segment.bases


def _sealed(
    segment: Segment | None,
    template: SegmentTemplate | None,
    vectors: Vectors,
    keys: Ints,
    groups: Ints,
) -> Segment:
    """In the sealer's thread."""
    begun = segment or Segment(template or SegmentTemplate.from_rows(vectors))
    return begun.extended(vectors, keys, groups)
