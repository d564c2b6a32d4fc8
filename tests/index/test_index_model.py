"""Random appends, retirements, freezes and compactions against a plain list of rows.

The worlds are tiny, so that ties, truncation, retired neighbours and block borders are common:
a palette of few payloads, blocks of 3 rows, 3 groups, answers of at most 4 rows, thresholds
taken from the values that occur. Every view is kept and asked again after later edits.

40 bugs were planted by hand, one at a time, and every one fails some test of this folder. This
file found 27 of them: > for >= at the floor, an end seen one seq late or early, the group filter
dropped, dead rows found or read from the live block, the live count read by an old view, order
by row before key, the farthest kept, `truncated` off by one, a retirement that moves an end or
misses the largest key, a compaction that reorders, loses rows or forgets their later
end, a margin below what float16 needs.
It misses, and other files catch: the count published before keys (test_rows watches the writes),
shared blocks (only the threads notice), what needs many rows (memory, left-out rows that were not
hopeless), layout in memory, BLAS instead of the exact routine, and the refusals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from simsearch.index.flat.cosine import ExactIndex, ExactView
from simsearch.index.flat.hamming import HammingIndex, HammingView
from simsearch.index.index_protocol import CosineMatches, HammingMatches
from tests.index.oracle import COSINE, HAMMING, Row, Scale, found_by, unit

ROWS_MAX = 4
BLOCK_ROWS = 3
PALETTE = 7

KEYS = st.integers(0, 7)
GROUPS = st.integers(0, 2)
PAYLOADS = st.integers(0, PALETTE - 1)

VECTORS = unit(
    np.array(
        [
            [1, 0, 0, 0],
            [1, 0.01, 0, 0],  # near-copies of the first
            [1, 0, 0.1, 0],
            [1, 1, 0, 0],  # right angles, halves and opposites, so that cosines repeat
            [0, 1, 1, 0],
            [-1, 0, 0, 0],
            [0.3, -0.5, 0.7, 0.2],
        ]
    )
)
HASHES = np.zeros((PALETTE, 32), np.uint8)
HASHES[1, 0] = 0b1  # 1 and 2 are equally far from 0; 4 and 5 are opposites
HASHES[2, 31] = 0b1
HASHES[3, :4] = 255
HASHES[4, :16] = 255
HASHES[5, 16:] = 255
HASHES[6, 5:9] = 0b10101010

V = TypeVar("V", ExactView, HammingView)


@dataclass
class Stored:
    row: Row
    ended: int | None = None


@dataclass
class Kept(Generic[V]):
    """A view and the rows it must go on seeing."""

    view: V
    rows: list[Row]


@dataclass
class Model:
    """Rows in the order they came, dead ones included."""

    rows: list[Stored] = field(default_factory=list)

    def retire(self, keys: list[int], seqs: list[int]) -> int:
        first_seq = {
            key: min(s for k, s in zip(keys, seqs, strict=True) if k == key) for key in keys
        }
        ending = [r for r in self.rows if r.ended is None and r.row.key in first_seq]
        for stored in ending:
            stored.ended = first_seq[stored.row.key]
        return len(ending)

    def alive(self, through: int) -> list[Row]:
        return [r.row for r in self.rows if r.ended is None or r.ended > through]


class Machine(RuleBasedStateMachine, Generic[V]):
    """`seq` is the last change; retirements may be known a little ahead of a freeze."""

    scale: Scale
    palette: NDArray[Any]
    index: ExactIndex | HammingIndex

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.kept: list[Kept[V]] = []
        self.seq = 0
        self.compacted = 0

    def freeze_index(self, through: int) -> V:
        raise NotImplementedError

    def search(
        self, view: V, queries: NDArray[Any], limits: Mapping[int, float]
    ) -> CosineMatches | HammingMatches:
        raise NotImplementedError

    @rule(rows=st.lists(st.tuples(PAYLOADS, KEYS, GROUPS), max_size=7))
    def append(self, rows: list[tuple[int, int, int]]) -> None:
        self.seq += 1
        payload = self.palette[[which for which, _, _ in rows]]
        self.index.append(payload, [k for _, k, _ in rows], [g for _, _, g in rows])
        self.model.rows += [Stored(Row(self.palette[which], k, g)) for which, k, g in rows]

    @rule(ends=st.lists(st.tuples(KEYS, st.integers(0, 2)), min_size=1, max_size=6))
    def retire(self, ends: list[tuple[int, int]]) -> None:
        self.seq += 1
        keys, seqs = [key for key, _ in ends], [self.seq + later for _, later in ends]
        assert self.index.retire(keys, seqs) == self.model.retire(keys, seqs)

    @rule(back=st.integers(0, 2))
    def freeze(self, back: int) -> None:
        through = max(self.seq - back, self.compacted)
        rows = self.model.alive(through)
        self.kept.append(Kept(self.freeze_index(through), rows))
        self.search_one(self.kept[-1], list(range(PALETTE)), dict.fromkeys(range(3), 0))

    @rule(back=st.integers(0, 3))
    def compact(self, back: int) -> None:
        through = max(self.seq - back, 0)
        self.index.compact(through)
        self.compacted = max(self.compacted, through)

    @precondition(lambda self: self.kept)
    @rule(
        data=st.data(),
        asked=st.lists(PAYLOADS, max_size=3),
        limits=st.dictionaries(GROUPS, PAYLOADS),
    )
    def search_any_view(
        self, data: st.DataObject, asked: list[int], limits: dict[int, int]
    ) -> None:
        which = data.draw(st.integers(0, len(self.kept) - 1), label="view")
        self.search_one(self.kept[which], asked, limits)

    def search_one(self, kept: Kept[V], asked: list[int], limits: dict[int, int]) -> None:
        """Each limit is the value between payload 0 and the one named, so that rows meet it."""
        values = {g: self.scale.value(self.palette[0], self.palette[p]) for g, p in limits.items()}
        matches = self.search(kept.view, self.palette[asked], values)
        found, truncated = self.scale.search(kept.rows, self.palette[asked], values, ROWS_MAX)
        assert found_by(matches) == found
        assert matches.truncated.tolist() == truncated

    @invariant()
    def views_keep_their_size(self) -> None:
        for kept in self.kept:
            assert len(kept.view) == len(kept.rows)

    def teardown(self) -> None:
        """Every view still answers as on the day it was frozen."""
        for kept in self.kept:
            self.search_one(kept, list(range(PALETTE)), {0: 3, 1: 5, 2: 1})


class ExactMachine(Machine[ExactView]):
    scale = COSINE
    palette = VECTORS

    def __init__(self) -> None:
        super().__init__()
        self.index: ExactIndex = ExactIndex(4, block_rows=BLOCK_ROWS, rows_max=ROWS_MAX)

    def freeze_index(self, through: int) -> ExactView:
        return self.index.freeze(through)

    def search(
        self, view: ExactView, queries: NDArray[Any], limits: Mapping[int, float]
    ) -> CosineMatches:
        return view.search(queries, limits)


class HammingMachine(Machine[HammingView]):
    scale = HAMMING
    palette = HASHES

    def __init__(self) -> None:
        super().__init__()
        self.index: HammingIndex = HammingIndex(block_rows=BLOCK_ROWS, rows_max=ROWS_MAX)

    def freeze_index(self, through: int) -> HammingView:
        return self.index.freeze(through)

    def search(
        self, view: HammingView, queries: NDArray[Any], limits: Mapping[int, float]
    ) -> HammingMatches:
        return view.search(queries, {group: int(limit) for group, limit in limits.items()})


_SETTINGS = settings(max_examples=200, stateful_step_count=25, deadline=None)
TestExactModel = ExactMachine.TestCase
TestExactModel.settings = _SETTINGS
TestHammingModel = HammingMachine.TestCase
TestHammingModel.settings = _SETTINGS
