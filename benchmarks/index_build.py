"""What does building an index cost, against hnswlib on the same rows?

    python -m benchmarks.index_build [--rows N] [--peer-rows N] [--rounds N] [--cache DIR] [--json]

Sentence vectors of the shared texts, extended by mixup (benchmarks/vectors.py). Costs are seconds
of CPU, user and system, of all threads: they do not change with the number of cores. The sides
take turns in one process. hnswlib: M 16, ef_construction 200, all cores. Its cost of a row grows
with the rows, so that `--peer-rows`, where it is fewer, favours hnswlib. Where other processes
keep the cores busy, FAISS's threads spend most of their CPU waiting for each other, and a ratio
says little: compare with OMP_WAIT_POLICY=PASSIVE set.

build_vs_hnswlib       what the builder does with vectors: train, fill, calibrate; 1/4 is asked for
run_vs_hnswlib         `simsearch-build run` of a bank's directory: its start, gathering the rows,
                       verifying, hashing and opening the snapshot included
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import hnswlib
import numpy as np

from benchmarks.report import finish
from benchmarks.vectors import EDIT, Half, ban, bank_of, real_vectors
from simsearch.bank.store import BankStore
from simsearch.index.ivf.faiss_io import copy_of
from simsearch.index.ivf.ivf_view import IvfBase
from simsearch.index.ivf.plan import Plan, plan
from simsearch.index.ivf.train import calibrate, fill, train
from simsearch.index.snapshot.loader import current, open_snapshot
from simsearch.types import Policy

ROWS: Final = 100_000
ROUNDS: Final = 2
SPACE: Final = "sentences@000000000000/benchmark/384"
BANK: Final = "banned"
COPIES: Final = 256
"""Rows that must find themselves in what was built."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--peer-rows", type=int, help="build hnswlib of so many instead of all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    default = Path(tempfile.gettempdir()) / "simsearch-bench"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    options = parser.parse_args()
    bank = bank_of(real_vectors(options.cache), options.rows, options.cache)
    chosen = plan(*bank.shape)
    if chosen.is_flat:
        raise SystemExit(f"{options.rows} rows are searched exactly: there is nothing to build")
    peer = bank[: options.peer_rows]
    ours, theirs = _raced(bank, chosen, peer, options.rounds)
    run, stages = _run(bank)
    _report(chosen, len(bank), len(peer), ours, theirs, run, stages, options.json)


# ---------------------------------------------------------------- what is spent


@dataclass(frozen=True)
class Spent:
    """Seconds."""

    cpu: float
    wall: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cpu + other.cpu, self.wall + other.wall)


@dataclass
class Clock:
    """What each stage spent; `who` is whose CPU is counted, as getrusage has it."""

    who: int = resource.RUSAGE_SELF
    stages: dict[str, Spent] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        cpu, wall = _cpu(self.who), time.perf_counter()
        yield
        self.stages[name] = Spent(_cpu(self.who) - cpu, time.perf_counter() - wall)

    @property
    def total(self) -> Spent:
        return sum(self.stages.values(), Spent(0, 0))


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


# ---------------------------------------------------------------- the sides


def _raced(bank: Half, chosen: Plan, peer: Half, rounds: int) -> tuple[list[Clock], list[Clock]]:
    """One clock a round of each side; the one that begins changes from round to round."""
    clocks: dict[str, list[Clock]] = {"ours": [], "hnswlib": []}
    sides: dict[str, Callable[[], Clock]] = {
        "ours": lambda: _built(bank, chosen),
        "hnswlib": lambda: _peer_built(peer),
    }
    names = list(sides)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            clocks[name].append(sides[name]())
    return clocks["ours"], clocks["hnswlib"]


def _built(bank: Half, chosen: Plan) -> Clock:
    """As the builder does it. Ends the run where rows do not find themselves afterwards."""
    clock, rng = Clock(), np.random.default_rng(0)
    with clock.stage("train"):
        sample = np.sort(rng.choice(len(bank), chosen.train_rows, replace=False))
        empty = train(chosen.factory, np.asarray(bank[sample], np.float32))
    with clock.stage("fill"):
        index = copy_of(empty)
        outliers = fill(index, bank, np.arange(len(bank)))
    with clock.stage("calibrate"):
        calibration = calibrate(index, bank)
    if index.ntotal + len(outliers) != len(bank):
        raise SystemExit(f"{index.ntotal} rows and {len(outliers)} outliers are not {len(bank)}")
    numbers = np.arange(len(bank))
    base = IvfBase(
        index,
        bank,
        numbers,
        0 * numbers,
        calibration=calibration,
        nprobe=chosen.nprobe,
        outliers=outliers,
    )
    at = np.sort(rng.choice(len(bank), COPIES, replace=False))
    found = base.freeze(0).search(np.asarray(bank[at], np.float32), {0: 0.95})
    itself = set(found.query[at[found.query] == found.key].tolist())
    if len(itself | set(np.flatnonzero(found.truncated).tolist())) < 0.99 * COPIES:
        raise SystemExit(f"only {len(itself)} of {COPIES} rows find themselves")
    return clock


def _peer_built(bank: Half) -> Clock:
    clock = Clock()
    with clock.stage("add_items"):
        graph = hnswlib.Index("ip", bank.shape[1])
        graph.init_index(len(bank), M=16, ef_construction=200, random_seed=1)
        graph.add_items(np.asarray(bank, np.float32), np.arange(len(bank)))
    if graph.get_current_count() != len(bank):
        raise SystemExit(f"hnswlib holds {graph.get_current_count()} of {len(bank)} rows")
    return clock


# ---------------------------------------------------------------- the whole command


def _run(bank: Half) -> tuple[Clock, dict[str, float]]:
    """The command as an operator runs it, and its own report's seconds by stage."""
    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as directory:
        data = Path(directory)
        with BankStore.open(data, writer=True) as store:
            store.create_bank(BANK, "", Policy(), EDIT)
            ban(store, BANK, SPACE, bank)
        clock = Clock(resource.RUSAGE_CHILDREN)
        with clock.stage("run"):
            command = [sys.executable, "-m", "index_builders.build_app", "run", str(data), "--json"]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return clock, _stages(data / "snapshots", len(bank))


def _stages(snapshots: Path, rows: int) -> dict[str, float]:
    """Ends the run where the snapshot that is served now is not one of all rows."""
    served = current(snapshots)
    if served is None:
        raise SystemExit("the builder has not published what it built")
    (part,) = open_snapshot(snapshots / served).manifest.spaces
    if part.count != rows or not part.shards:
        raise SystemExit(f"the snapshot holds {part.count} of {rows} rows, as {part.factory}")
    told: dict[str, Any] = json.loads((snapshots / "reports" / f"{served}.json").read_bytes())
    seconds: dict[str, float] = told["seconds"]
    return seconds


# ---------------------------------------------------------------- the report


def _report(
    chosen: Plan,
    rows: int,
    peer_rows: int,
    ours: list[Clock],
    theirs: list[Clock],
    run: Clock,
    wall_of_run: dict[str, float],
    as_json: bool,
) -> None:
    sides = {"simsearch": (ours, rows), "hnswlib": (theirs, peer_rows), "whole run": ([run], rows)}
    us_per_row = {
        side: 1e6 * median(clock.total.cpu for clock in clocks) / count
        for side, (clocks, count) in sides.items()
    }
    lines = [
        {
            "side": side,
            "stage": stage,
            "rows": count,
            "CPU s": median(clock.stages[stage].cpu for clock in clocks),
            "wall s": median(clock.stages[stage].wall for clock in clocks),
        }
        for side, (clocks, count) in sides.items()
        for stage in clocks[0].stages
    ]
    finish(
        "index_build",
        lines,
        {
            "build_vs_hnswlib": us_per_row["simsearch"] / us_per_row["hnswlib"],
            "run_vs_hnswlib": us_per_row["whole run"] / us_per_row["hnswlib"],
        },
        {
            "rows": rows,
            "peer_rows": peer_rows,
            "factory": chosen.factory,
            "train_rows": chosen.train_rows,
            "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "as FAISS has it"),
            "cpu_us_per_row": {side: round(us, 1) for side, us in us_per_row.items()},
            "cpu_s_by_round": {
                side: [round(clock.total.cpu, 2) for clock in clocks]
                for side, (clocks, _) in sides.items()
            },
            "seconds": {
                f"{line['side']}, {line['stage']}": {
                    kind: round(float(str(line[kind])), 2) for kind in ("CPU s", "wall s")
                }
                for line in lines
            },
            "wall_s_of_run_by_stage": wall_of_run,
        },
        as_json,
    )


if __name__ == "__main__":
    main()
