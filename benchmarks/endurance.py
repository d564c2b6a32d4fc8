"""Does the server's memory stay where it is over many calls and many swaps of snapshots?

    python -m benchmarks.endurance [--calls N] [--swaps N] [--rows N] [--cache DIR] [--json]

A bank of sentence vectors with two snapshots, as in `index_swap`, which `simsearch-build` swaps
back and forth beside a real server, and a second bank of PDQ hashes. Several threads call without
a pause, in these shares: 80 % Match of a hash, 8 % BatchMatch of 16 vectors, 9 % calls that are to
be refused, each by its name, 2 % StreamMatch of 32 hashes, 1 % edits: a ban of a vector and, as the
next edit, its retraction. Half of what is asked is banned; every answer is checked. A swap
comes whenever its part of the calls is done. What is remembered of content would fill up for as
long as its bounds allow: it is left out of the configuration, and ready vectors and hashes are not
remembered anyway.

Resident memory, pages of mapped files included, is read half a second after each swap, while the
calls go on. The first calls and swaps warm up and do not count.

growth_percent            of the median over the last tenth of the swaps, against the first tenth;
                          2 is asked for
growth_anonymous_percent  the same without the pages of files
failed                    calls that ended in another way than is right for them: 0 is asked for
"""

from __future__ import annotations

import argparse
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
from statistics import median
from typing import Final

import numpy as np

from benchmarks.index_swap import BANK as SENTENCES
from benchmarks.index_swap import CONFIG, World, made_world, swap
from benchmarks.processes import anonymous_bytes, resident_bytes
from benchmarks.report import finish
from benchmarks.serving import FORGETFUL, vector
from benchmarks.vectors import EDIT, bank_of, real_vectors
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import NO_RETRIES, Client, Outcome
from simsearch.errors import SimsearchError
from simsearch.types import (
    BITS_BYTES,
    Band,
    Content,
    HammingRule,
    HashContent,
    MatchOptions,
    MatchResult,
    Policy,
    Signal,
)

CALLS: Final = 200_000
SWAPS: Final = 100
WARM_SHARE: Final = 0.05
"""Of calls and of swaps, in front of those that count."""
ROWS: Final = 20_000
HASHES: Final = 1_000
THREADS: Final = 4
DEADLINE_S: Final = 20.0
LOOK_S: Final = 0.02

BATCH, STREAM = 16, 32
HASH_BANK: Final = "hashes"
KINDS: Final = ("match", "batch", "refused", "stream", "edit")
SHARES: Final = (0.80, 0.08, 0.09, 0.02, 0.01)
BANNED_SHARE: Final = 0.5
MORE_CONFIG: Final = (
    FORGETFUL
    + """
[metrics]
listen = ""

[sandbox]
workers = 0
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--swaps", type=int, default=SWAPS, help="an even number, 10 or more")
    parser.add_argument("--rows", type=int, default=ROWS)
    default = Path(tempfile.gettempdir()) / "simsearch-bench"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    options = parser.parse_args()
    if options.swaps < 10 or options.swaps % 2:
        parser.error("give an even number of swaps, 10 or more")
    real = real_vectors(options.cache)
    rows = bank_of(real, options.rows, options.cache)
    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as name:
        directory = Path(name)
        config = directory / "simsearch.toml"
        config.write_text(CONFIG + MORE_CONFIG, encoding="utf-8")
        world = made_world(directory / "data", real, rows)
        server = ServerProcess(directory, config)
        try:
            with Load(server.address, world, _banned_hashes(server.address)).running() as load:
                samples = _endured(server, world, load, options.calls, options.swaps)
        finally:
            server.stop()
    _report(samples, load, options.rows, options.json)
    if load.failed:
        raise SystemExit(f"{load.failed[:5]}")


def _banned_hashes(address: str) -> list[HashContent]:
    rules = Policy(hamming=(HammingRule(Signal.PDQ, block=31),))
    rng = np.random.default_rng(1)
    hashes = [_random_hash(rng) for _ in range(HASHES)]
    with Client(address) as client:
        client.create_bank(HASH_BANK, EDIT, policy=rules)
        keys = client.add_entries(HASH_BANK, hashes, EDIT)
    if not all(isinstance(key, int) for key in keys):
        raise SystemExit(f"hashes could not be banned: {keys[0]}")
    return hashes


def _random_hash(rng: np.random.Generator) -> HashContent:
    return HashContent(Signal.PDQ, rng.bytes(BITS_BYTES))


# ---------------------------------------------------------------- the calls


@dataclass
class Load:
    """What the calling threads do, and what came of it. `done` are calls by kind."""

    address: str
    world: World
    hashes: Sequence[HashContent]
    done: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[Future[None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Raises what a thread died of."""
        with ThreadPoolExecutor(THREADS) as pool:
            self._threads += [pool.submit(self._call, number) for number in range(THREADS)]
            try:
                yield self
            finally:
                self._stopping.set()
        for thread in self._threads:
            thread.result()

    def wait_for(self, calls: int) -> None:
        """Ends the run where a thread has died."""
        while self.done.total() < calls:
            if any(thread.done() for thread in self._threads):
                raise SystemExit("a calling thread has died")
            time.sleep(LOOK_S)

    def _call(self, number: int) -> None:
        rng = np.random.default_rng((12, number))
        with Client(
            self.address, deadline_s=DEADLINE_S, autobatch=False, retry=NO_RETRIES
        ) as client:
            caller = Caller(client, self.world, self.hashes, rng)
            calls: dict[str, Callable[[], list[str]]] = {
                kind: getattr(caller, kind) for kind in KINDS
            }
            while not self._stopping.is_set():
                kind = KINDS[rng.choice(len(KINDS), p=SHARES)]
                try:
                    wrong = calls[kind]()
                except SimsearchError as fault:
                    wrong = [f"{fault.reason}: {fault.message}"]
                with self._lock:
                    self.done[kind] += 1
                    self.failed += [f"{kind}: {words}" for words in wrong]


@dataclass
class Caller:
    """One thread's. Each kind of call returns what was wrong with its answers."""

    client: Client
    world: World
    hashes: Sequence[HashContent]
    rng: np.random.Generator
    banned: list[int] = field(default_factory=list)

    def match(self) -> list[str]:
        content, band = self._hash()
        return _wrong([self.client.match(content)], [band])

    def batch(self) -> list[str]:
        drawn = [self._vector() for _ in range(BATCH)]
        outcomes = self.client.match_batch([content for content, _ in drawn])
        return _wrong(outcomes, [band for _, band in drawn])

    def stream(self) -> list[str]:
        drawn = [self._hash() for _ in range(STREAM)]
        outcomes = dict(self.client.match_stream(content for content, _ in drawn))
        if sorted(outcomes) != list(range(STREAM)):
            return [f"answers to {sorted(outcomes)} of {STREAM}"]
        return _wrong([outcomes[n] for n in range(STREAM)], [band for _, band in drawn])

    def refused(self) -> list[str]:
        content, banks, reason = REFUSED[int(self.rng.integers(len(REFUSED)))]
        try:
            self.client.match(content, MatchOptions(banks))
        except SimsearchError as refusal:
            return [] if refusal.reason == reason else [f"{refusal.reason} instead of {reason}"]
        return [f"answered instead of {reason}"]

    def edit(self) -> list[str]:
        if self.banned:
            self.client.retract_entry(SENTENCES, self.banned.pop(), EDIT)
        else:
            row = self.world.fresh[self.rng.integers(len(self.world.fresh))]
            added = self.client.add_entry(SENTENCES, [vector(row)], EDIT)
            self.banned.append(added.entry.key)
        return []

    def _hash(self) -> tuple[Content, Band | None]:
        if self.rng.random() < BANNED_SHARE:
            return self.hashes[int(self.rng.integers(len(self.hashes)))], Band.BLOCK
        return _random_hash(self.rng), Band.NONE

    def _vector(self) -> tuple[Content, Band | None]:
        """A benign text may lie near a banned one: nothing is expected of it."""
        if self.rng.random() < BANNED_SHARE:
            return vector(
                self.world.known[int(self.rng.integers(len(self.world.known)))][1]
            ), Band.REVIEW
        return vector(self.world.benign[self.rng.integers(len(self.world.benign))]), None


REFUSED: Final[Sequence[tuple[Content, tuple[str, ...], str]]] = (
    (HashContent(Signal.PDQ, b"short"), (), "BAD_HASH"),
    (HashContent(Signal.PDQ, bytes(BITS_BYTES)), ("no-such-bank",), "BANK_NOT_FOUND"),
    (vector(np.ones(3, np.float32)), (), "BAD_VECTOR"),
)
"""Content, banks and the reason of the refusal."""


def _wrong(outcomes: Sequence[Outcome], expected: Sequence[Band | None]) -> list[str]:
    return [
        f"{outcome!r} where {band} is right"
        for outcome, band in zip(outcomes, expected, strict=True)
        if not (
            isinstance(outcome, MatchResult)
            and outcome.complete
            and band in (None, outcome.verdict)
        )
    ]


# ---------------------------------------------------------------- the memory


@dataclass(frozen=True)
class Sample:
    """What the server's process held after so many calls."""

    calls: int
    resident_bytes: int
    anonymous_bytes: int


def _endured(
    server: ServerProcess, world: World, load: Load, calls: int, swaps: int
) -> list[Sample]:
    """A sample after each swap that counts. Ends the run where a snapshot is not swapped in, or
    the server has a fault in the end."""
    warm = 2 * max(1, round(WARM_SHARE * swaps / 2))
    with Client(server.address, deadline_s=DEADLINE_S) as client:
        for number in range(warm):
            load.wait_for((number + 1) * round(WARM_SHARE * calls) // warm)
            swap(client, world, back=number % 2 == 0)
        begun = load.done.total()
        samples = []
        for number in range(swaps):
            load.wait_for(begun + (number + 1) * calls // swaps)
            swap(client, world, back=number % 2 == 0)
            held = resident_bytes(server.pid), anonymous_bytes(server.pid)
            samples.append(Sample(load.done.total() - begun, *held))
            print(f"{number + 1} swaps: {samples[-1]}", file=sys.stderr, flush=True)
        status = client.status()
    if status.fault or status.snapshot != world.newer:
        raise SystemExit(f"in the end {status.snapshot} serves; fault: {status.fault}")
    return samples


# ---------------------------------------------------------------- the report


def _report(samples: list[Sample], load: Load, rows: int, as_json: bool) -> None:
    resident = [sample.resident_bytes for sample in samples]
    anonymous = [sample.anonymous_bytes for sample in samples]
    tenths = [samples[n * len(samples) // 10 : (n + 1) * len(samples) // 10] for n in range(10)]
    finish(
        "endurance",
        [
            {
                "calls": part[-1].calls,
                "resident MB": median(s.resident_bytes for s in part) / 1e6,
                "anonymous MB": median(s.anonymous_bytes for s in part) / 1e6,
            }
            for part in tenths
        ],
        {
            "growth_percent": _growth_percent(resident),
            "growth_anonymous_percent": _growth_percent(anonymous),
            "failed": len(load.failed),
        },
        {
            "calls": samples[-1].calls,
            "swaps": len(samples),
            "rows": rows,
            "calls_by_kind": dict(load.done),
            "resident_mb": [round(held / 1e6, 1) for held in resident],
            "anonymous_mb": [round(held / 1e6, 1) for held in anonymous],
            "faults": load.failed[:20],
        },
        as_json,
    )


def _growth_percent(held: Sequence[int]) -> float:
    part = max(1, len(held) // 10)
    return 100 * (median(held[-part:]) / median(held[:part]) - 1)


if __name__ == "__main__":
    main()
