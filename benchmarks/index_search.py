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
delta_cost             with 100,000 edits after the base (every tenth a retraction), against none
vs_hnswlib_b64, _b1    against hnswlib on up to 100,000 rows at a recall no lower than ours
pdq_vs_bare            PDQ hashes one by one, against FAISS alone (benchmarks/binary_scan.py)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Final

import faiss
import hnswlib
import numpy as np
from numpy.typing import NDArray

from benchmarks import binary_scan
from benchmarks.report import finish, interleave, ratio
from benchmarks.vectors import (
    Half,
    Real,
    Truth,
    bank_of,
    more_of,
    near_copies,
    real_vectors,
    truth_of,
)
from simsearch.index.index_protocol import CosineMatches, CosineView
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.faiss_io import copy_of, read_trusted
from simsearch.index.ivf.ivf_view import IvfBase
from simsearch.index.ivf.mapped_lists import write_lists
from simsearch.index.ivf.plan import Plan, plan
from simsearch.index.ivf.segment import IndexParameters, SegmentTemplate
from simsearch.index.ivf.train import calibrate, fill, train
from simsearch.live.space import LiveSpace
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
EDITS: Final = (100_000, 500_000)
UNSEALED: Final = 500
"""How many of the edits came last and are still compared one by one: half of what may be."""
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
    options = parser.parse_args()
    if not ONE_THREAD.items() <= os.environ.items():  # numpy has read them: begin again
        again = [sys.executable, "-m", "benchmarks.index_search", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | ONE_THREAD)
    _faiss.omp_set_num_threads(1)
    real = real_vectors(options.cache)
    big, small = (
        made_world(real, rows, options.cache, options.nprobe)
        for rows in (options.rows, min(options.rows, SMALL_ROWS))
    )
    found = {floor: _found(big, floor) for floor in FLOORS}
    seconds = _raced(big)
    deltas = {edits: _raced_with_edits(big, real, edits) for edits in EDITS}
    graph = _graph(small.bank)
    peers = {batch: _raced_with_hnswlib(small, graph, batch) for batch in (BATCH, 1)}
    pdq = binary_scan.measured(options.rows)
    _report(big, found, seconds, deltas, peers, pdq, options.json)


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
    empty: Any
    calibration: Calibration
    outliers: NDArray[np.int64]
    keys: NDArray[np.int64]
    copies: Asked
    benign: Asked
    alike: Asked
    source: str

    @property
    def nprobe(self) -> Any:
        return _faiss.SearchParametersIVF(nprobe=self.plan.nprobe)

    def base(self) -> IvfBase:
        """Vectors and keys on disk, as a snapshot has them. The key of row i is i + 1."""
        return IvfBase(
            self.index,
            self.bank,
            self.keys,
            self.keys % GROUPS,
            calibration=self.calibration,
            nprobe=self.plan.nprobe,
            outliers=self.outliers,
            centres=self.empty,
        )

    @cached_property
    def view(self) -> CosineView:
        return self.base().freeze(0)

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
    name = f"{real.source}-{rows}-{chosen.factory.replace(',', '-')}"
    index, empty, outliers = _index(bank, chosen, cache / name)
    calibration = calibrate(index, bank)
    keys = _keys(rows, cache)
    rng = np.random.default_rng(2)
    at = np.sort(rng.choice(rows, COPIES))
    copies = near_copies(np.asarray(bank[at], np.float32), real, rng.uniform(0.9, 1, COPIES), rng)
    sides = rng.permutation(copies), real.benign[:BENIGN], real.alike[:BENIGN]
    near, benign, alike = (Asked.of(bank, side.astype(np.float32)) for side in sides)
    parts = bank, chosen, index, empty, calibration, outliers, keys
    return World(*parts, near, benign, alike, real.source)


def _index(bank: Half, chosen: Plan, path: Path) -> tuple[Any, Any, NDArray[np.int64]]:
    """Filled, its lists mapped as in a server; empty; and the outliers."""
    empty_path, outliers_path = path.with_suffix(".empty"), path.with_suffix(".npy")
    lists_path = path.with_suffix(".lists.npy")
    if not lists_path.is_file():
        rng = np.random.default_rng(0)
        sample = np.sort(rng.choice(len(bank), chosen.train_rows, replace=False))
        empty = train(chosen.factory, bank[sample])
        _faiss.write_index(empty, str(empty_path))
        index = copy_of(empty)
        np.save(outliers_path, fill(index, bank, np.arange(len(bank))), allow_pickle=False)
        write_lists(lists_path, index)
    outliers = np.load(outliers_path, allow_pickle=False)
    return read_trusted(empty_path, lists_path), read_trusted(empty_path), outliers


def _keys(rows: int, cache: Path) -> NDArray[np.int64]:
    path = cache / f"keys-{rows}.npy"
    if not path.is_file():
        np.save(path, np.arange(1, rows + 1), allow_pickle=False)
    keys: NDArray[np.int64] = np.load(path, mmap_mode="r", allow_pickle=False)
    return keys


def _pairs(matches: CosineMatches) -> set[tuple[int, int]]:
    """(query, row of the bank)."""
    return set(zip(matches.query.tolist(), (matches.key - 1).tolist(), strict=True))


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
    whole, hits = ~matches.truncated, _pairs(matches)
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
    return float((best[:, 0] >= world.calibration.gate(np.array([floor]))).mean())


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


def _raced_with_edits(world: World, real: Real, edits: int) -> dict[int, float]:
    """What a search costs with so many edits after the base, by batch: 1 is what it costs without.
    Of ten edits nine are new rows and one ends a row, of the base or a new one."""
    added = more_of(real, edits * 9 // 10, seed=7)
    keys = np.arange(len(world.bank) + 1, len(world.bank) + 1 + len(added))
    rng = np.random.default_rng(8)
    ended = np.concatenate([rng.choice(k, edits // 20, replace=False) for k in (keys, world.keys)])
    known = IndexParameters(world.calibration, world.plan.nprobe)
    template = SegmentTemplate(lambda: copy_of(world.empty), known, centres=world.empty)
    with ThreadPoolExecutor(1) as sealer:
        space = LiveSpace(world.view.dim, sealer, [world.base()], template)
        before = space.freeze(1)
        for part in (slice(len(added) - UNSEALED), slice(len(added) - UNSEALED, None)):
            space.wait_until_sealed(1)
            space.append(added[part].astype(np.float32), keys[part], keys[part] % GROUPS)
            if part.stop:
                space.retire(ended, [1] * len(ended))
        after = space.freeze(1)
    asked = world.asked()
    costs = {}
    for batch in (BATCH, 1):
        sides = {
            "before": _in_batches(asked, batch, lambda q: before.search(q, _floors(0.9))),
            "after": _in_batches(asked, batch, lambda q: after.search(q, _floors(0.9))),
        }
        seconds = interleave(sides, ROUNDS)
        costs[batch] = median(seconds["after"]) / median(seconds["before"])
    return costs


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
    hits = _pairs(world.view.search(world.copies.queries, _floors(FLOORS[0])))
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


# ---------------------------------------------------------------- the report


def _report(
    world: World,
    found: dict[float, Found],
    seconds: dict[str, list[float]],
    deltas: dict[int, dict[int, float]],
    races: dict[int, Race],
    pdq: binary_scan.Measured,
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
            "delta_cost": deltas[EDITS[0]][BATCH],
            "vs_hnswlib_b64": races[BATCH].ratio,
            "vs_hnswlib_b1": races[1].ratio,
            "pdq_vs_bare": pdq.ratios["pdq_vs_bare"],
            "false_hits": sum(one.false_hits for one in found.values()),
        },
        {
            "rows": len(world.bank),
            "bytes_per_vector_by_length": round(world.base().nbytes / len(world.bank), 1),
            "outliers": len(world.outliers),
            "dim": world.view.dim,
            "vectors": world.source,
            "factory": world.plan.factory,
            "nprobe": world.plan.nprobe,
            "calibration": {
                "bias": round(world.calibration.bias, 4),
                "sd": round(world.calibration.sd, 4),
            },
            "queries_per_s": {side: round(rate, 1) for side, rate in rates.items()},
            "delta_cost": {
                f"{edits} edits, batch {batch}": round(cost, 3)
                for edits, costs in deltas.items()
                for batch, cost in costs.items()
            },
            "found": {f"{floor}": asdict(one) for floor, one in found.items()},
            "hnswlib": {f"batch {batch}": asdict(race) for batch, race in races.items()},
        },
        as_json,
    )


if __name__ == "__main__":
    main()
