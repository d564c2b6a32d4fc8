"""The exact cosine index: its contract in several layouts, and what only it promises."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.errors import BadVector, SpaceMismatch
from simsearch.index.flat.cosine import ExactIndex
from simsearch.index.index_protocol import CosineView
from tests.index.contract import CosineViewContract
from tests.index.oracle import COSINE, Found, Row, clustered_vectors, found_by, unit


class TestExactView(CosineViewContract):
    block_rows = 16_384

    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> CosineView:
        index = ExactIndex(self.dim, block_rows=self.block_rows)
        append(index, rows)
        index.retire(sorted(retired), [1] * len(retired))
        self.before_freeze(index)
        return index.freeze(1)

    def before_freeze(self, index: ExactIndex) -> None:
        pass


class TestExactViewInTinyBlocks(TestExactView):
    block_rows = 7


class TestExactViewCompacted(TestExactView):
    block_rows = 3

    def before_freeze(self, index: ExactIndex) -> None:
        index.compact(1)


class TestExactViewOfUsualDim(TestExactView):
    dim = 384
    rows = 80


def append(index: ExactIndex, rows: Sequence[Row]) -> None:
    if rows:
        vectors = np.stack([row.value for row in rows])
        index.append(vectors, [row.key for row in rows], [row.group for row in rows])


def test_a_short_stored_vector_is_not_missed() -> None:
    """The GEMM multiplies by the stored length, which float16 moves; no match is lost to that."""
    vectors = clustered_vectors(np.random.default_rng(1), 200, dim=3)
    lengths = np.linalg.norm(vectors.astype(np.float16).astype(np.float64), axis=1)
    assert np.ptp(lengths) > 3e-4  # the case is in the data
    index = ExactIndex(3)
    index.append(vectors, range(200), [0] * 200)
    view = index.freeze(0)
    for key, (row, query) in enumerate(pairwise(vectors)):
        floor = COSINE.value(query, row)
        assert key in view.search(query[None], {0: floor}).key


def test_the_length_of_a_query_does_not_count() -> None:
    """A query that is not quite unit is answered as the unit one."""
    vectors = clustered_vectors(np.random.default_rng(2), 60, dim=5)
    index = ExactIndex(5)
    index.append(vectors, range(60), [0] * 60)
    view = index.freeze(0)
    expected = found_by(view.search(vectors, {0: 0.8}))
    assert found_by(view.search(vectors * np.float32(0.75), {0: 0.8})) == expected


def test_what_cannot_be_stored_is_refused() -> None:
    """A wrong dim and a length that is not 1 are named, and nothing of the batch is kept."""
    index = ExactIndex(4)
    good = np.eye(4, dtype=np.float32)
    with pytest.raises(SpaceMismatch, match=r"\(2, 5\).*\(n, 4\)"):
        index.append(np.zeros((2, 5), np.float32), [1, 2], [0, 0])
    with pytest.raises(BadVector, match=r"vector 2 of 4 .* 0\.5 away"):
        index.append(good * np.array([[1], [1], [0.5], [1]], np.float32), range(4), [0] * 4)
    assert len(index.freeze(0)) == 0


LAYOUT_ROWS = [
    Row(vector, key, key % 3)
    for key, vector in zip(
        np.random.default_rng(3).integers(0, 40, 60).tolist(),
        clustered_vectors(np.random.default_rng(4), 60, dim=4),
        strict=True,
    )
]
LAYOUT_QUERIES = clustered_vectors(np.random.default_rng(4), 12, dim=4)


def answers(index: ExactIndex, through: int) -> tuple[Found, list[bool]]:
    matches = index.freeze(through).search(LAYOUT_QUERIES, {0: 0.7, 2: 0.2})
    return found_by(matches), matches.truncated.tolist()


@settings(deadline=None, max_examples=60)
@given(
    block_rows=st.sampled_from([1, 3, 8, 16_384]),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    retired=st.lists(st.integers(0, 39), max_size=40),
    compact_at=st.sets(st.integers(0, 7)),
)
def test_the_layout_does_not_show(
    block_rows: int, cuts: list[int], retired: list[int], compact_at: set[int]
) -> None:
    """The same rows, added in any batches, in blocks of any size, compacted or not, give the
    same matches in the same order, also where an answer is truncated."""
    one = ExactIndex(4, rows_max=6)
    append(one, LAYOUT_ROWS)
    one.retire(retired, range(len(retired)))
    many = ExactIndex(4, block_rows=block_rows, rows_max=6)
    for step, (start, end) in enumerate(pairwise([0, *sorted(cuts), 60])):
        append(many, LAYOUT_ROWS[start:end])
        if step in compact_at:
            many.compact(0)
    many.retire(retired, range(len(retired)))
    for through in (0, len(retired)):
        assert answers(many, through) == answers(one, through)
        many.compact(through)
        assert answers(many, through) == answers(one, through)


@pytest.mark.parametrize("seed", range(12))
def test_leaving_out_hopeless_rows_does_not_show(seed: int) -> None:
    """Rows that the GEMM shows to be beaten are not scored. Where hundreds lie closer together
    than the GEMM's margin, and groups differ in floor, the answer is still the exact one."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal(3) + 0.05 * rng.standard_normal((400, 3)))
    rows = [Row(vector, key, int(rng.integers(0, 2))) for key, vector in enumerate(vectors)]
    index = ExactIndex(3, block_rows=150, rows_max=5)
    append(index, rows)
    view, queries = index.freeze(0), vectors[:6]
    for low, high in ((0.99, 0.9999), (0.9, 0.99999), (-1, 1)):
        floors = {0: float(rng.uniform(low, high)), 1: float(rng.uniform(low, high))}
        matches = view.search(queries, floors)
        found, truncated = COSINE.search(rows, queries, floors, 5)
        assert found_by(matches) == found
        assert matches.truncated.tolist() == truncated


def test_rows_that_miss_their_own_floor_beat_nobody() -> None:
    """Six rows a little under the floor of their group do not push out a farther row whose group
    has a low floor, and do not count as too many."""
    angles = np.arccos([0.999] * 6 + [0.9])
    index = ExactIndex(2, rows_max=2)
    index.append(unit(np.stack([np.cos(angles), np.sin(angles)], 1)), range(7), [0] * 6 + [1])
    matches = index.freeze(0).search(np.array([[1, 0]], np.float32), {0: 0.9995, 1: 0.5})
    assert matches.key.tolist() == [6]
    assert matches.truncated.tolist() == [False]


def test_a_right_angle_is_plain_zero() -> None:
    """Not -0.0, which prints and compares bit by bit as something else."""
    index = ExactIndex(2)
    index.append(np.eye(2, dtype=np.float32), [1, 2], [0, 0])
    cosine = index.freeze(0).search(np.array([[-1e-7, 1]], np.float32), {0: -1.0}).cosine
    assert cosine.tolist() == [1, 0]
    assert not np.signbit(cosine).any()


@pytest.mark.parametrize("copies", [1, 1 << 15], ids=["clustered", "all equal"])
def test_memory_is_bounded_when_every_row_matches(copies: int) -> None:
    """A floor that all rows pass needs no more memory for 32 blocks than for 4, also where no
    row can be left out unscored because all are equal."""

    def peak_bytes(rows: int) -> int:
        few = clustered_vectors(np.random.default_rng(5), max(64, rows // copies), dim=8)
        vectors = few[np.arange(rows) // copies]
        index = ExactIndex(8, block_rows=1024, rows_max=16)
        index.append(vectors, range(rows), [0] * rows)
        view = index.freeze(0)
        tracemalloc.start()
        matches = view.search(few[:16], {0: -1.0})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert matches.truncated.all()
        assert len(matches.query) == 16 * 16
        return peak

    assert peak_bytes(32 * 1024) < 1.3 * peak_bytes(4 * 1024)
