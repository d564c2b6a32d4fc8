"""What every view promises. An index that is added inherits the contract of its scale first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from simsearch.errors import BadHash, SpaceMismatch
from simsearch.index.index_protocol import (
    ROWS_MAX,
    CosineMatches,
    CosineView,
    HammingMatches,
    HammingView,
)
from simsearch.types import BITS_BYTES
from tests.index.oracle import (
    COSINE,
    HAMMING,
    Found,
    Row,
    Scale,
    clustered_bits,
    clustered_vectors,
    found_by,
)

V = TypeVar("V", bound=CosineView | HammingView)
Matches = CosineMatches | HammingMatches


class ViewContract(Generic[V]):
    """The promises both scales share; `limits` are floors or ceilings, in the scale's unit."""

    scale: Scale
    widest: float
    """A limit that every row passes."""
    usual: tuple[float, ...]
    """Limits as a policy sets them, from tight to wide."""
    rows = 300
    """Rows of the larger worlds."""

    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> V:
        """A view of `rows`, of which those with a key in `retired` have been retired."""
        raise NotImplementedError

    def search(self, view: V, queries: NDArray[Any], limits: Mapping[int, float]) -> Matches:
        raise NotImplementedError

    def payload(self, n: int, seed: int = 0) -> NDArray[Any]:
        """`n` clustered rows: near-copies and equal ones among them."""
        raise NotImplementedError

    def just_tighter(self, limit: float) -> float:
        raise NotImplementedError

    # ------------------------------------------------------------ helpers

    def world(self, n: int, seed: int = 0, groups: int = 3) -> list[Row]:
        """Keys in no order, some with several rows; groups at random."""
        rng = np.random.default_rng(seed)
        keys, group = rng.integers(0, n, n), rng.integers(0, groups, n)
        rows = zip(self.payload(n, seed), keys, group, strict=True)
        return [Row(value, int(k), int(g)) for value, k, g in rows]

    def found(self, view: V, queries: NDArray[Any], limits: Mapping[int, float]) -> Found:
        return found_by(self.search(view, queries, limits))

    def check(
        self, view: V, rows: Sequence[Row], queries: NDArray[Any], limits: Mapping[int, float]
    ) -> None:
        matches = self.search(view, queries, limits)
        found, truncated = self.scale.search(rows, queries, limits, ROWS_MAX)
        assert found_by(matches) == found
        assert matches.truncated.tolist() == truncated

    # ------------------------------------------------------------ promises

    def test_it_answers_as_plain_python_does(self) -> None:
        """Rows, values and order are those of a search that compares every pair."""
        rows = self.world(self.rows)
        view, queries = self.view(rows), self.payload(70)
        for limit in self.usual:
            self.check(view, rows, queries, {0: limit, 1: limit, 2: limit})

    def test_each_group_has_its_own_limit(self) -> None:
        """A row is held to the limit of its own group, not to the widest one asked."""
        rows = self.world(self.rows)
        tight, *_, wide = self.usual
        self.check(self.view(rows), rows, self.payload(20), {0: tight, 1: wide, 2: self.widest})

    def test_a_group_without_a_limit_is_not_asked(self) -> None:
        """Not even an exact copy is found in a group that the search does not name."""
        rows = self.world(60)
        view, queries = self.view(rows), self.payload(20)
        self.check(view, rows, queries, {1: self.widest})
        assert self.found(view, queries, {7: self.widest}) == []

    def test_a_group_may_have_any_number(self) -> None:
        """Groups are names, not positions: a large number costs nothing."""
        rows = [Row(value, 1, 2**40 + i) for i, value in enumerate(self.payload(4))]
        self.check(self.view(rows), rows, self.payload(4), {2**40 + 2: self.widest, 0: self.widest})

    def test_a_row_at_its_limit_is_found_and_one_past_it_is_not(self) -> None:
        """The comparison is "at or within", on the exact value."""
        rows, queries = self.world(40), self.payload(12)
        view = self.view(rows)
        for row in rows[:20]:
            limit = self.scale.value(queries[0], row.value)
            self.check(view, rows, queries, {row.group: limit})
            self.check(view, rows, queries, {row.group: self.just_tighter(limit)})

    def test_equal_rows_come_by_key_then_in_the_order_they_were_added(self) -> None:
        """Ties have one order, so that the same question gets the same answer."""
        value = self.payload(1)
        keys_and_groups = [(9, 0), (3, 2), (5, 1), (3, 0), (9, 1), (3, 1)]
        rows = [Row(value[0], k, g) for k, g in keys_and_groups]
        limits = dict.fromkeys(range(3), self.widest)
        found = self.found(self.view(rows), value, limits)
        assert [(k, g) for _, k, g, _ in found] == [(3, 2), (3, 0), (3, 1), (5, 1), (9, 0), (9, 1)]

    def test_a_retired_row_is_never_found(self) -> None:
        """Nor counted; the other rows of the view answer as before."""
        rows = self.world(200)
        retired = frozenset(row.key for row in rows[::3])
        alive = [row for row in rows if row.key not in retired]
        view = self.view(rows, retired)
        assert len(view) == len(alive) < len(rows)
        self.check(view, alive, self.payload(20), dict.fromkeys(range(3), self.widest))

    def test_a_query_gets_the_same_answer_alone_and_in_a_batch(self) -> None:
        """What else is asked at the same time changes nothing."""
        view, queries = self.view(self.world(self.rows)), self.payload(90)
        limits = dict.fromkeys(range(3), self.usual[-1])
        alone = [self.found(view, queries[i : i + 1], limits) for i in range(len(queries))]
        numbered = [(i, *match[1:]) for i, found in enumerate(alone) for match in found]
        assert self.found(view, queries, limits) == numbered

    def test_too_many_matches_keep_the_closest_and_say_so(self) -> None:
        """ROWS_MAX rows come out for each query; `truncated` tells which query had more."""
        far, near, near_too = self._far_and_two_near()
        rows = [Row(far, key, 0) for key in range(ROWS_MAX - 1)] + [Row(near, 7, 0)]
        limits = {0: self.widest}
        matches = self.search(self.view(rows), np.stack([near, far]), limits)
        assert matches.truncated.tolist() == [False, False]
        assert matches.query.tolist() == [0] * ROWS_MAX + [1] * ROWS_MAX
        rows = [*rows, Row(near_too, 99_999, 0), Row(far, -1, 0)]
        self.check(self.view(rows), rows, np.stack([near, far]), limits)

    def _far_and_two_near(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        values = sorted(
            self.payload(60)[1:], key=lambda v: self.scale.value(self.payload(60)[0], v)
        )
        if self.scale is HAMMING:
            values.reverse()
        return values[0], values[-1], values[-2]

    def test_only_matches_count_as_too_many(self) -> None:
        """Rows past the limit, retired or of other groups do not make an answer truncated."""
        far, near, _ = self._far_and_two_near()
        limit = self.scale.value(near, near)
        others = [Row(far, 1, 0)] * ROWS_MAX + [Row(near, 2, 1)] * ROWS_MAX
        rows = [*others, *[Row(near, 3, 0)] * 5, *[Row(near, 4, 0)] * ROWS_MAX]
        matches = self.search(self.view(rows, frozenset({4})), near[None], {0: limit})
        assert matches.key.tolist() == [3] * 5
        assert matches.truncated.tolist() == [False]

    def test_nothing_in_nothing_out(self) -> None:
        """No rows, no queries or no limits give an empty answer of the right types."""
        empty, full = self.view([]), self.view(self.world(5))
        queries = self.payload(2)
        assert len(empty) == 0
        for matches, asked in [
            (self.search(empty, queries, {0: self.widest}), 2),
            (self.search(full, queries[:0], {0: self.widest}), 0),
            (self.search(full, queries, {}), 2),
        ]:
            assert found_by(matches) == []
            assert matches.truncated.tolist() == [False] * asked
            columns = (matches.query, matches.row, matches.key, matches.group)
            assert {column.dtype for column in columns} == {np.dtype(np.int64)}

    def test_row_numbers_are_unique_in_a_view(self) -> None:
        """Two rows of one entry are told apart by `row`."""
        view = self.view(self.world(40), frozenset(range(0, 40, 3)))
        matches = self.search(view, self.payload(1), dict.fromkeys(range(3), self.widest))
        assert len(set(matches.row.tolist())) == len(matches.row) == len(view)

    def test_threads_do_not_disturb_each_other(self) -> None:
        """A view can be searched by many threads at once."""
        view, queries = self.view(self.world(self.rows)), self.payload(30)
        limits = dict.fromkeys(range(3), self.usual[-1])
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: self.found(view, queries, limits), range(12)))
        assert all(answer == answers[0] for answer in answers)


class CosineViewContract(ViewContract[CosineView]):
    """Inherit this and give `view` for vectors of `dim` numbers."""

    dim = 6
    scale = COSINE
    widest = -1.0
    usual = (0.99, 0.9, 0.5)

    def search(
        self, view: CosineView, queries: NDArray[Any], limits: Mapping[int, float]
    ) -> CosineMatches:
        return view.search(queries, limits)

    def payload(self, n: int, seed: int = 0) -> NDArray[Any]:
        return clustered_vectors(np.random.default_rng(seed), n, self.dim)

    def just_tighter(self, limit: float) -> float:
        return float(np.nextafter(limit, 2))

    def test_a_copy_scores_one(self) -> None:
        """Storing in float16 shortens a vector a little; its cosine to itself is still 1."""
        vectors = self.payload(50)
        view = self.view([Row(vector, key, 0) for key, vector in enumerate(vectors)])
        matches = view.search(vectors, {0: 1.0})
        copies = set(zip(matches.query.tolist(), matches.key.tolist(), strict=True))
        assert copies >= {(i, i) for i in range(50)}

    def test_another_dim_is_refused(self) -> None:
        """Vectors of another geometry are never compared; the message names both sizes."""
        with pytest.raises(SpaceMismatch, match=rf"{self.dim + 1}\b.*\b{self.dim}\b"):
            self.view([]).search(np.ones((1, self.dim + 1), np.float32), {0: 0.5})

    def test_a_view_tells_its_dim(self) -> None:
        """The dim is known before there is a row."""
        assert self.view([]).dim == self.dim


class HammingViewContract(ViewContract[HammingView]):
    """Inherit this and give `view` for hashes of 256 bits."""

    scale = HAMMING
    widest = 256
    usual = (0, 31, 90)

    def search(
        self, view: HammingView, queries: NDArray[Any], limits: Mapping[int, float]
    ) -> HammingMatches:
        return view.search(queries, {group: int(limit) for group, limit in limits.items()})

    def payload(self, n: int, seed: int = 0) -> NDArray[Any]:
        return clustered_bits(np.random.default_rng(seed), n)

    def just_tighter(self, limit: float) -> float:
        return limit - 1

    def test_opposite_hashes_are_256_bits_apart(self) -> None:
        """The largest distance does not wrap around to 0."""
        row = np.zeros((1, BITS_BYTES), np.uint8)
        matches = self.view([Row(row[0], 1, 0)]).search(~row, {0: 256})
        assert matches.hamming.tolist() == [256]

    @pytest.mark.parametrize(
        "queries",
        [np.zeros((1, 31), np.uint8), np.zeros(32, np.uint8), np.zeros((1, 32), np.int64)],
        ids=["31 bytes", "one dimension", "not bytes"],
    )
    def test_another_width_is_refused(self, queries: NDArray[Any]) -> None:
        """A hash of another length is no hash of ours; the message names both."""
        with pytest.raises(BadHash, match=r"the index holds uint8 \(n, 32\)"):
            self.view([]).search(queries, {0: 31})
