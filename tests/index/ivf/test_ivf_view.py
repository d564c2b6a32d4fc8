"""The IVF base: its contract where all lists are read, and what only it promises."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simsearch.errors import Corrupt, InternalFault
from simsearch.index import rescore
from simsearch.index.flat.cosine import ExactIndex
from simsearch.index.index_protocol import CosineMatches, CosineView
from simsearch.index.ivf import ivf_store
from simsearch.index.ivf import ivf_view as ivf
from simsearch.index.ivf import train as ivf_build
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.ivf_view import IvfBase, IvfView
from simsearch.index.ivf.train import calibrate, fill, train
from simsearch.index.union import UnionView
from simsearch.types import Vectors
from tests.index.contract import CosineViewContract
from tests.index.oracle import COSINE, Row, clustered_vectors, found_by, unit

WIDE = Calibration(bias=0.0, sd=1.0)
"""A gate that every row passes: codes of a handful of numbers tell nothing."""


@cache
def trained(factory: str, dim: int) -> bytes:
    """Trained on other vectors of the same kind: the small worlds have too few."""
    index = train(factory, clustered_vectors(np.random.default_rng(99), 700, dim))
    written: bytes = faiss.serialize_index(index).tobytes()
    return written


def filled(
    factory: str, rows: NDArray[np.floating], outlier_shortfall: float = np.inf
) -> tuple[Any, NDArray[np.int64]]:
    """With its outliers, of which there are none unless `outlier_shortfall` says so: a handful of
    numbers is often described badly."""
    written = trained(factory, rows.shape[1])
    index = faiss.deserialize_index(np.frombuffer(written, np.uint8))
    return index, outliers_of(index, rows, outlier_shortfall)


def outliers_of(
    index: Any, rows: NDArray[np.floating], outlier_shortfall: float = np.inf
) -> NDArray[np.int64]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf_build, "OUTLIER_SHORTFALL", outlier_shortfall)
        patch.setattr(ivf_build, "SCALAR_SHORTFALL", outlier_shortfall / 5)
        return fill(index, rows, np.arange(len(rows)))


def base_of(
    rows: Sequence[Row],
    dim: int,
    *,
    factory: str = "IVF4,PQ6x4fsr",
    calibration: Calibration = WIDE,
    nprobe: int = 8,
    rows_max: int = 1024,
    outlier_shortfall: float = np.inf,
) -> IvfBase:
    vectors = np.array([row.value for row in rows], np.float16).reshape(len(rows), dim)
    keys = np.array([row.key for row in rows], np.int64)
    groups = np.array([row.group for row in rows], np.int64)
    index, outliers = filled(factory, vectors, outlier_shortfall)
    return IvfBase(
        index,
        vectors,
        keys,
        groups,
        calibration=calibration,
        nprobe=nprobe,
        outliers=outliers,
        rows_max=rows_max,
    )


# ---------------------------------------------------------------- the contract


class TestIvfView(CosineViewContract):
    """With 6 codes: of fewer, FAISS never proposes a row that is the farthest in every one."""

    factory = "IVF4,PQ6x4fsr"

    outlier_shortfall = np.inf

    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> CosineView:
        base = base_of(
            rows, self.dim, factory=self.factory, outlier_shortfall=self.outlier_shortfall
        )
        base.retire(sorted(retired), [1] * len(retired))
        return base.freeze(1)


class TestIvfViewWithOutliers(TestIvfView):
    outlier_shortfall = 0.01

    def test_there_are_outliers(self) -> None:
        view = self.view(self.world(self.rows))
        assert isinstance(view, UnionView)
        ivf, outliers = view.parts
        assert len(ivf) > 0 < len(outliers)


class TestIvfViewOfFullCodes(TestIvfView):
    factory = "IVF4,SQfp16"


class TestIvfViewUnderAGraph(TestIvfView):
    factory = "IVF8_HNSW8,PQ6x4fs"


class TestIvfViewOfUsualDim(TestIvfView):
    dim = 384
    rows = 80
    factory = "IVF4,PQ96x4fsr"


# ---------------------------------------------------------------- against the exact index


@dataclass(frozen=True)
class World:
    vectors: Vectors
    index: Any
    calibration: Calibration
    queries: Vectors

    def base(self, nprobe: int) -> IvfBase:
        keys = np.arange(len(self.vectors))
        rows = self.vectors.astype(np.float16)
        return IvfBase(
            self.index, rows, keys, keys % 5, calibration=self.calibration, nprobe=nprobe
        )

    def exact(self) -> ExactIndex:
        index = ExactIndex(self.vectors.shape[1])
        keys = np.arange(len(self.vectors))
        index.append(self.vectors, keys, keys % 5)
        return index


FLOORS = {0: 0.9, 1: 0.95, 2: 0.85, 3: 0.99}
LISTS = 16
DIM = 128
FACTORY = f"IVF{LISTS},PQ{DIM // 4}x4fsr"


@cache
def world() -> World:
    """2,400 rows around 400 centres; queries are near copies of rows."""
    rng = np.random.default_rng(7)
    vectors = clustered_vectors(rng, 2400, DIM)
    index = train(FACTORY, vectors)
    outliers_of(index, vectors)
    near = vectors[rng.choice(len(vectors), 300)]
    queries = unit(near + rng.choice([0.0, 0.01, 0.03], (300, 1)) * rng.standard_normal(near.shape))
    return World(vectors, index, calibrate(index, vectors.astype(np.float16)), queries)


def rows_by_query(matches: CosineMatches) -> dict[tuple[int, int], float]:
    pairs = zip(matches.query.tolist(), matches.row.tolist(), strict=True)
    return dict(zip(pairs, matches.cosine.tolist(), strict=True))


def test_with_all_lists_the_answer_is_the_exact_one() -> None:
    """Codes and their gate, calibrated on the index itself, lose no match among thousands; order,
    cosines and `truncated` are those of comparing every row."""
    w = world()
    answer = w.base(LISTS).freeze(0).search(w.queries, FLOORS)
    expected = w.exact().freeze(0).search(w.queries, FLOORS)
    assert len(expected.query) > 1000
    assert found_by(answer) == found_by(expected)
    assert answer.row.tolist() == expected.row.tolist()
    assert not answer.truncated.any()


def test_with_one_list_matches_are_missed_but_none_is_wrong() -> None:
    """Every hit is one of the exact index, its cosine equal to the last bit."""
    w = world()
    answer = rows_by_query(w.base(1).freeze(0).search(w.queries, FLOORS))
    expected = rows_by_query(w.exact().freeze(0).search(w.queries, FLOORS))
    assert 0.8 * len(expected) < len(answer) < len(expected)
    assert answer.items() <= expected.items()


def test_most_strangers_cost_no_exact_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate is there to spare reading vectors: queries near nothing read hardly any."""
    w, scored = world(), 0
    real = rescore.exact_pairs

    def counting(q: Vectors, r: Vectors, query: NDArray[np.intp], at: NDArray[np.intp]) -> Any:
        nonlocal scored
        scored += len(query)
        return real(q, r, query, at)

    monkeypatch.setattr(ivf, "exact_pairs", counting)
    strangers = unit(np.random.default_rng(8).standard_normal((400, DIM)))
    w.base(LISTS).freeze(0).search(strangers, dict.fromkeys(range(5), 0.9))
    assert scored < 40


def test_a_query_of_many_neighbours_is_asked_again() -> None:
    """More rows than FAISS is first asked for come out, of each group by its own floor."""
    rng = np.random.default_rng(3)
    crowd = unit(np.eye(6)[0] + 0.01 * rng.standard_normal((700, 6)))
    rows = [Row(vector, key, key % 2) for key, vector in enumerate(crowd)]
    matches = base_of(rows, 6).freeze(0).search(crowd[:1], {0: 0.9, 1: 2.0})
    assert len(matches.query) == 350
    assert set(matches.group.tolist()) == {0}
    assert not matches.truncated.any()


def test_a_scan_gone_wrong_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS, asked for more lists than a query gets, answers scores of 1e31 for rows at random;
    that is prevented, and where it happens all the same it is named."""
    w = world()
    more = w.base(LISTS + 1).freeze(0)
    assert isinstance(more, IvfView)
    assert found_by(more.search(w.queries, FLOORS)) == found_by(
        w.base(LISTS).freeze(0).search(w.queries, FLOORS)
    )
    parameters: Any = faiss.SearchParametersIVF()
    parameters.nprobe = LISTS + 1
    monkeypatch.setattr(more._selector, "parameters", lambda asked: parameters)
    with pytest.raises(InternalFault, match=r"scores a row .*e\+31.* rebuild"):
        more.search(w.queries, {0: 0.5})


def test_candidates_are_bounded_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more rows pass the gate than may be looked at, that query alone is `truncated`."""
    monkeypatch.setattr(ivf, "CANDIDATES", (4, 8))
    axes = np.eye(6, dtype=np.float32)
    rows = [Row(axes[0], key, 0) for key in range(20)] + [Row(axes[1], 99, 0)]
    matches = (
        base_of(rows, 6, calibration=Calibration(0.0, 0.1)).freeze(0).search(axes[:3], {0: 0.9})
    )
    assert matches.query.tolist() == [0] * 8 + [1]
    assert matches.truncated.tolist() == [True, False, False]


def test_the_length_of_a_query_does_not_count() -> None:
    """Scores are linear in it, so a gate would turn shorter queries away unlooked at."""
    w = world()
    view = w.base(LISTS).freeze(0)
    short = view.search(w.queries * np.float32(0.5), FLOORS)
    assert found_by(short) == found_by(view.search(w.queries, FLOORS))


def test_a_shared_index_and_other_threads_keep_their_settings() -> None:
    """nprobe and threads belong to one call: neither the index nor anyone's OpenMP is changed."""
    w = world()
    view, before = w.base(LISTS).freeze(0), (w.index.nprobe, faiss.omp_get_max_threads())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(faiss.omp_set_num_threads, 3).result()
        pool.submit(view.search, w.queries, FLOORS).result()
        assert pool.submit(faiss.omp_get_max_threads).result() == 3
    view.search(w.queries, FLOORS)
    assert (w.index.nprobe, faiss.omp_get_max_threads()) == before


def test_rows_may_stay_on_disk(tmp_path: Path) -> None:
    """Memmaps answer as memory does, and are not counted as memory."""
    w = world()
    np.save(tmp_path / "rows.npy", w.vectors.astype(np.float16), allow_pickle=False)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r", allow_pickle=False)
    np.save(tmp_path / "keys.npy", np.arange(len(mapped)), allow_pickle=False)
    keys = np.load(tmp_path / "keys.npy", mmap_mode="r", allow_pickle=False)
    base = IvfBase(w.index, mapped, keys, keys % 5, calibration=w.calibration, nprobe=LISTS)
    in_memory = w.base(LISTS)
    assert in_memory.nbytes - base.nbytes == mapped.nbytes + 4 * len(keys)
    assert base.nbytes < 48 * len(mapped)  # 16 of code, 8 of id, 1 of group; the centres
    answers = (b.freeze(0).search(w.queries, FLOORS) for b in (base, in_memory))
    assert found_by(next(answers)) == found_by(next(answers))
    assert base.retire([7, 9_999], [1, 1]) == 1
    assert 7 not in base.freeze(1).search(w.vectors[7:8], dict.fromkeys(range(5), 0.5)).key


# ---------------------------------------------------------------- retiring

PALETTE = clustered_vectors(np.random.default_rng(4), 24, dim=6)
KEYS = (-1, 0, 1, 2, 3, 2**32 - 1, 2**32, 2**40)
SMALL_KEYS = (0, 1, 2, 3, 5, 8, 13, 2**32 - 1)
RETIRE = st.lists(st.tuples(st.sampled_from([*KEYS, 77]), st.integers(1, 9)), max_size=5)


@settings(deadline=None, max_examples=60)
@given(
    keys=st.sampled_from([KEYS, SMALL_KEYS]).flatmap(
        lambda few: st.lists(st.sampled_from(few), min_size=24, max_size=24)
    ),
    in_order=st.booleans(),
    few_dead=st.sampled_from([0.0, 1.0]),
    edits=st.lists(st.tuples(RETIRE, st.integers(0, 10)), min_size=1, max_size=4),
)
def test_rows_end_as_in_the_log(
    keys: list[int],
    in_order: bool,
    few_dead: float,
    edits: list[tuple[list[tuple[int, int]], int]],
) -> None:
    """Any retirements, in any order and twice, end the same rows at the same seqs as in the index
    that grows; every view goes on answering as it did when it was frozen."""
    keys = sorted(keys) if in_order else keys
    rows = [Row(v, k, at % 3) for at, (v, k) in enumerate(zip(PALETTE, keys, strict=True))]
    base, exact = base_of(rows, 6, rows_max=7), ExactIndex(6, rows_max=7)
    exact.append(PALETTE, keys, [row.group for row in rows])
    views: list[tuple[CosineView, CosineView]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf_store, "FEW_DEAD", few_dead)
        for ends, through in edits:
            ended, seqs = [key for key, _ in ends], [seq for _, seq in ends]
            assert base.retire(ended, seqs) == exact.retire(ended, seqs)
            views.append((base.freeze(through), exact.freeze(through)))
            for view, expected in views:
                assert len(view) == len(expected)
                assert answers(view) == answers(expected)


def answers(view: CosineView) -> tuple[object, ...]:
    matches = view.search(PALETTE[:6], {0: 0.5, 2: -1.0})
    return found_by(matches), matches.row.tolist(), matches.truncated.tolist()


@pytest.mark.parametrize("few_dead", [0.0, 1.0], ids=["in the scan", "after it"])
def test_dead_neighbours_do_not_crowd_out_the_living(
    few_dead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many nearer rows have been retired, the living are found, and nothing is cut."""
    monkeypatch.setattr(ivf_store, "FEW_DEAD", few_dead)
    near, far = unit(np.array([[1, 0, 0, 0, 0, 0], [1, 0.1, 0, 0, 0, 0]]))
    rows = [Row(near, key, 0) for key in range(5000)] + [Row(far, 9000, 0)]
    base = base_of(rows, 6)
    base.retire(range(5000), [1] * 5000)
    matches = base.freeze(1).search(near[None], {0: 0.9})
    assert matches.key.tolist() == [9000]
    assert not matches.truncated.any()


def test_views_share_what_they_can() -> None:
    """A freeze without new dead rows costs nothing of the base's size: selectors are shared."""
    base = base_of([Row(v, k, 0) for k, v in enumerate(PALETTE)], 6)
    base.retire([3], [5])
    first, second, later = (base.freeze(through) for through in (4, 4, 5))
    assert isinstance(first, IvfView)
    assert isinstance(second, IvfView)
    assert isinstance(later, IvfView)
    assert first._selector is second._selector
    assert first._selector is not later._selector
    assert (first.through, later.through) == (4, 5)


def test_parts_that_do_not_belong_together_are_refused() -> None:
    """An index of one snapshot with the rows, keys or groups of another answers nonsense."""
    vectors = PALETTE.astype(np.float16)
    (index, _), keys = filled("IVF4,PQ6x4fsr", vectors), np.arange(24)
    for rows, some_keys, groups in [
        (vectors[:23], keys, keys),
        (vectors, keys[:23], keys),
        (vectors, keys, keys[:23]),
        (vectors[:, :5], keys, keys),
    ]:
        with pytest.raises(Corrupt, match=r"24 rows of 6 .* rebuild"):
            IvfBase(index, rows, some_keys, groups, calibration=WIDE, nprobe=1)


# ---------------------------------------------------------------- building


def test_every_row_finds_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many parts it is filled in, and wherever the caller's arrays went."""
    monkeypatch.setattr(ivf_build, "FILL_ROWS", 100)
    w = world()
    index = train("IVF4,PQ32x4fsr", w.vectors)
    progress: list[int] = []
    rows = w.vectors.astype(np.float16)
    outliers = fill(index, rows, np.arange(len(rows)), progress.append)
    assert progress == [100] * 24
    assert index.ntotal + len(outliers) == len(w.vectors)
    calibration = calibrate(index, w.vectors.astype(np.float16))
    keys = np.arange(len(w.vectors))
    base = IvfBase(
        index, rows, keys, keys * 0, calibration=calibration, nprobe=4, outliers=outliers
    )
    matches = base.freeze(0).search(w.vectors, {0: 1.0})
    found = set(zip(matches.query.tolist(), matches.key.tolist(), strict=True))
    assert {(key, key) for key in keys.tolist()} <= found


@pytest.mark.parametrize("codec", ["PQ32x4fsr", "PQ32x4fs", "PQ32", "SQ8"])
def test_rows_unlike_those_it_was_trained_on_are_found_all_the_same(codec: str) -> None:
    """Codes trained on one kind of rows describe others badly, and a gate turns those away even
    when they are asked for as they are: they come out of `fill` as outliers, searched exactly."""
    w = world()
    others = unit(np.random.default_rng(11).standard_normal((600, DIM)) ** 3)
    rows = np.concatenate((w.vectors, others)).astype(np.float16)
    keys = np.arange(len(rows))

    def lost(outlier_shortfall: float) -> int:
        index = train(f"IVF4,{codec}", w.vectors)
        outliers = outliers_of(index, rows, outlier_shortfall)
        calibration = calibrate(index, rows[: len(w.vectors)])
        base = IvfBase(
            index, rows, keys, keys * 0, calibration=calibration, nprobe=4, outliers=outliers
        )
        found = base.freeze(0).search(others, {0: 0.99}).key
        return int((~np.isin(np.arange(len(w.vectors), len(rows)), found)).sum())

    assert lost(ivf_build.OUTLIER_SHORTFALL) == 0 < lost(np.inf)


def test_outliers_end_and_are_counted_as_other_rows() -> None:
    base = base_of([Row(v, k, 0) for k, v in enumerate(PALETTE)], 6, outlier_shortfall=0.01)
    assert len(base.freeze(1)) == len(base) == 24
    assert base.retire(range(24), [2] * 24) == 24
    assert base.retire(range(24), [2] * 24) == 0
    assert (len(base.freeze(1)), len(base.freeze(2))) == (24, 0)


def test_lists_may_be_drawn_and_not_trained() -> None:
    """Centres are rows of the sample; copies of rows find their list among a few."""
    w = world()
    index = train("IVF64,PQ32x4fsr", w.vectors, drawn_lists=True)
    centres = index.quantizer.reconstruct_n(0, 64)
    assert len({row.tobytes() for row in centres} & {row.tobytes() for row in w.vectors}) == 64
    nprobe = ivf_build.nprobe_for(index, w.vectors)
    assert 1 < nprobe < 64
    assert ivf_build.nprobe_for(train("IVF2,PQ32x4fsr", w.vectors), w.vectors) <= 2


def test_rows_are_scaled_so_that_scores_are_even() -> None:
    """Without it the gate has to be several times as wide; the cosines are the same."""
    w = world()
    plain = train(FACTORY, w.vectors)
    plain.add_with_ids(w.vectors, np.arange(len(w.vectors)))
    uneven = calibrate(plain, w.vectors.astype(np.float16))
    assert w.calibration.sd < 0.6 * uneven.sd


def test_the_same_sample_gives_the_same_index() -> None:
    """A rebuild can be compared with what it replaces."""
    sample = world().vectors[:900]
    one, two, other = (train("IVF8,PQ16x4fsr", sample, seed) for seed in (1, 1, 2))
    bytes_of = [faiss.serialize_index(index).tobytes() for index in (one, two, other)]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


def test_training_does_not_anneal() -> None:
    """Polysemous training takes minutes to hours for a search that is never made."""
    assert not train("IVF2,PQ1", world().vectors[:, :4]).do_polysemous_training


def test_an_index_of_other_rows_is_not_calibrated() -> None:
    """It would give numbers, and a gate that turns matches away."""
    w = world()
    strangers = unit(np.random.default_rng(1).standard_normal((len(w.vectors), DIM)))
    with pytest.raises(Corrupt, match="build it again"):
        calibrate(w.index, strangers.astype(np.float16))


def test_the_gate_follows_the_scores() -> None:
    """Codes shrink every score by one factor: a copy's score lies lower than bias says at .9."""
    gate = Calibration(bias=-0.18, sd=0.01).gate(np.array([0.9, 1.0, 0.0, -np.inf, np.inf]))
    assert gate.tolist() == pytest.approx([0.72 - 0.035, 0.8 - 0.035, -0.035, -0.835, np.inf])


def test_scores_lie_above_the_gate() -> None:
    """Of near copies at any cosine that thresholds have, next to all pass the gate of theirs."""
    w, rng = world(), np.random.default_rng(6)
    for cosine in (0.85, 0.9, 0.95, 1.0):
        at = rng.choice(len(w.vectors), 500)
        queries = ivf_build.turned(
            w.vectors[at], rng.standard_normal((500, DIM)), np.full(500, cosine)
        )
        w.index.nprobe = LISTS
        scores, rows = w.index.search(queries, 200)
        own = np.where(rows == at[:, None], scores, -1).max(1)
        assert (own >= w.calibration.gate(np.array([cosine]))).mean() > 0.99
        assert COSINE.value(queries[0], w.vectors[at[0]]) == pytest.approx(cosine, abs=1e-3)
