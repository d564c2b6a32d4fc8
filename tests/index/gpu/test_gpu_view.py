"""A base whose codes a GPU reads answers as the CPU's does, whatever the GPU does.

Here the CPU stands in for the GPU; the same on a real one is marked `gpu`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import faiss
import numpy as np
import pytest

from simsearch.errors import SpaceMismatch
from simsearch.index.gpu import gpu_canary, tensors
from simsearch.index.gpu import gpu_view as gpu
from simsearch.index.gpu.device import (
    GpuFault,
    HostDevice,
    ScoredRows,
    gpus_of_faiss,
    unsupported_reason,
)
from simsearch.index.gpu.dispatcher import WrongAnswer
from simsearch.index.gpu.gpu_canary import Canary
from simsearch.index.gpu.gpu_view import (
    GpuBase,
    GpuOptions,
    Gpus,
    GpuView,
    Placement,
    place_on_gpus,
)
from simsearch.index.index_protocol import CosineMatches, CosineView
from simsearch.index.ivf import train
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.ivf_view import IvfBase, IvfView
from simsearch.index.snapshot.loader import Shard
from tests.index.contract import CosineViewContract
from tests.index.gpu.gpu_worlds import (
    DIM,
    FLOORS,
    LISTS,
    ROWS,
    Answer,
    Faulty,
    with_outliers,
    world,
)
from tests.index.ivf.test_ivf_view import WIDE, filled
from tests.index.oracle import Row, found_by, unit

OPTIONS = GpuOptions(wait_s=20.0)
"""A shared machine may let a thread wait for seconds."""


@cache
def on_host() -> Gpus:
    return Gpus([HostDevice()], OPTIONS)


@cache
def on_gpu() -> Gpus:
    devices, reason = gpus_of_faiss(1 << 28)
    if not devices:
        pytest.skip(reason)
    return Gpus(devices, OPTIONS)


@pytest.fixture(scope="module", autouse=True)
def _stopped() -> Iterator[None]:
    yield
    for gpus in (on_host, on_gpu):
        if gpus.cache_info().currsize:
            gpus().stop()
            gpus.cache_clear()


@pytest.fixture(autouse=True)
def _few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these many bases is calibrated; here what comes out hardly matters."""
    monkeypatch.setattr(train, "PAIRS", 64)


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def gpus(request: pytest.FixtureRequest) -> Gpus:
    return on_host() if request.param == "host" else on_gpu()


# ---------------------------------------------------------------- the contract


class TestGpuView(CosineViewContract):
    factory = "IVF4,PQ3"

    def gpus(self) -> Gpus:
        return on_host()

    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> CosineView:
        base = base_of(rows, self.dim, self.gpus(), factory=self.factory)
        assert isinstance(base, GpuBase) or len(rows) < 10
        base.retire(sorted(retired), [1] * len(retired))
        return base.freeze(1)


class TestGpuViewOfUsualDim(TestGpuView):
    dim = 384
    rows = 80
    factory = "IVF4,SQ8"


@pytest.mark.gpu
class TestOnAGpu(TestGpuView):
    def gpus(self) -> Gpus:
        return on_gpu()


@pytest.mark.gpu
class TestOnAGpuOfScalars(TestOnAGpu):
    factory = "IVF4,SQfp16"


@pytest.mark.gpu
class TestOnAGpuOfUsualDim(TestOnAGpu):
    dim = 384
    rows = 80
    factory = "IVF4,PQ96"


def base_of(
    rows: Sequence[Row],
    dim: int,
    gpus: Gpus,
    *,
    factory: str = "IVF4,PQ3",
    calibration: Calibration = WIDE,
) -> IvfBase:
    vectors = np.array([row.value for row in rows], np.float16).reshape(len(rows), dim)
    keys = np.array([row.key for row in rows], np.int64)
    groups: Any = np.array([row.group for row in rows], np.int64)
    index, outliers = filled(factory, vectors)
    shard = Shard(index, vectors, keys, groups, outliers)
    return place_on_gpus([shard], calibration=calibration, nprobe=8, gpus=gpus)[0].base


# ---------------------------------------------------------------- as the CPU answers


def everything(matches: CosineMatches) -> tuple[object, ...]:
    return found_by(matches), matches.row.tolist(), matches.truncated.tolist()


def gpu_view(gpus: Gpus) -> GpuView:
    [placed] = world().placed(gpus)
    assert placed.reason == ""
    view = placed.base.freeze(0)
    assert isinstance(view, GpuView)
    return view


def test_the_answer_is_that_of_the_cpu(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, cosines, order and `truncated`; and no question of these goes to the CPU."""
    w, view, floors = world(), gpu_view(gpus), dict.fromkeys(range(5), 0.8)
    expected = [everything(w.on_cpu().search(w.queries, asked)) for asked in (FLOORS, floors)]
    monkeypatch.delattr(IvfView, "search")
    assert [everything(view.search(w.queries, asked)) for asked in (FLOORS, floors)] == expected
    assert len(expected[0][0]) > 300  # type: ignore[arg-type]


def test_many_queries_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However a search is cut up, its answer is one."""
    w, view = world(), gpu_view(on_host())
    expected = everything(view.search(w.queries, FLOORS))
    monkeypatch.setattr(gpu, "QUERIES_MAX", 37)
    monkeypatch.setattr(gpu, "RESULTS_MAX", 256 * 5)
    assert everything(view.search(w.queries, FLOORS)) == expected


def test_the_length_of_a_query_does_not_count(gpus: Gpus) -> None:
    """Scores are linear in it, so a gate would turn shorter queries away."""
    w, view = world(), gpu_view(gpus)
    short = view.search(w.queries * np.float32(0.5), FLOORS)
    assert found_by(short) == found_by(view.search(w.queries, FLOORS))


def test_sixteen_threads_through_one_gpu(gpus: Gpus) -> None:
    """Searches of other thresholds and sizes at once, and each gets its own answer."""
    w, view = world(), gpu_view(gpus)
    asked = [(at, {0: 0.8 + at % 5 / 25, 1: 0.9}) for at in range(96)]

    def ask(view: CosineView, at: int, floors: dict[int, float]) -> tuple[object, ...]:
        return everything(view.search(w.queries[at : at + at % 7 + 1], floors))

    expected = [ask(w.on_cpu(), at, floors) for at, floors in asked]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda a: ask(view, *a), asked)) == expected


@pytest.mark.parametrize("dead", [True, False], ids=["dead", "of a group that is not asked"])
@pytest.mark.parametrize("crowd", [100, 1000, 5000])
def test_rows_that_do_not_count_crowd_nothing_out(gpus: Gpus, dead: bool, crowd: int) -> None:
    """A GPU proposes them all the same: it is asked for more, and at last the CPU is."""
    near, far = unit(np.array([[1, 0, 0, 0, 0, 0], [1, 0.1, 0, 0, 0, 0]]))
    rows = [Row(near, key, int(not dead)) for key in range(crowd)] + [Row(far, 9000, 0)]
    base = base_of(rows, 6, gpus)
    assert isinstance(base, GpuBase)
    if dead:
        base.retire(range(crowd), [1] * crowd)
    matches = base.freeze(1).search(near[None], {0: 0.9})
    assert matches.key.tolist() == [9000]
    assert not matches.truncated.any()
    assert base.fallbacks.by_overflow == (crowd > 2048)


def test_more_matches_than_a_gpu_proposes(gpus: Gpus) -> None:
    """The closest come out and `truncated` is set, for that query alone."""
    axes = np.eye(6, dtype=np.float32)
    rows = [Row(axes[0], key, 0) for key in range(5000)] + [Row(axes[1], 9000, 0)]
    base = base_of(rows, 6, gpus, calibration=Calibration(0.0, 0.1))
    matches = base.freeze(0).search(axes[[1, 0, 2]], {0: 0.9})
    assert matches.truncated.tolist() == [False, True, False]
    assert matches.key[matches.query == 0].tolist() == [9000]
    assert matches.key[matches.query == 1].tolist() == list(range(1024))


def test_rows_end_and_old_views_stay() -> None:
    """Retiring works through log positions as on the CPU."""
    w = world()
    base = w.placed(on_host())[0].base
    query, floors = w.vectors[7:8], dict.fromkeys(range(5), 0.5)
    before = base.freeze(0)
    assert base.retire([7, 99_999], [3, 3]) == 1
    assert (len(base.freeze(2)), len(base.freeze(3))) == (1000, 999)
    assert 7 in before.search(query, floors).key
    assert 7 in base.freeze(2).search(query, floors).key
    assert 7 not in base.freeze(3).search(query, floors).key


def test_outliers_are_found_too(gpus: Gpus) -> None:
    """Rows that are not in the index are none of the GPU's, and a tensor reaches them too."""
    w, outliers = world(), np.array([5, 77, 999])
    shard = with_outliers(w, outliers)
    [placed] = place_on_gpus([shard], calibration=w.calibration, nprobe=LISTS, gpus=gpus)
    assert placed.reason == ""
    cpu = IvfBase(
        shard.index,
        shard.rows,
        shard.keys,
        shard.groups,
        calibration=w.calibration,
        nprobe=LISTS,
        outliers=outliers,
    )
    floors, queries = dict.fromkeys(range(5), 0.9), w.vectors[[*outliers, 1, 2, 3]]
    expected = cpu.freeze(0).search(queries, floors)
    assert set(expected.key.tolist()) >= set(outliers.tolist())
    view = placed.base.freeze(0)
    assert everything(view.search(queries, floors)) == everything(expected)
    assert everything(view.search(tensor(queries), floors)) == everything(expected)


def test_the_gate_is_the_lowest_of_all_calibrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's scores spread otherwise than the CPU's: neither's matches are turned away."""
    narrow, wide = Calibration(0.0, 0.001), Calibration(-0.3, 0.05)
    floors = np.array([0.9])
    monkeypatch.setattr(gpu, "calibrate_through", lambda *_: wide)
    w = world()
    [placed] = place_on_gpus([w.shard()], calibration=narrow, nprobe=LISTS, gpus=on_host())
    criteria = placed.base.freeze(0)._gpu_criteria((-0.9,) * 5)  # type: ignore[attr-defined]
    assert criteria.lowest_gate == wide.gate(floors)[0] < narrow.gate(floors)[0]


# ---------------------------------------------------------------- tensors


def tensor(vectors: Any) -> Any:
    """As one on a GPU, it does not become an array unasked."""
    import torch

    class OnDevice(torch.Tensor):
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise TypeError("it lies on a GPU")

    return torch.from_numpy(np.array(vectors)).as_subclass(OnDevice)


def test_tensors_answer_as_arrays_do(gpus: Gpus) -> None:
    w, view = world(), gpu_view(gpus)
    queries = tensor(w.queries)
    if gpus is not on_host():
        queries = queries.cuda()
    expected = everything(view.search(w.queries, FLOORS))
    assert everything(view.search(queries, FLOORS)) == expected
    assert everything(view.search(queries * 0.5, FLOORS)) == expected
    with pytest.raises(SpaceMismatch):
        view.search(queries[:, :5], FLOORS)


def test_only_queries_with_candidates_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor stays on its device, less the few rows whose exact cosine is asked for."""
    w, view, copied = world(), gpu_view(on_host()), []
    real = tensors.to_host

    def counting(queries: Any) -> Any:
        copied.append(len(queries))
        return real(queries)

    strangers = unit(np.random.default_rng(8).standard_normal((400, DIM)))
    queries = tensor(np.concatenate([strangers, w.vectors[:3]]))
    monkeypatch.setattr(tensors, "to_host", counting)
    matches = view.search(queries, dict.fromkeys(range(5), 0.95))
    assert set(matches.query.tolist()) == {400, 401, 402}
    assert 3 <= sum(copied) < 20


def test_a_fault_with_tensors_goes_to_the_cpu(faulty: Faulty) -> None:
    w = world()
    view = gpu_view(alone(faulty))
    faulty.fault = out_of_memory
    assert everything(view.search(tensor(w.queries), FLOORS)) == everything(
        w.on_cpu().search(w.queries, FLOORS)
    )


def test_nobody_pays_for_torch_without_tensors() -> None:
    """The module is imported by every server, and torch takes seconds."""
    code = "import sys, simsearch.index.gpu.gpu_view; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# ---------------------------------------------------------------- faults


def alone(device: Faulty, **options: Any) -> Gpus:
    gpus = Gpus([device], GpuOptions(**({"wait_s": 20.0} | options)))
    started.append(gpus)
    return gpus


started: list[Gpus] = []


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    yield Faulty()
    while started:
        started.pop().stop()


def out_of_memory(_: Answer) -> ScoredRows:
    raise RuntimeError("Error in StandardGpuResources: alloc fail: out of memory")


def shifted(answer: Answer) -> ScoredRows:
    scores, rows = answer()
    return scores - np.float32(0.1), rows


def of_no_number(answer: Answer) -> ScoredRows:
    scores, rows = answer()
    scores[:-1, 0] = np.nan
    return scores, rows


def of_another_index(answer: Answer) -> ScoredRows:
    scores, rows = answer()
    rows[:-1] = np.where(rows[:-1] >= 0, rows[:-1] + ROWS, -1)
    return scores, rows


def of_the_next_row(answer: Answer) -> ScoredRows:
    scores, rows = answer()
    return scores, np.where(rows >= 0, (rows + 1) % ROWS, rows)


def out_of_order(answer: Answer) -> ScoredRows:
    scores, rows = answer()
    scores[:-1], rows[:-1] = scores[:-1, ::-1].copy(), rows[:-1, ::-1].copy()
    return scores, rows


def too_few(answer: Answer) -> ScoredRows:
    scores, rows = answer()
    return scores[1:], rows[1:]


def too_high(answer: Answer) -> ScoredRows:
    scores, rows = answer()
    return scores + np.float32(1e31), rows


def zeros(answer: Answer) -> ScoredRows:
    """What memory that was never written answers."""
    scores, rows = answer()
    return np.zeros_like(scores), np.zeros_like(rows)


WRONG = [
    shifted,
    of_no_number,
    of_the_next_row,
    of_another_index,
    out_of_order,
    too_few,
    too_high,
    zeros,
]


@pytest.mark.parametrize("fault", [out_of_memory, *WRONG])
def test_a_fault_costs_time_and_no_match(faulty: Faulty, fault: Any) -> None:
    """The CPU answers the same question, and the reason is kept."""
    w = world()
    gpus = alone(faulty)
    [placed] = w.placed(gpus)
    assert isinstance(placed.base, GpuBase)
    view, expected = placed.base.freeze(0), everything(w.on_cpu().search(w.queries, FLOORS))
    faulty.fault = fault
    assert everything(view.search(w.queries, FLOORS)) == expected
    assert placed.base.fallbacks.by_fault == len(w.queries)
    assert placed.base.fallbacks.reason.startswith("GPU 0: ")
    [status] = gpus.status()
    assert status.faults == 1
    assert status.reason == placed.base.fallbacks.reason


@pytest.mark.parametrize("fault", WRONG)
def test_a_gpu_that_computes_wrongly_is_not_asked_again(faulty: Faulty, fault: Any) -> None:
    w, gpus = world(), alone(faulty)
    view = gpu_view(gpus)
    faulty.fault = fault
    view.search(w.queries, FLOORS)
    assert gpus._dispatchers[0].health.is_off


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("fault", [out_of_memory, shifted, of_the_next_row, zeros])
def test_a_fault_at_the_start_leaves_the_cpu(faulty: Faulty, fault: Any, at: int) -> None:
    """Canary and calibration go through the GPU: what fails them is not placed there, and its
    memory is given back."""
    calls = 0

    def later(answer: Answer) -> ScoredRows:
        nonlocal calls
        calls += 1
        return fault(answer) if calls >= at else answer()

    faulty.fault = later
    w, gpus = world(), alone(faulty)
    [placed] = w.placed(gpus)
    assert not isinstance(placed.base, GpuBase)
    assert "GPU 0" in placed.reason
    assert everything(placed.base.freeze(0).search(w.queries, FLOORS)) == everything(
        w.on_cpu().search(w.queries, FLOORS)
    )
    assert _soon(lambda: gpus.status()[0].nbytes == 0)


def test_a_canary_tells_a_gpu_that_finds_less_or_scores_otherwise() -> None:
    """Two rows at the last place are float16's to lose; more are not, nor is a score."""
    w = world()
    rows = w.vectors.astype(np.float16)
    canary = Canary.of(w.index, rows, np.arange(ROWS), LISTS)
    parameters: Any = faiss.SearchParametersIVF()
    parameters.nprobe = LISTS
    scores, found = w.index.search(canary.queries, 64, params=parameters)
    assert canary.found.all()
    assert canary.sure.any()
    assert canary.require((scores, found)) == 0
    found[:2] = -1
    assert canary.require((scores + np.float32(0.01), found)) == pytest.approx(0.01, abs=1e-4)
    found[2] = -1
    with pytest.raises(WrongAnswer, match="finds 3 fewer of 256 stored rows"):
        canary.require((scores, found))
    for off in (0.03, -0.03, np.nan):
        with pytest.raises(WrongAnswer, match=r"scores a stored row (0\.03|nan) off"):
            canary.require((scores + np.float32(off), canary.rows[:, np.newaxis]))


def test_an_index_that_does_not_fit_leaves_the_others(faulty: Faulty) -> None:
    """Out of memory while loading is that index's reason, and no fault of the GPU."""
    w, gpus = world(), alone(faulty)
    [first] = w.placed(gpus)

    def full() -> None:
        raise RuntimeError("cudaMalloc error out of memory")

    faulty.holding = full
    [second] = w.placed(gpus)
    assert "out of memory" in second.reason
    assert not isinstance(second.base, GpuBase)
    assert gpus.status()[0].reason == ""
    assert isinstance(first.base, GpuBase)
    first.base.freeze(0).search(w.queries, FLOORS)
    assert first.base.fallbacks.by_fault == 0


def test_a_gpu_that_hangs_is_not_waited_for(faulty: Faulty) -> None:
    """One wait, bounded; after it searches go to the CPU at once."""
    w, go = world(), threading.Event()
    gpus = alone(faulty)
    view, expected = gpu_view(gpus), everything(w.on_cpu().search(w.queries, FLOORS))
    gpus._dispatchers[0]._wait_s = 0.2

    def hang(answer: Answer) -> ScoredRows:
        go.wait(30)
        return answer()

    faulty.fault = hang
    try:
        assert everything(view.search(w.queries, FLOORS)) == expected
        begun = time.monotonic()
        for _ in range(5):
            assert everything(view.search(w.queries[:4], FLOORS)) == everything(
                w.on_cpu().search(w.queries[:4], FLOORS)
            )
        assert time.monotonic() - begun < 10
        assert "no answer within 0.2 s" in gpus.status()[0].reason
        assert len(faulty.batches) == faulty.batches.index((301, 16)) + 1
    finally:
        go.set()


def test_it_is_asked_again_after_a_while(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    w, gpus = world(), alone(faulty)
    [placed] = w.placed(gpus)
    assert isinstance(placed.base, GpuBase)
    view, now = placed.base.freeze(0), [0.0]
    monkeypatch.setattr(gpus._dispatchers[0].health, "_clock", lambda: now[0])
    faulty.fault = out_of_memory
    view.search(w.queries[:1], FLOORS)
    faulty.fault = lambda answer: answer()
    asked = len(faulty.batches)
    view.search(w.queries[:1], FLOORS)
    assert len(faulty.batches) == asked
    now[0] = 1.1
    view.search(w.queries[:1], FLOORS)
    assert len(faulty.batches) > asked
    assert placed.base.fallbacks.by_fault == 2
    assert gpus.status()[0].reason == ""


def test_a_stopped_gpu_leaves_the_cpu(faulty: Faulty) -> None:
    w, gpus = world(), alone(faulty)
    view = gpu_view(gpus)
    gpus.stop()
    assert everything(view.search(w.queries, FLOORS)) == everything(
        w.on_cpu().search(w.queries, FLOORS)
    )
    [placed] = w.placed(gpus)
    assert "its thread has ended" in placed.reason


def test_scores_that_cannot_be_measured_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that is no number turns every match away."""
    monkeypatch.setattr(gpu_canary, "calibrate", lambda *_: Calibration(float("nan"), 0.1))
    [placed] = world().placed(on_host())
    assert "cannot be measured" in placed.reason


# ---------------------------------------------------------------- where shards go


def two(placement: Placement) -> tuple[Faulty, Faulty, Gpus]:
    one, other = Faulty("GPU 0"), Faulty("GPU 1")
    gpus = Gpus([one, other], GpuOptions(placement=placement, wait_s=20.0))
    started.append(gpus)
    return one, other, gpus


@pytest.mark.usefixtures("faulty")
def test_shards_go_round_the_gpus() -> None:
    one, other, gpus = two(Placement.SHARDED)
    placed = world().placed(gpus, shards=5)
    assert (len(one.held), len(other.held)) == (3, 2)
    assert {p.reason for p in placed} == {""}
    before = len(other.batches)
    placed[0].base.freeze(0).search(world().queries[:1], FLOORS)
    assert len(other.batches) == before


@pytest.mark.usefixtures("faulty")
def test_copies_stand_in_for_each_other() -> None:
    """A shard on both: one that fails is not missed, and one that is idle is asked."""
    w = world()
    one, other, gpus = two(Placement.REPLICATED)
    [placed] = w.placed(gpus)
    assert (len(one.held), len(other.held)) == (1, 1)
    assert isinstance(placed.base, GpuBase)
    view = placed.base.freeze(0)
    one.fault = out_of_memory
    assert everything(view.search(w.queries, FLOORS)) == everything(
        w.on_cpu().search(w.queries, FLOORS)
    )
    assert placed.base.fallbacks.by_fault == 0
    assert [status.reason == "" for status in gpus.status()] == [False, True]


@pytest.mark.usefixtures("faulty")
def test_the_idler_copy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, gpus = two(Placement.REPLICATED)
    [placed] = world().placed(gpus)
    gpus._dispatchers[0]._waiting_queries = 50
    before = len(one.batches), len(other.batches)
    placed.base.freeze(0).search(world().queries[:1], FLOORS)
    assert (len(one.batches) - before[0], len(other.batches) - before[1] > 0) == (0, True)


def test_memory_comes_back_with_the_base(faulty: Faulty) -> None:
    """On the GPU's own thread: freeing beside a search is no safer than searching."""
    gpus = alone(faulty)
    placed = world().placed(gpus)
    assert gpus.status()[0].nbytes > 1000 * 12
    placed.clear()
    assert _soon(lambda: gpus.status()[0].nbytes == 0)
    assert faulty.threads == {"GPU 0"}


def _soon(holds: Any) -> bool:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(holds())


# ---------------------------------------------------------------- what goes to a GPU at all


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("IVF4,PQ4x4fsr", "fast scan"),
        ("IVF4,PQ4x4fs", "fast scan"),
        ("IVF4_HNSW8,PQ4", "graph over its lists"),
        ("IVF4,PQ16x4", "no 16 codes of 4 bits"),
        ("IVF4,PQ6", "no 6 codes of 8 bits"),
        ("Flat", "no IndexFlat"),
        ("IVF4,PQ4", ""),
        ("IVF4,SQ8", ""),
        ("IVF4,SQfp16", ""),
        ("IVF4,Flat", ""),
    ],
)
def test_what_a_gpu_can_hold(factory: str, reason: str) -> None:
    """Everything else says why not, and what to do."""
    said = unsupported_reason(faiss.index_factory(48, factory, faiss.METRIC_INNER_PRODUCT))
    assert reason in said
    assert bool(said) == bool(reason) == ("build it with a plan for GPUs" in said)


def test_without_gpus_the_bases_are_the_cpus() -> None:
    """And the reason can be read."""
    w = world()
    off = Gpus.found(GpuOptions(use=False))
    [placed] = w.placed(off)
    assert "switched off" in placed.reason
    assert not isinstance(placed.base, GpuBase)
    assert off.status() == ()
    fast = world(f"IVF{LISTS},PQ12x4fsr")
    assert "fast scan" in fast.placed(on_host())[0].reason


@pytest.mark.skipif(bool(gpus_of_faiss(1 << 20)[0]), reason="there is a GPU")
def test_this_machine_says_why_it_has_none() -> None:
    assert Gpus.found(GpuOptions()).reason.startswith(("this FAISS is built", "FAISS finds no"))


def test_a_driver_that_does_not_fit_stops_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> Any:
        raise OSError("driver too old")

    monkeypatch.setattr(gpu, "gpus_of_faiss", broken)
    assert "driver too old" in Gpus.found(GpuOptions()).reason


def test_a_fault_never_leaves_the_index(faulty: Faulty) -> None:
    """Whatever the GPU's side raises, callers see an answer."""
    view = gpu_view(alone(faulty))

    def strange(_: Answer) -> ScoredRows:
        raise TypeError("search() got an unexpected keyword")

    faulty.fault = strange
    assert len(view.search(world().vectors[:5], dict.fromkeys(range(5), 0.9)).query) >= 5
    assert not issubclass(GpuFault, RuntimeError)
