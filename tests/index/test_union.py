"""Views asked as one: their contract, and that how rows are split between parts does not show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.errors import InternalFault, SpaceMismatch
from simsearch.index.flat.cosine import ExactIndex, ExactView
from simsearch.index.flat.hamming import HammingIndex, HammingView
from simsearch.index.union import HammingUnionView, UnionView
from tests.index.contract import CosineViewContract, HammingViewContract
from tests.index.oracle import Row, clustered_bits, clustered_vectors, found_by


def exact(
    rows: Sequence[Row], retired: frozenset[int] = frozenset(), *, dim: int, rows_max: int = 1024
) -> ExactView:
    index = ExactIndex(dim, rows_max=rows_max)
    if rows:
        vectors = np.stack([row.value for row in rows])
        index.append(vectors, [row.key for row in rows], [row.group for row in rows])
    index.retire(sorted(retired), [1] * len(retired))
    return index.freeze(1)


def hamming(
    rows: Sequence[Row], retired: frozenset[int] = frozenset(), *, rows_max: int = 1024
) -> HammingView:
    index = HammingIndex(rows_max=rows_max)
    if rows:
        bits = np.stack([row.value for row in rows])
        index.append(bits, [row.key for row in rows], [row.group for row in rows])
    index.retire(sorted(retired), [1] * len(retired))
    return index.freeze(1)


class TestUnionOfTwo(CosineViewContract):
    share = 0.3

    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> UnionView:
        cut = int(self.share * len(rows))
        return UnionView([exact(part, retired, dim=self.dim) for part in (rows[:cut], rows[cut:])])


class TestUnionWithNothing(TestUnionOfTwo):
    share = 0.0


class TestUnionOfUnions(CosineViewContract):
    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> UnionView:
        cuts = [0, len(rows) // 3, len(rows) // 2, len(rows)]
        a, b, c = (exact(rows[i:j], retired, dim=self.dim) for i, j in pairwise(cuts))
        return UnionView([UnionView([a, b]), UnionView([c])])


class TestHammingUnion(HammingViewContract):
    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> HammingUnionView:
        cut = len(rows) // 2
        return HammingUnionView([hamming(part, retired) for part in (rows[:cut], rows[cut:])])


RNG = np.random.default_rng(5)
KEYS = RNG.integers(0, 30, 60).tolist()
VECTORS = clustered_vectors(RNG, 60, dim=4)
BITS = clustered_bits(RNG, 60)
CUTS = st.lists(st.integers(0, 60), max_size=4)
RETIRED = st.frozensets(st.integers(0, 29), max_size=20)
ROWS_MAX = st.sampled_from([1, 3, 6, 1024])


def parts(rows: Sequence[Row], cuts: Sequence[int]) -> list[Sequence[Row]]:
    return [rows[i:j] for i, j in pairwise([0, *sorted(cuts), len(rows)])]


@settings(deadline=None, max_examples=60)
@given(cuts=CUTS, retired=RETIRED, rows_max=ROWS_MAX)
def test_how_vectors_are_split_does_not_show(
    cuts: list[int], retired: frozenset[int], rows_max: int
) -> None:
    """Any split of rows between views answers as one view: keys, groups, cosines to the last bit,
    order, and which answers are truncated."""
    rows = [Row(v, k, k % 3) for v, k in zip(VECTORS, KEYS, strict=True)]
    one = exact(rows, retired, dim=4, rows_max=rows_max)
    many = UnionView(
        [exact(part, retired, dim=4, rows_max=rows_max) for part in parts(rows, cuts)], rows_max
    )
    assert len(many) == len(one)
    expected = one.search(VECTORS[:9], {0: 0.7, 2: 0.2})
    answer = many.search(VECTORS[:9], {0: 0.7, 2: 0.2})
    assert found_by(answer) == found_by(expected)
    assert answer.truncated.tolist() == expected.truncated.tolist()


@settings(deadline=None, max_examples=40)
@given(cuts=CUTS, retired=RETIRED, rows_max=ROWS_MAX)
def test_how_hashes_are_split_does_not_show(
    cuts: list[int], retired: frozenset[int], rows_max: int
) -> None:
    """As for vectors."""
    rows = [Row(b, k, k % 3) for b, k in zip(BITS, KEYS, strict=True)]
    one = hamming(rows, retired, rows_max=rows_max)
    many = HammingUnionView(
        [hamming(part, retired, rows_max=rows_max) for part in parts(rows, cuts)], rows_max
    )
    assert len(many) == len(one)
    expected = one.search(BITS[:9], {0: 90, 2: 256})
    answer = many.search(BITS[:9], {0: 90, 2: 256})
    assert found_by(answer) == found_by(expected)
    assert answer.truncated.tolist() == expected.truncated.tolist()


def test_views_of_two_dims_are_not_one() -> None:
    """Both are named: an operator must see which space is which."""
    with pytest.raises(SpaceMismatch, match="dim 3, 4 "):
        UnionView([exact([], dim=3), exact([], dim=4)])


def test_a_union_of_nothing_is_refused() -> None:
    """It could not tell its dim."""
    with pytest.raises(InternalFault, match="no views"):
        UnionView([])
    with pytest.raises(InternalFault, match="no views"):
        HammingUnionView([])
