"""What do callers notice when another snapshot is swapped in under a server's load?

    python -m benchmarks.index_swap [--rows N] [--swaps N] [--rate N] [--cache DIR] [--json]

A bank of sentence vectors (benchmarks/vectors.py) and two snapshots of it; the last entries came,
and some ended, after the older one, whose log is therefore replayed. `simsearch-build rollback` and
`publish` take turns beside a real server process, whom meanwhile other threads ask at a fixed rate
with ready vectors: 88 % tweets that are benign, 10 % banned rows as they are, 2 % rows whose ban
was retracted. One more thread adds entries and retracts them, waits until each edit is visible and
asks at once. Latency counts from when a request was due, so that a stall is not hidden by the
requests that it held up.

failed          calls that raised, or answers that call themselves incomplete
stale           answers without an acknowledged ban or with a retracted one, or of an older state
                than one that was acknowledged before they were asked for
swap_p99_ratio  99th percentile of Match from the start of the command until half a second after
                the server serves the other snapshot, against quiet times of the same lengths
                between the swaps; 2 is asked for
load_p99_ratio  the same from when the command has named the other snapshot: what the server's own
                loading costs, without the command beside it
memory_growth   anonymous memory of the server after the last two swaps, against the first two:
                the greater of each
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.processes import anonymous_bytes
from benchmarks.report import finish
from benchmarks.vectors import EDIT, MODEL, Half, Real, ban, bank_of, more_of, real_vectors
from simsearch.bank.store import BankStore
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.encode.encoders.sentence import load_sentence
from simsearch.errors import SimsearchError
from simsearch.index.snapshot.loader import current
from simsearch.types import (
    CosineRule,
    MatchOptions,
    MatchResult,
    Modality,
    Policy,
    VectorContent,
    Vectors,
)

ROWS: Final = 100_000
SWAPS: Final = 8
RATE: Final = 60.0
ASKING_THREADS: Final = 4
CYCLES_PER_S: Final = 2.0
"""Of the editing thread: a ban, a look, a retraction and another look."""

LATER: Final = 2_000
"""Entries that the older snapshot lacks."""
ENDED: Final = 200
"""Entries that the older snapshot has, and that were retracted since."""

BANK: Final = "banned"
FLOOR: Final = 0.90
KNOWN_SHARE, ENDED_SHARE = 0.10, 0.02
OPTIONS: Final = MatchOptions(hits_max=100)
CALL_DEADLINE_S: Final = 10.0
SWAP_DEADLINE_S: Final = 120.0
AFTER_S: Final = 0.5
WARM_S: Final = 3.0
LOOK_S: Final = 0.05

CONFIG: Final = f"""
[ban_checks]
enabled = false

[encoders.minilm]
kind = "sentence-transformers"
model = "{MODEL}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--swaps", type=int, default=SWAPS, help="an even number, 4 or more")
    parser.add_argument("--rate", type=float, default=RATE, help="Match calls a second, in all")
    default = Path(tempfile.gettempdir()) / "simsearch-bench"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    options = parser.parse_args()
    if options.swaps < 4 or options.swaps % 2:
        parser.error("give an even number of swaps, 4 or more")
    real = real_vectors(options.cache)
    rows = bank_of(real, options.rows, options.cache)
    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as directory:
        config = Path(directory) / "simsearch.toml"
        config.write_text(CONFIG, encoding="utf-8")
        data = Path(directory) / "data"
        world = made_world(data, real, rows)
        server = ServerProcess(Path(directory), config)
        try:
            with Load(server.address, world, options.rate).running() as load:
                run = _swapped(server, world, options.swaps)
        finally:
            server.stop()
    _report(world, load, run, options.json)
    if load.failed or load.stale:
        raise SystemExit(f"{(load.failed + load.stale)[:5]}")


# ---------------------------------------------------------------- the world


@dataclass(frozen=True)
class World:
    """A bank, its two snapshots, and what it is asked: `known` are active, by key; `ended` are
    retracted; `fresh` are in no bank."""

    data: Path
    rows: int
    older: str
    newer: str
    known: Sequence[tuple[int, Vectors]]
    ended: Sequence[tuple[int, Vectors]]
    benign: Vectors
    fresh: Vectors

    @property
    def snapshots(self) -> Path:
        return self.data / "snapshots"


def made_world(data: Path, real: Real, rows: Half) -> World:
    """The newer snapshot is the one that is served."""
    space = load_sentence(MODEL).space.id
    rng = np.random.default_rng(6)
    before, later = rows[:-LATER], rows[-LATER:]
    with BankStore.open(data, writer=True) as store:
        store.create_bank(BANK, "", Policy((CosineRule(space, Modality.TEXT, review=FLOOR),)), EDIT)
        keys = ban(store, BANK, space, before)
    older = _built(data)
    at_end = rng.choice(len(before), ENDED, replace=False)
    with BankStore.open(data, writer=True) as store:
        later_keys = ban(store, BANK, space, later)
        for at in at_end:
            store.retract_entry(BANK, keys[at], EDIT)
    newer = _built(data)
    at_known = np.setdiff1d(rng.choice(len(before), LATER, replace=False), at_end)
    known = [(keys[at], before[at]) for at in at_known]
    known += list(zip(later_keys, later, strict=True))
    return World(
        data,
        len(rows),
        older,
        newer,
        [(key, _wide(row)) for key, row in known],
        [(keys[at], _wide(before[at])) for at in at_end],
        real.benign.astype(np.float32),
        more_of(real, 4096, seed=9).astype(np.float32),
    )


def _wide(row: Half) -> Vectors:
    return np.asarray(row, np.float32)


def _built(data: Path) -> str:
    run_builder("run", data)
    served = current(data / "snapshots")
    if served is None:
        raise SystemExit("the builder has not published what it built")
    return served


def run_builder(name: str, data: Path, *arguments: str) -> None:
    """`simsearch-build`; ends the run where it fails."""
    started = _started(name, data, *arguments)
    if started.wait():
        raise SystemExit(f"simsearch-build {name} failed")


def _started(name: str, data: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "index_builders.build_app", name, str(data), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


# ---------------------------------------------------------------- the load


@dataclass
class Load:
    """What the asking and editing threads do, and what came of it. `calls` are of Match at the
    fixed rate: (when due, when answered)."""

    address: str
    world: World
    rate: float
    calls: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    edits: int = 0
    snapshots: Counter[str] = field(default_factory=Counter)
    _acknowledged: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Raises what a thread died of."""
        with ThreadPoolExecutor(ASKING_THREADS + 1) as pool:
            threads: list[Future[None]] = [pool.submit(self._edit)]
            threads += [pool.submit(self._ask, number) for number in range(ASKING_THREADS)]
            try:
                yield self
            finally:
                self._stopping.set()
        for thread in threads:
            thread.result()

    def _ask(self, number: int) -> None:
        rng = np.random.default_rng((11, number))
        with Client(self.address, deadline_s=CALL_DEADLINE_S) as client:
            for due in self._paced(self.rate / ASKING_THREADS, number / self.rate):
                drawn = rng.random()
                if drawn < KNOWN_SHARE:
                    key, row = _drawn(rng, self.world.known)
                    self._match(client, row, wanted=key)
                elif drawn < KNOWN_SHARE + ENDED_SHARE:
                    key, row = _drawn(rng, self.world.ended)
                    self._match(client, row, unwanted=key)
                else:
                    self._match(client, self.world.benign[rng.integers(len(self.world.benign))])
                self.calls.append((due, time.perf_counter()))

    def _edit(self) -> None:
        with Client(self.address, deadline_s=CALL_DEADLINE_S) as client:
            for number, _ in enumerate(self._paced(CYCLES_PER_S, 0)):
                row = self.world.fresh[number % len(self.world.fresh)]
                try:
                    added = client.add_entry(BANK, [_content(row)], EDIT)
                    self._acknowledged = added.seq
                    self._match(client, row, wanted=added.entry.key)
                    gone = client.retract_entry(BANK, added.entry.key, EDIT)
                    self._acknowledged = gone.seq
                    self._match(client, row, unwanted=added.entry.key)
                    self.edits += 2
                except SimsearchError as fault:
                    self.failed.append(f"edit: {fault.reason}: {fault.message}")

    def _paced(self, rate: float, offset: float) -> Iterator[float]:
        """When each call is due, at that time or, where it has passed, at once."""
        due = time.perf_counter() + offset
        while not self._stopping.wait(max(0.0, due - time.perf_counter())):
            yield due
            due += 1 / rate

    def _match(self, client: Client, row: Vectors, wanted: int = 0, unwanted: int = 0) -> None:
        acknowledged = self._acknowledged
        try:
            result = client.match(_content(row), OPTIONS)
        except SimsearchError as fault:
            self.failed.append(f"match: {fault.reason}: {fault.message}")
            return
        self.snapshots[result.snapshot] += 1
        if not result.complete:
            self.failed.append(f"match: not complete: {result.signals}")
        self.stale += _wrong(result, acknowledged, wanted, unwanted)


def _drawn(rng: np.random.Generator, entries: Sequence[tuple[int, Vectors]]) -> tuple[int, Vectors]:
    return entries[int(rng.integers(len(entries)))]


def _wrong(result: MatchResult, acknowledged: int, wanted: int, unwanted: int) -> list[str]:
    """At most one fault."""
    keys = {hit.entry_key for hit in result.hits}
    where = f"by {result.snapshot} at {result.seq}, {acknowledged} acknowledged"
    if wanted and wanted not in keys and not result.truncated:
        return [f"entry {wanted} missed {where}"]
    if unwanted in keys:
        return [f"entry {unwanted} hit after it was retracted {where}"]
    return [f"an older state answered {where}"] if result.seq < acknowledged else []


def _content(row: Vectors) -> VectorContent:
    return VectorContent("minilm", row[np.newaxis])


# ---------------------------------------------------------------- the swaps


@dataclass(frozen=True)
class Window:
    """From `since` to `until`; a swap's command had named the other snapshot at `named`, and the
    server served it at `served`."""

    since: float
    named: float
    served: float
    until: float


@dataclass(frozen=True)
class Run:
    """`anonymous` bytes of the server after each swap and the quiet time behind it."""

    swaps: list[Window]
    quiet: list[tuple[float, float]]
    anonymous: list[int]


def _swapped(server: ServerProcess, world: World, swaps: int) -> Run:
    """Ends the run where a snapshot is not swapped in, or the server has a fault in the end."""
    run = Run([], [], [])
    with Client(server.address, deadline_s=CALL_DEADLINE_S) as client:
        if client.status().snapshot != world.newer:
            raise SystemExit("the server has not begun with the newer snapshot")
        _look(client, time.perf_counter() + WARM_S)
        for number in range(swaps):
            run.swaps.append(swap(client, world, back=number % 2 == 0))
            since = time.perf_counter() + AFTER_S
            _look(client, since)
            until = since + run.swaps[-1].until - run.swaps[-1].since
            _look(client, until)
            run.quiet.append((since, until))
            run.anonymous.append(anonymous_bytes(server.pid))
        status = client.status()
    if status.fault or status.snapshot != world.newer:
        raise SystemExit(f"in the end {status.snapshot} serves; fault: {status.fault}")
    return run


def swap(client: Client, world: World, back: bool) -> Window:
    """To the older snapshot, or forward to the newer one. Ends the run where that fails."""
    target = world.older if back else world.newer
    since = time.perf_counter()
    command = _started("rollback", world.data) if back else _started("publish", world.data, target)
    _wait_for(f"{target} to be named", lambda: current(world.snapshots) == target)
    named = time.perf_counter()
    _wait_for(f"{target} to serve", lambda: client.status().snapshot == target)
    served = time.perf_counter()
    if command.wait():
        raise SystemExit(f"simsearch-build could not swap to {target}")
    until = max(served, time.perf_counter()) + AFTER_S
    _look(client, until)
    return Window(since, named, served, until)


def _wait_for(what: str, happened: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + SWAP_DEADLINE_S
    while not happened():
        if time.perf_counter() > deadline:
            raise SystemExit(f"waited {SWAP_DEADLINE_S:g} s for {what}")
        time.sleep(LOOK_S)


def _look(client: Client, until: float) -> None:
    """As often as during a swap: the quiet times are to differ in nothing else."""
    while time.perf_counter() < until:
        client.status()
        time.sleep(LOOK_S)


# ---------------------------------------------------------------- the report


def _report(world: World, load: Load, run: Run, as_json: bool) -> None:
    spans = {
        "swap": [(swap.since, swap.until) for swap in run.swaps],
        "of it: the server loads": [(swap.named, swap.until) for swap in run.swaps],
        "quiet": run.quiet,
    }
    ms = {name: _latencies(load.calls, windows) for name, windows in spans.items()}
    if missing := [name for name, found in ms.items() if len(found) < 100]:
        raise SystemExit(f"too few calls to tell a 99th percentile: {missing}; raise --swaps")
    p99 = {name: float(np.percentile(found, 99)) for name, found in ms.items()}
    seconds = run.quiet[-1][1] - run.swaps[0].since
    first, last = max(run.anonymous[:2]), max(run.anonymous[-2:])
    finish(
        "index_swap",
        [
            {
                "window": name,
                "calls": len(found),
                "median ms": float(np.median(found)),
                "p99 ms": p99[name],
                "max ms": max(found),
            }
            for name, found in ms.items()
        ],
        {
            "failed": len(load.failed),
            "stale": len(load.stale),
            "swap_p99_ratio": p99["swap"] / p99["quiet"],
            "load_p99_ratio": p99["of it: the server loads"] / p99["quiet"],
            "memory_growth": last / first,
        },
        {
            "rows": world.rows,
            "swaps": len(run.swaps),
            "edits": load.edits,
            "edits_replayed": LATER + ENDED,
            "rate_asked": load.rate,
            "rate": round(sum(run.swaps[0].since <= due for due, _ in load.calls) / seconds, 1),
            "answers_by_snapshot": dict(load.snapshots),
            "p99_ms": {name: round(value, 2) for name, value in p99.items()},
            "p50_ms": {name: round(float(np.median(found)), 2) for name, found in ms.items()},
            "max_ms": {name: round(max(found), 1) for name, found in ms.items()},
            "seconds_until_named": [round(swap.named - swap.since, 2) for swap in run.swaps],
            "seconds_until_served": [round(swap.served - swap.named, 2) for swap in run.swaps],
            "anonymous_mb_after": [round(held / 1e6, 1) for held in run.anonymous],
            "faults": (load.failed + load.stale)[:20],
        },
        as_json,
    )


def _latencies(
    calls: Sequence[tuple[float, float]], windows: Sequence[tuple[float, float]]
) -> list[float]:
    """Milliseconds of the calls that were due in any of `windows`."""
    return [
        1e3 * (answered - due)
        for due, answered in calls
        if any(since <= due < until for since, until in windows)
    ]


if __name__ == "__main__":
    main()
