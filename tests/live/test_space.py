"""The rows of one space: sealed as they grow, and at no time lost, doubled or awaited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simsearch.index.flat.cosine import ExactIndex
from simsearch.index.index_protocol import CosineView
from simsearch.index.ivf import faiss_io, segment, train
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.ivf_view import IvfBase
from simsearch.index.ivf.segment import IndexParameters, SegmentTemplate
from simsearch.index.union import UnionView
from simsearch.live import space as module
from simsearch.live.space import LiveSpace
from simsearch.types import Vectors
from tests.index.contract import CosineViewContract
from tests.index.oracle import Row, clustered_vectors, found_by, unit

DIM = 64
FACTORY = "IVF16,PQ16x4fsr"
ROWS = 3000


@cache
def rows(seed: int = 0, count: int = ROWS, dim: int = DIM) -> Vectors:
    return clustered_vectors(np.random.default_rng(seed), count, dim)


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEAL_ROWS", 300)
    monkeypatch.setattr(module, "FLAT_ROWS_MAX", 800)
    monkeypatch.setattr(segment, "plan", lambda count, dim: segment_plan(count))


def segment_plan(count: int) -> Any:
    from simsearch.index.ivf.plan import plan

    return plan(count, DIM, override=FACTORY)


class Held(Executor):
    """Runs what is submitted when it is told to."""

    def __init__(self) -> None:
        self._held: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._held.append((future, lambda: fn(*args, **kwargs)))
        return future

    def __len__(self) -> int:
        return len(self._held)

    def run(self) -> None:
        future, work = self._held.pop(0)
        try:
            future.set_result(work())
        except Exception as fault:
            future.set_exception(fault)


@pytest.fixture
def held() -> Held:
    return Held()


WIDE = Calibration(bias=0.0, sd=1.0)
"""A gate that every row passes: what is left to go wrong is the growing and sealing."""


def based(sealer: Executor, calibration: Calibration = WIDE) -> LiveSpace:
    """Behind an IVF base of `rows(1)`, with keys from 1 on."""
    index, empty, outliers = built()
    known = IndexParameters(calibration, 16)
    template = SegmentTemplate(lambda: faiss_io.copy_of(empty), known, centres=empty)
    half = rows(1).astype(np.float16)
    keys = np.arange(1, len(half) + 1)
    base = IvfBase(
        index,
        half,
        keys,
        keys % 3,
        calibration=known.calibration,
        nprobe=known.nprobe,
        outliers=outliers,
        centres=empty,
    )
    return LiveSpace(DIM, sealer, [base], template)


@cache
def built() -> tuple[Any, Any, NDArray[np.int64]]:
    """Filled, empty, outliers."""
    index = train.train(FACTORY, rows(1))
    empty = faiss_io.copy_of(index)
    half = rows(1).astype(np.float16)
    outliers = train.fill(index, half, np.arange(len(half)))
    return index, empty, outliers


def parts_of(view: CosineView) -> list[str]:
    parts = view.parts if isinstance(view, UnionView) else (view,)
    return [type(part).__name__ for part in parts]


def same(view: CosineView, exact: ExactIndex, through: int, queries: Vectors) -> bool:
    floors = {0: 0.9, 1: 0.95, 2: 0.8}
    expected = exact.freeze(through)
    return len(view) == len(expected) and found_by(view.search(queries, floors)) == found_by(
        expected.search(queries, floors)
    )


# ---------------------------------------------------------------- growing


def test_rows_are_sealed_as_they_grow(held: Held) -> None:
    """Exact until there is a segment, then in it: the same answers at every moment."""
    vectors, new = rows(1), rows(2, 1500)
    space, exact = based(held), ExactIndex(DIM)
    exact.append(vectors, np.arange(1, ROWS + 1), np.arange(1, ROWS + 1) % 3)
    queries = np.concatenate((vectors[::60], new[::20]))
    for start in range(0, 1500, 100):
        keys = np.arange(10_000 + start, 10_100 + start)
        for index in (space, exact):
            index.append(new[start : start + 100], keys, keys % 3)
        space.maintain(1)
        assert same(space.freeze(1), exact, 1, queries)
        if start == 700:
            assert len(held) == 1, "one at a time, however much more has come"
            assert parts_of(space.freeze(1)).count("ExactView") >= 2
            held.run()
            assert space.maintain(1)
            assert same(space.freeze(1), exact, 1, queries)
    while len(held):
        held.run()
        assert space.maintain(1)
        assert same(space.freeze(1), exact, 1, queries)
    assert parts_of(space.freeze(1)).count("IvfView") == 2
    assert not space.maintain(1)


def test_without_a_base_lists_are_drawn(held: Held) -> None:
    """A bank that never was built stays exact while it is small, and is sealed when it is not."""
    space, exact = LiveSpace(DIM, held), ExactIndex(DIM)
    vectors = rows(3, 2000)
    for start in range(0, 2000, 400):
        keys = np.arange(start, start + 400)
        for index in (space, exact):
            index.append(vectors[start : start + 400], keys, keys % 3)
        space.maintain(1)
        assert len(held) == (start + 400 > 800)
    held.run()
    assert space.maintain(1)
    space.maintain(1)
    held.run()
    assert space.maintain(1)
    assert set(parts_of(space.freeze(1))) <= {"IvfView", "ExactView"}
    found = space.freeze(1).search(vectors, dict.fromkeys(range(3), 0.9))
    expected = exact.freeze(1).search(vectors, dict.fromkeys(range(3), 0.9))
    pairs, truth = (
        set(zip(m.query.tolist(), m.key.tolist(), m.cosine.tolist(), strict=True))
        for m in (found, expected)
    )
    assert pairs <= truth
    assert len(pairs) > 0.99 * len(truth)


def test_what_ends_while_it_is_sealed_has_ended(held: Held) -> None:
    """A retraction reaches rows in the base, in the segment, on their way into it and after."""
    space, exact = based(held), ExactIndex(DIM)
    exact.append(rows(1), np.arange(1, ROWS + 1), np.arange(1, ROWS + 1) % 3)
    new = rows(4, 1200)
    seq = 1
    for start in range(0, 1200, 400):
        keys = np.arange(5000 + start, 5400 + start)
        for index in (space, exact):
            index.append(new[start : start + 400], keys, keys % 3)
        space.maintain(seq)
        for ended in (keys[:50], keys[:50] - 400, np.arange(start, start + 50)):
            seq += 1
            space.retire(ended, [seq] * 50)
            exact.retire(ended, [seq] * 50)
            assert same(space.freeze(seq), exact, seq, new[::10])
        held.run()
        assert space.maintain(seq)
        assert same(space.freeze(seq), exact, seq, new[::10])


def test_an_old_view_answers_as_before(held: Held) -> None:
    space = based(held)
    new, keys = rows(5, 900), np.arange(7000, 7900)
    space.append(new[:400], keys[:400], keys[:400] % 3)
    views = [space.freeze(1)]
    for end in (400, 900):
        space.maintain(1)
        held.run()
        space.maintain(1)
        views.append(space.freeze(1))
        more = slice(end, end + 500)
        space.append(new[more], keys[more], keys[more] % 3)
    answers = [found_by(v.search(new, dict.fromkeys(range(3), 0.9))) for v in views]
    space.retire(keys, [2] * len(keys))
    assert answers == [found_by(v.search(new, dict.fromkeys(range(3), 0.9))) for v in views]


def test_rows_that_cannot_be_sealed_stay_exact(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost with the fault, and with the next rows it is tried again."""
    space, exact = based(held), ExactIndex(DIM)
    exact.append(rows(1), np.arange(1, ROWS + 1), np.arange(1, ROWS + 1) % 3)
    new, keys = rows(6, 700), np.arange(7000, 7700)
    for index in (space, exact):
        index.append(new[:350], keys[:350], keys[:350] % 3)
    space.maintain(1)
    with monkeypatch.context() as patch:
        patch.setattr(train, "fill", lambda *_: 1 / 0)
        held.run()
    assert not space.maintain(1)
    assert same(space.freeze(1), exact, 1, new)
    for index in (space, exact):
        index.append(new[350:], keys[350:], keys[350:] % 3)
    space.maintain(1)
    held.run()
    assert space.maintain(1)
    assert same(space.freeze(1), exact, 1, new)


def test_settling_ends_where_rows_cannot_be_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot on its way in would else never arrive."""
    monkeypatch.setattr(train, "fill", lambda *_: 1 / 0)
    with ThreadPoolExecutor(1) as sealer:
        space = based(sealer)
        keys = np.arange(7000, 7900)
        space.append(rows(7, 900), keys, keys % 3)
        space.wait_until_sealed(1)
        assert not space.maintain(1)
        assert len(space.freeze(1)) == ROWS + 900


def test_settling_waits_until_all_is_sealed() -> None:
    with ThreadPoolExecutor(1) as sealer:
        space = based(sealer)
        keys = np.arange(7000, 7900)
        space.append(rows(7, 900), keys, keys % 3)
        space.wait_until_sealed(1)
        assert parts_of(space.freeze(1)).count("IvfView") == 2
        assert found_by(space.freeze(1).search(rows(7, 900)[:1], {0: 0.99, 1: 0.99, 2: 0.99}))


def test_rows_of_another_kind_are_measured_anew(held: Held) -> None:
    """Rows unlike those of the base are scored worse by its codes: the gate must widen with them,
    or their near copies would be turned away."""
    index, _, _ = built()
    space = based(held, train.calibrate(index, rows(1).astype(np.float16)))
    others = unit(np.random.default_rng(9).standard_normal((2400, DIM)) ** 3)
    keys = np.arange(20_000, 22_400)
    space.append(others, keys, keys % 3)
    space.maintain(1)
    held.run()
    space.maintain(1)
    rng = np.random.default_rng(10)
    cosines = rng.uniform(0.91, 0.99, 800)
    near = train.turned(others[:800], rng.standard_normal((800, DIM)), cosines)
    matches = space.freeze(1).search(near, dict.fromkeys(range(3), 0.9))
    found = set(zip(matches.query.tolist(), matches.key.tolist(), strict=True))
    assert len({(n, 20_000 + n) for n in range(800)} & found) > 0.98 * 800


# ---------------------------------------------------------------- any order of edits


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 500)),
            st.tuples(st.just("retire"), st.integers(0, 4000)),
            st.tuples(st.just("run"), st.just(0)),
            st.tuples(st.just("compact"), st.just(0)),
        ),
        max_size=14,
    )
)
def test_any_order_of_edits_and_sealing_is_the_exact_answer(edits: list[tuple[str, int]]) -> None:
    held, vectors, pool = Held(), rows(1), rows(8, 8000)
    space, exact = based(held), ExactIndex(DIM)
    exact.append(vectors, np.arange(1, ROWS + 1), np.arange(1, ROWS + 1) % 3)
    seq, used = 1, 0
    for what, number in edits:
        seq += 1
        if what == "add":
            keys = np.arange(ROWS + 1 + used, ROWS + 1 + used + number)
            for index in (space, exact):
                index.append(pool[used : used + number], keys, keys % 3)
            used += number
        elif what == "retire":
            ended = range(number, min(number + 40, ROWS + used + 1))
            for index in (space, exact):
                index.retire(ended, [seq] * len(ended))
        elif what == "run" and len(held):
            held.run()
        elif what == "compact":
            space.compact(seq)
        space.maintain(seq)
        queries = np.concatenate((vectors[:20], pool[max(0, used - 30) : used]))
        assert same(space.freeze(seq), exact, seq, queries)


# ---------------------------------------------------------------- the contract


class TestLiveSpace(CosineViewContract):
    """Half of the rows in a segment, half still exact."""

    dim = 6

    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> CosineView:
        sample = clustered_vectors(np.random.default_rng(99), 700, self.dim)
        empty = train.train("IVF4,PQ6x4fsr", sample)
        held = Held()
        template = SegmentTemplate(
            lambda: faiss_io.copy_of(empty), IndexParameters(Calibration(bias=0.0, sd=1.0), 4)
        )
        space = LiveSpace(self.dim, held, (), template)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "SEAL_ROWS", 1)
            for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                if len(held):
                    held.run()
                if part:
                    vectors = np.array([row.value for row in part])
                    space.append(vectors, [r.key for r in part], [r.group for r in part])
                    space.maintain(0)
            space.retire(sorted(retired), [1] * len(retired))
            return space.freeze(1)
