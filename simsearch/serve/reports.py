"""What fronts tell their engine of calls that it never saw, and what it makes of that."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Final

from simsearch.internal.v1 import relay_pb2
from simsearch.serve.guard import GuardCounts
from simsearch.serve.interceptors import OURS, Context
from simsearch.serve.observing import outcome_of
from simsearch.serve.tally import CALL_BOUNDS_S, Histograms, Spread


@dataclass(frozen=True)
class FrontCounts:
    """Calls, over all fronts since the engine began: relayed, given up by their caller, lost with
    an engine, refused by a front that was full or had no engine. `fronts` is how many there are."""

    fronts: int = 0
    relayed: int = 0
    given_up: int = 0
    lost: int = 0
    refused_full: int = 0
    refused_not_ready: int = 0


GONE_KEPT: Final = 64
"""Fronts that may still come back; a killed one does not."""

_SUMMED: Final = tuple(f.name for f in fields(FrontCounts) if f.name != "fronts")


@dataclass(frozen=True)
class AtFronts:
    """What an engine's page says of its fronts; a server of one process has none. `calls` are
    those that the engine has not counted, by (RPC, outcome) as in observing.py."""

    counts: FrontCounts = field(default_factory=FrontCounts)
    refused: GuardCounts = field(default_factory=GuardCounts)
    calls: Mapping[tuple[str, str], Spread] = field(default_factory=dict)


# ---------------------------------------------------------------- in a front


class Endings:
    """Counts the calls of one front that an engine does not."""

    def __init__(self) -> None:
        self._calls = Histograms[tuple[str, str]](CALL_BOUNDS_S)

    @contextmanager
    def watching(self, method: str, context: Context) -> Iterator[Ended]:
        """A call from its first to its last moment. One that its caller gave up is not counted
        here: the engine, which is told, does."""
        ended, began = Ended(), time.perf_counter()
        yield ended
        if not ended.in_engine:
            key = (method.removeprefix(OURS), outcome_of(context))
            self._calls.observe(key, time.perf_counter() - began)

    def report(self, report: relay_pb2.Report) -> None:
        """Write what was counted so far."""
        _write(report, self._calls.spreads())


@dataclass
class Ended:
    """Whether the engine has seen the end of a call, and so has counted it."""

    in_engine: bool = False


# ---------------------------------------------------------------- in the engine


class Reports:
    """The last of each front that there ever was since the engine began, by the name it gives
    itself: one that was taken for dead and comes back goes on counting. Read by any thread."""

    def __init__(self) -> None:
        self._by_front: dict[str, relay_pb2.Report] = {}
        self._gone = relay_pb2.Report()

    def take(self, front: str, report: relay_pb2.Report) -> None:
        self._by_front[front] = report

    def forget_but(self, fronts: Container[str]) -> None:
        """Of those that went long ago only the sum is kept."""
        gone = [front for front in self._by_front if front not in fronts]
        for front in gone[:-GONE_KEPT]:
            self._gone = merged(self._gone, self._by_front.pop(front))

    def sums(self, fronts: int) -> AtFronts:
        """`fronts` is how many there are now."""
        told = [self._gone, *list(self._by_front.values())]
        counts = {name: sum(getattr(report, name) for report in told) for name in _SUMMED}
        refused = GuardCounts(
            unauthenticated=sum(report.unauthenticated for report in told),
            denied=sum(report.denied for report in told),
        )
        return AtFronts(FrontCounts(fronts=fronts, **counts), refused, _calls(told))


def merged(one: relay_pb2.Report, other: relay_pb2.Report) -> relay_pb2.Report:
    """Of two fronts as if they were one."""
    both = relay_pb2.Report()
    for count in relay_pb2.Report.DESCRIPTOR.fields:
        if not count.is_repeated:
            setattr(both, count.name, getattr(one, count.name) + getattr(other, count.name))
    _write(both, _calls([one, other]))
    return both


def _write(report: relay_pb2.Report, calls: Mapping[tuple[str, str], Spread]) -> None:
    del report.ended[:]
    report.ended.extend(
        relay_pb2.EndedCalls(rpc=rpc, outcome=outcome, counts=spread.counts, seconds=spread.total)
        for (rpc, outcome), spread in calls.items()
    )


def _calls(reports: Iterable[relay_pb2.Report]) -> Mapping[tuple[str, str], Spread]:
    calls: dict[tuple[str, str], Spread] = {}
    for ended in (ended for report in reports for ended in report.ended):
        key = (ended.rpc, ended.outcome)
        spread = Spread(CALL_BOUNDS_S, tuple(ended.counts), ended.seconds)
        calls[key] = calls[key] + spread if key in calls else spread
    return calls
