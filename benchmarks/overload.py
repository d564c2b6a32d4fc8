"""Does a server keep its promises when five and ten times too much arrives?

    python -m benchmarks.overload [--seconds S] [--items N] [--json]

A real `simsearch serve` with the MiniLM encoder and an empty bank, its caches off, is sent distinct
shared texts in BatchMatch of `--items`, each call with a deadline of one second. Its peak is what a
few callers in a closed loop get answered. Then calls come at five and at ten times that rate, at
times drawn at random, whether or not earlier ones were answered. The server has one core to itself
and this process the other, so that the load does not take the place of what it measures.

goodput_5x, goodput_10x   items answered in time, by those of the peak; measured before and after
refusal_p99_ms            from sending a call until it was refused, 99th percentile, at ten times
admitted_p99_ms           from sending a call until its answer, likewise; the deadline is 1,000
late                      answers that came after the deadline of their call: 0 is wanted
unnamed                   calls that ended in another way than an answer, OVERLOADED or
                          DEADLINE_PASSED: 0 is wanted
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import numpy as np

from benchmarks.report import finish
from benchmarks.serving import FORGETFUL, served
from benchmarks.vectors import shared_texts
from simsearch.client import NO_RETRIES, AsyncClient
from simsearch.errors import SimsearchError
from simsearch.types import MatchResult, TextContent

SECONDS: Final = 10.0
ITEMS: Final = 16
TIMES: Final = (5, 10)
CALLERS_AT_PEAK: Final = 3
PAUSE_S: Final = 0.05
"""After a refusal, of a caller in the closed loop."""
DEADLINE_S: Final = 1.0
WARM_S: Final = 3.0
WORDS_MAX: Final = 40
ONE_TORCH_THREAD: Final = """
[server]
torch_threads = 1
"""

Batch = list[TextContent]


@dataclass
class Outcome:
    """Of calls begun within `seconds`: what came of each, by reason, and after how many ms."""

    seconds: float
    begun: float = field(default_factory=time.perf_counter)
    counts: Counter[str] = field(default_factory=Counter)
    ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return time.perf_counter() > self.begun + self.seconds

    def add(self, what: str, ms: float) -> None:
        if what == "answered" and self.is_over:
            what = "answered afterwards"  # in time, and no part of what was answered meanwhile
        self.counts[what] += 1
        self.ms.setdefault(what, []).append(ms)

    @property
    def answered_per_s(self) -> float:
        return self.counts["answered"] / self.seconds

    def p99(self, what: str) -> float:
        return float(np.percentile(self.ms[what], 99)) if what in self.ms else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load")
    parser.add_argument("--items", type=int, default=ITEMS, help="texts of one call")
    options = parser.parse_args()
    texts = [TextContent(t) for t in shared_texts() if len(t.split()) <= WORDS_MAX]
    if not texts:
        raise SystemExit("the shared texts are not there")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this needs two cores: one for the server, one for the load")
    with served(more_config=FORGETFUL + ONE_TORCH_THREAD) as server:
        for thread in os.listdir(f"/proc/{server.pid}/task"):
            os.sched_setaffinity(int(thread), {cores[0]})
        os.sched_setaffinity(0, set(cores[1:]))
        loads = asyncio.run(_loads(server.address, texts, options.items, options.seconds))
    _report(loads, options.items, options.json)


async def _loads(
    address: str, texts: list[TextContent], items: int, seconds: float
) -> dict[str, Outcome]:
    batches = _batches(texts, items)
    async with AsyncClient(
        address, deadline_s=DEADLINE_S, autobatch=False, retry=NO_RETRIES
    ) as client:
        await _closed(client, batches, WARM_S)
        before = await _closed(client, batches, seconds)
        loads = {"peak": before}
        for times in TIMES:
            rate = times * before.answered_per_s
            loads[f"{times}x"] = await _open(client, batches, rate, seconds)
        loads["peak again"] = await _closed(client, batches, seconds)
    return loads


def _batches(texts: list[TextContent], items: int) -> Iterator[Batch]:
    endless = itertools.cycle(texts)
    while True:
        yield list(itertools.islice(endless, items))


async def _closed(client: AsyncClient, batches: Iterator[Batch], seconds: float) -> Outcome:
    """As many callers as keep the server busy, each of which waits for its answer."""
    outcome = Outcome(seconds)

    async def caller() -> None:
        while not outcome.is_over:
            if not await _call(client, next(batches), outcome):
                await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(caller() for _ in range(CALLERS_AT_PEAK)))
    return outcome


async def _open(
    client: AsyncClient, batches: Iterator[Batch], rate: float, seconds: float
) -> Outcome:
    """`rate` calls a second, whatever becomes of them."""
    rng = np.random.default_rng(0)
    outcome = Outcome(seconds)
    calls: set[asyncio.Task[bool]] = set()
    due = outcome.begun
    while not outcome.is_over:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        call = asyncio.create_task(_call(client, next(batches), outcome))
        calls.add(call)
        call.add_done_callback(calls.discard)
        due += rng.exponential(1 / rate)
    if calls:
        await asyncio.wait(calls)
    return outcome


async def _call(client: AsyncClient, batch: Batch, outcome: Outcome) -> bool:
    """Whether it was answered."""
    begun = time.perf_counter()
    try:
        results = await client.match_batch(batch)
        wrong = [r for r in results if not (isinstance(r, MatchResult) and r.complete)]
        what = "answered" if not wrong else _reason(wrong[0])
    except SimsearchError as refusal:
        what = refusal.reason
    ms = (time.perf_counter() - begun) * 1e3
    outcome.add("late" if what == "answered" and ms > DEADLINE_S * 1e3 else what, ms)
    return what == "answered"


def _reason(outcome: object) -> str:
    return outcome.reason if isinstance(outcome, SimsearchError) else "incomplete"


def _report(loads: dict[str, Outcome], items: int, as_json: bool) -> None:
    peak = median([loads["peak"].answered_per_s, loads["peak again"].answered_per_s])
    named = {"answered", "answered afterwards", "OVERLOADED", "DEADLINE_PASSED", "late"}
    worst = loads[f"{TIMES[-1]}x"]
    finish(
        "overload",
        [
            {
                "load": name,
                "calls/s": sum(load.counts.values()) / load.seconds,
                "texts answered/s": load.answered_per_s * items,
                "answered p99 ms": load.p99("answered"),
                "refused": load.counts["OVERLOADED"],
                "refused p99 ms": load.p99("OVERLOADED"),
                "others": str({w: n for w, n in load.counts.items() if w not in named}),
            }
            for name, load in loads.items()
        ],
        {
            **{f"goodput_{t}x": loads[f"{t}x"].answered_per_s / peak for t in TIMES},
            "refusal_p99_ms": worst.p99("OVERLOADED"),
            "admitted_p99_ms": worst.p99("answered"),
            "late": sum(load.counts["late"] for load in loads.values()),
            "unnamed": sum(
                n for load in loads.values() for what, n in load.counts.items() if what not in named
            ),
        },
        {
            "items_a_call": items,
            "refusal_p50_ms": round(median(worst.ms.get("OVERLOADED", [0.0])), 2),
            "counts": {name: dict(load.counts) for name, load in loads.items()},
        },
        as_json,
    )


if __name__ == "__main__":
    main()
