"""Does the base index find what comparing every vector finds, and how much faster?

    python -m benchmarks.index_search [--rows N] [--cache DIR] [--json]

The bank: sentence vectors of the shared texts, extended by mixup (benchmarks/vectors.py). The
index is what `plan` chooses, searched as the server does: gate, exact re-rank, floors. One thread
on all sides; the queries of the speed sides are 95 % benign (tweets), 5 % near
copies of rows.

range_recall_90, _95   of all pairs at that cosine, among queries that are near copies
false_hits             hits that are not among those pairs
benign_touch_90, _95   of tweets labelled neither hateful nor offensive that match nothing at that
                       floor, how many cost a re-rank; alike_touch in the figures: the same of
                       held-out texts of the kinds that the bank holds, its worst case
vs_gemm                against a float32 matrix product and a threshold, batches of 64
vs_bare_faiss          against the same FAISS index alone, same nprobe, 16 candidates, not re-ranked
vs_hnswlib_b64, _b1    against hnswlib on up to 100,000 rows at a recall no lower than ours
bytes_per_vector       memory that a process grows by when it opens the base; vectors are on disk
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import faiss
import hnswlib
import numpy as np
from numpy.typing import NDArray

from benchmarks.report import finish, interleave, ratio
from benchmarks.vectors import Half, Real, Truth, bank_of, near_copies, real_vectors, truth_of
from simsearch.index.codec import Codec
from simsearch.index.ivf import IvfBase, IvfView
from simsearch.index.ivf_build import calibrate, fill, train
from simsearch.index.plan import Plan, plan
from simsearch.types import Vectors

_faiss: Any = faiss  # ships no types

ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
ROWS: Final = 1_000_000
SMALL_ROWS: Final = 100_000
GROUPS: Final = 8
FLOORS: Final = (0.90, 0.95)
COPIES: Final = 5000
BENIGN: Final = 3000
ASKED: Final = 2048
ASKED_OF_GEMM: Final = 128
BATCH: Final = 64
ROUNDS: Final = 5
BARE_CANDIDATES: Final = 16
GEMM_ROWS: Final = 16_384
EFS: Final = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--nprobe", type=int, help="instead of the plan's")
    default = Path(tempfile.gettempdir()) / "simsearch-bench"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    parser.add_argument("--resident-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not ONE_THREAD.items() <= os.environ.items():  # numpy has read them: begin again
        again = [sys.executable, "-m", "benchmarks.index_search", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | ONE_THREAD)
    if options.resident_only:
        print(_grown(options.cache, options.rows))
        return
    _faiss.omp_set_num_threads(1)
    real = real_vectors(options.cache)
    big, small = (
        made_world(real, rows, options.cache, options.nprobe)
        for rows in (options.rows, min(options.rows, SMALL_ROWS))
    )
    found = {floor: _found(big, floor) for floor in FLOORS}
    seconds = _raced(big)
    graph = _graph(small.bank)
    peers = {batch: _raced_with_hnswlib(small, graph, batch) for batch in (BATCH, 1)}
    resident = _resident_bytes(options.cache, options.rows)
    _report(big, found, seconds, peers, resident, options.json)


# ---------------------------------------------------------------- the world


@dataclass(frozen=True)
class Asked:
    """Queries and all their true pairs."""

    queries: Vectors
    truth: Truth

    @staticmethod
    def of(bank: Half, queries: Vectors) -> Asked:
        return Asked(queries, truth_of(bank, queries, FLOORS[0]))


@dataclass(frozen=True)
class World:
    """A bank, its base and what it is asked."""

    bank: Half
    plan: Plan
    index: Any
    codec: Codec
    base: IvfBase
    view: IvfView
    copies: Asked
    benign: Asked
    alike: Asked
    source: str

    @property
    def nprobe(self) -> Any:
        return _faiss.SearchParametersIVF(nprobe=self.plan.nprobe)

    def asked(self) -> Vectors:
        """95 % benign, 5 % near copies, in random order."""
        rng = np.random.default_rng(4)
        copies = ASKED // 20
        benign = self.benign.queries[rng.choice(len(self.benign.queries), ASKED - copies)]
        mixed = np.concatenate((benign, self.copies.queries[:copies]))
        return rng.permutation(mixed)


def made_world(real: Real, rows: int, cache: Path, nprobe: int | None) -> World:
    bank = bank_of(real, rows, cache)
    chosen = plan(rows, bank.shape[1])
    if chosen.is_flat:
        chosen = plan(rows, bank.shape[1], override="IVF256,PQ96x4fsr")
    if nprobe:
        chosen = replace(chosen, nprobe=nprobe)
    index = _index(bank, chosen, cache / f"{real.source}-{rows}.faiss")
    codec = calibrate(index, bank)
    base = _base(index, bank, codec, chosen.nprobe, cache)
    rng = np.random.default_rng(2)
    at = np.sort(rng.choice(rows, COPIES))
    copies = near_copies(np.asarray(bank[at], np.float32), real, rng.uniform(0.9, 1, COPIES), rng)
    sides = rng.permutation(copies), real.benign[:BENIGN], real.alike[:BENIGN]
    near, benign, alike = (Asked.of(bank, side.astype(np.float32)) for side in sides)
    return World(bank, chosen, index, codec, base, base.freeze(0), near, benign, alike, real.source)


def _index(bank: Half, chosen: Plan, path: Path) -> Any:
    if not path.is_file():
        rng = np.random.default_rng(0)
        sample = np.sort(rng.choice(len(bank), chosen.train_rows, replace=False))
        index = train(chosen.factory, bank[sample])
        fill(index, bank, np.arange(len(bank)))
        _faiss.write_index(index, str(path))
    return _faiss.read_index(str(path))


def _base(index: Any, bank: Half, codec: Codec, nprobe: int, cache: Path) -> IvfBase:
    """Vectors and keys on disk, as a snapshot has them."""
    path = cache / f"keys-{len(bank)}.npy"
    if not path.is_file():
        np.save(path, np.arange(1, len(bank) + 1), allow_pickle=False)
    keys = np.load(path, mmap_mode="r", allow_pickle=False)
    return IvfBase(index, bank, keys, keys % GROUPS, codec=codec, nprobe=nprobe)


def _floors(floor: float) -> dict[int, float]:
    return dict.fromkeys(range(GROUPS), floor)


# ---------------------------------------------------------------- found and not found


@dataclass(frozen=True)
class Found:
    pairs: int
    recall: float
    false_hits: int
    truncated: int
    benign_touch: float
    alike_touch: float


def _found(world: World, floor: float) -> Found:
    """Pairs of queries that more than ROWS_MAX rows match are not counted."""
    matches = world.view.search(world.copies.queries, _floors(floor))
    whole = ~matches.truncated
    hits = set(zip(matches.query.tolist(), matches.row.tolist(), strict=True))
    truth = world.copies.truth.at(floor)
    wanted = {pair for pair in truth if whole[pair[0]]}
    return Found(
        pairs=len(wanted),
        recall=len(hits & wanted) / len(wanted),
        false_hits=len(hits - truth),
        truncated=int(matches.truncated.sum()),
        benign_touch=_touched(world, world.benign, floor),
        alike_touch=_touched(world, world.alike, floor),
    )


def _touched(world: World, asked: Asked, floor: float) -> float:
    """Of queries that match nothing, the share with a candidate that passes the gate."""
    without_match = asked.truth.counts(floor, len(asked.queries)) == 0
    best, _ = world.index.search(asked.queries[without_match], 1, params=world.nprobe)
    return float((best[:, 0] >= world.codec.gate(np.array([floor]))).mean())


# ---------------------------------------------------------------- speed


def _raced(world: World) -> dict[str, list[float]]:
    """Seconds a query."""
    asked = world.asked()
    blocks = [
        np.asarray(world.bank[start : start + GEMM_ROWS], np.float32)
        for start in range(0, len(world.bank), GEMM_ROWS)
    ]
    seconds = interleave(
        {
            "simsearch": _in_batches(asked, BATCH, lambda q: world.view.search(q, _floors(0.9))),
            "simsearch, one by one": _in_batches(
                asked, 1, lambda q: world.view.search(q, _floors(0.9))
            ),
            "bare faiss, one by one": _in_batches(
                asked, 1, lambda q: world.index.search(q, BARE_CANDIDATES, params=world.nprobe)
            ),
            "bare faiss": _in_batches(
                asked, BATCH, lambda q: world.index.search(q, BARE_CANDIDATES, params=world.nprobe)
            ),
            "gemm": _in_batches(asked[:ASKED_OF_GEMM], BATCH, lambda q: _by_gemm(blocks, q)),
        },
        ROUNDS,
    )
    asked_of = {"gemm": ASKED_OF_GEMM}
    return {
        side: [time / asked_of.get(side, ASKED) for time in times]
        for side, times in seconds.items()
    }


def _in_batches(
    queries: Vectors, batch: int, ask: Callable[[Vectors], object]
) -> Callable[[], None]:
    def side() -> None:
        for start in range(0, len(queries), batch):
            ask(queries[start : start + batch])

    return side


def _by_gemm(blocks: list[Vectors], queries: Vectors) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(block @ queries.T >= FLOORS[0]) for block in blocks]


@dataclass(frozen=True)
class Race:
    """With hnswlib, at the lowest `ef` of EFS that finds as much; recalls of both at .90."""

    ratio: float
    ef: int
    recall: float
    ours: float
    qps: float


def _raced_with_hnswlib(world: World, graph: Any, batch: int) -> Race:
    """Over queries with at most BARE_CANDIDATES matches: hnswlib is asked for so many."""
    few = world.copies.truth.counts(FLOORS[0], len(world.copies.queries)) <= BARE_CANDIDATES
    truth = {pair for pair in world.copies.truth.at(FLOORS[0]) if few[pair[0]]}
    matches = world.view.search(world.copies.queries, _floors(FLOORS[0]))
    hits = set(zip(matches.query.tolist(), matches.row.tolist(), strict=True))
    ours = len(hits & truth) / len(truth)
    for ef in EFS:
        graph.set_ef(ef)
        recall = _recall_of(graph, world.copies.queries, truth)
        if recall >= ours:
            break
    asked = world.asked()
    seconds = interleave(
        {
            "ours": _in_batches(asked, batch, lambda q: world.view.search(q, _floors(0.9))),
            "hnswlib": _in_batches(
                asked, batch, lambda q: graph.knn_query(q, BARE_CANDIDATES, num_threads=1)
            ),
        },
        ROUNDS,
    )
    qps = ASKED / median(seconds["hnswlib"])
    return Race(ratio(seconds, "ours", "hnswlib"), ef, recall, ours, qps)


def _graph(bank: Half) -> Any:
    graph = hnswlib.Index("ip", bank.shape[1])
    graph.init_index(len(bank), M=16, ef_construction=200, random_seed=1)
    graph.add_items(np.asarray(bank, np.float32), np.arange(len(bank)))
    return graph


def _recall_of(graph: Any, queries: Vectors, truth: set[tuple[int, int]]) -> float:
    labels, _ = graph.knn_query(queries, BARE_CANDIDATES, num_threads=1)
    query = np.repeat(np.arange(len(queries)), BARE_CANDIDATES)
    found = set(zip(query.tolist(), labels.astype(np.int64).ravel().tolist(), strict=True))
    return len(found & truth) / len(truth)


# ---------------------------------------------------------------- memory


def _resident_bytes(cache: Path, rows: int) -> int:
    """Asked of a new process, in which nothing was built before."""
    command = [sys.executable, "-m", "benchmarks.index_search", "--resident-only"]
    options = ["--cache", str(cache), "--rows", str(rows)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    return int(done.stdout)


def _grown(cache: Path, rows: int) -> int:
    real_source = next(cache.glob(f"*-{rows}.faiss")).name.removesuffix(f"-{rows}.faiss")
    bank = np.load(cache / f"{real_source}-bank-{rows}.npy", mmap_mode="r", allow_pickle=False)
    asked = np.asarray(bank[:BATCH], np.float32)
    warm = _faiss.index_factory(bank.shape[1], "IVF1,PQ96x4fsr", _faiss.METRIC_INNER_PRODUCT)
    warm.train(np.asarray(bank[:1000], np.float32))
    fill(warm, bank[:1000], np.arange(1000))
    _base(warm, bank[:1000], Codec(-0.2, 0.02), 1, cache).freeze(0).search(asked, _floors(0.5))
    del warm
    before = _anonymous_bytes()
    index = _faiss.read_index(str(cache / f"{real_source}-{rows}.faiss"))
    view = _base(index, bank, Codec(-0.2, 0.02), 16, cache).freeze(0)
    view.search(asked, _floors(FLOORS[0]))
    return _anonymous_bytes() - before


def _anonymous_bytes() -> int:
    """Resident memory that no file stands behind, less what is free; Linux alone tells."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


# ---------------------------------------------------------------- the report


def _report(
    world: World,
    found: dict[float, Found],
    seconds: dict[str, list[float]],
    races: dict[int, Race],
    resident: int,
    as_json: bool,
) -> None:
    rates = {side: 1 / median(times) for side, times in seconds.items()}
    recalls = {f"range_recall_{round(100 * floor)}": one.recall for floor, one in found.items()}
    touches = {
        f"benign_touch_{round(100 * floor)}": one.benign_touch for floor, one in found.items()
    }
    named = recalls | touches
    finish(
        "index_search",
        [
            *({"side": side, "queries/s": rate} for side, rate in rates.items()),
            *({"side": f"hnswlib, batch {b}", "queries/s": r.qps} for b, r in races.items()),
            *({"side": name, "queries/s": "", "share": value} for name, value in named.items()),
        ],
        {
            **named,
            "vs_gemm": ratio(seconds, "simsearch", "gemm"),
            "vs_bare_faiss": ratio(seconds, "simsearch", "bare faiss"),
            "vs_hnswlib_b64": races[BATCH].ratio,
            "vs_hnswlib_b1": races[1].ratio,
            "bytes_per_vector": resident / len(world.bank),
            "false_hits": sum(one.false_hits for one in found.values()),
        },
        {
            "rows": len(world.bank),
            "bytes_per_vector_by_length": round(world.base.nbytes / len(world.bank), 1),
            "dim": world.view.dim,
            "vectors": world.source,
            "factory": world.plan.factory,
            "nprobe": world.plan.nprobe,
            "codec": {"bias": round(world.codec.bias, 4), "sd": round(world.codec.sd, 4)},
            "queries_per_s": {side: round(rate, 1) for side, rate in rates.items()},
            "found": {f"{floor}": asdict(one) for floor, one in found.items()},
            "hnswlib": {f"batch {batch}": asdict(race) for batch, race in races.items()},
        },
        as_json,
    )


if __name__ == "__main__":
    main()
