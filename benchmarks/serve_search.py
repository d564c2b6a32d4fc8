"""What does a search through the server cost, beside a bare FAISS search of the same index?

    python -m benchmarks.serve_search [--rows N] [--cache DIR] [--json]

`simsearch-build` makes a snapshot of sentence vectors (benchmarks/vectors.py), which it takes for
gathered, and a real `simsearch serve` serves it. It is asked in BatchMatch of 64 with ready
vectors, 95 % of them benign tweets and the others near copies of banned rows; every answer is
exact, judged and checked to be complete. The peer searches the same index with as many lists and
16 candidates, in this process, and does nothing else. Both have two threads; CPU seconds of the
server's process and of this one are compared, and the rates stand beside them.

vs_bare_faiss       CPU of the bare search by the server's CPU, for the same queries
vs_bare_faiss_rate  the same of rates, where the caller takes its share of the server's cores
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Final

import faiss
import numpy as np

from benchmarks.index_memory import lay_out
from benchmarks.index_swap import run_builder
from benchmarks.processes import cpu_s
from benchmarks.report import finish
from benchmarks.serving import FORGETFUL, policy, started, vector
from benchmarks.vectors import Real, bank_of, near_copies, real_vectors
from simsearch.client import Client
from simsearch.index.snapshot.loader import current, open_snapshot
from simsearch.types import BITS_BYTES, MatchResult, Vectors

_faiss: Any = faiss  # ships no types

ROWS: Final = 1_000_000
ASKED: Final = 4_096
BATCH: Final = 64
THREADS: Final = 2
ROUNDS: Final = 5
CANDIDATES: Final = 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    default = Path(tempfile.gettempdir()) / "simsearch-bench"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    options = parser.parse_args()
    real = real_vectors(options.cache)
    bank = bank_of(real, options.rows, options.cache)
    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as name:
        directory = Path(name)
        rules = policy()
        none = np.empty((0, BITS_BYTES), np.uint8)
        space = rules.cosine[0].space
        lay_out(directory / "data", bank, none, space=space, groups=1, policy=rules)
        run_builder("run", directory / "data")
        snapshots = directory / "data" / "snapshots"
        snapshot = open_snapshot(snapshots / (current(snapshots) or ""))
        (shard,) = snapshot.spaces[space].shards
        part = snapshot.spaces[space].part
        asked = _asked(real, bank)
        batches = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
        with started(directory, FORGETFUL) as server, Client(server.address) as client:
            if client.status().snapshot != snapshot.manifest.id:
                raise SystemExit("the server does not serve the snapshot that was built")
            bare = _bare(shard.index, part.nprobe)
            sides = {
                "bare FAISS": lambda: _run(batches, bare, time.process_time),
                "server": lambda: _run(batches, _judged(client), lambda: cpu_s(server.pid)),
            }
            seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
            for number in range(ROUNDS + 1):
                for side in sorted(sides, reverse=bool(number % 2)):
                    seconds[side].append(sides[side]())
    _report(seconds, part.factory, part.nprobe, options.rows, options.json)


def _asked(real: Real, bank: Any) -> Vectors:
    rng = np.random.default_rng(4)
    copies = ASKED // 20
    at = np.sort(rng.choice(len(bank), copies, replace=False))
    near = near_copies(np.asarray(bank[at], np.float32), real, rng.uniform(0.9, 1, copies), rng)
    benign = real.benign[rng.choice(len(real.benign), ASKED - copies)]
    return rng.permutation(np.concatenate((benign, near)).astype(np.float16))


def _run(
    batches: list[Vectors], ask: Callable[[Vectors], None], cpu: Callable[[], float]
) -> tuple[float, float]:
    """CPU and wall seconds of all batches, on THREADS threads."""
    spent, begun = cpu(), time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(ask, batches))
    return cpu() - spent, time.perf_counter() - begun


def _bare(index: Any, nprobe: int) -> Callable[[Vectors], None]:
    parameters = _faiss.SearchParametersIVF(nprobe=nprobe)

    def ask(batch: Vectors) -> None:
        _faiss.omp_set_num_threads(1)
        index.search(batch.astype(np.float32), CANDIDATES, params=parameters)

    return ask


def _judged(client: Client) -> Callable[[Vectors], None]:
    def ask(batch: Vectors) -> None:
        for outcome in client.match_batch([vector(row) for row in batch]):
            if not (isinstance(outcome, MatchResult) and outcome.complete):
                raise SystemExit(f"a vector was not judged: {outcome}")

    return ask


def _report(
    seconds: dict[str, list[tuple[float, float]]],
    factory: str,
    nprobe: int,
    rows: int,
    as_json: bool,
) -> None:
    """The first round warms up and does not count."""
    cpu = {side: median(c for c, _ in rounds[1:]) for side, rounds in seconds.items()}
    wall = {side: median(w for _, w in rounds[1:]) for side, rounds in seconds.items()}
    finish(
        "serve_search",
        [
            {
                "side": side,
                "CPU us a query": cpu[side] / ASKED * 1e6,
                "queries/s": ASKED / wall[side],
            }
            for side in seconds
        ],
        {
            "vs_bare_faiss": cpu["bare FAISS"] / cpu["server"],
            "vs_bare_faiss_rate": wall["bare FAISS"] / wall["server"],
        },
        {"rows": rows, "factory": factory, "nprobe": nprobe, "queries": ASKED},
        as_json,
    )


if __name__ == "__main__":
    main()
