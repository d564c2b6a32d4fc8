"""Concurrency limit: a bound on edits, look-ups and streams in flight; the rest is refused at once.

Match and BatchMatch are counted and not bounded here: admission bounds them by what they cost
(`scheduling/admission.py`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from simsearch.errors import NotReady, Overloaded
from simsearch.serve.transport.call_boundary import Call, CallLayer, Enter, Method

ADMITTED_BY_COST: Final = "/simsearch.v1.MatchService/"


@dataclass(frozen=True)
class ConcurrencyCounts:
    """Calls; `in_flight` and `streams` are now, the others since the start."""

    admitted: int
    refused_full: int
    refused_draining: int
    in_flight: int
    streams: int


class ConcurrencyLimit(CallLayer):
    """Bounds unary calls and streams in flight, each kind by itself, and knows when none is."""

    def __init__(self, in_flight_max: int, streams_max: int = 32) -> None:
        self._calls = _Places(self, in_flight_max, "calls are in flight")
        self._streams = _Places(self, streams_max, "streams are open")
        self._matches = _Places(self, None, "")
        self._in_flight = self._admitted = self._refused_full = self._refused_draining = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def bind(self, method: Method) -> Enter | None:
        """Places of the method's kind; none for health and reflection."""
        if not method.is_ours:
            return None
        matches = method.name.startswith(ADMITTED_BY_COST)
        unary = self._matches if matches else self._calls
        return (self._streams if method.is_stream else unary).take

    @property
    def in_flight(self) -> int:
        """Calls and streams that have not ended."""
        return self._in_flight

    @property
    def counts(self) -> ConcurrencyCounts:
        """A copy of the counters."""
        return ConcurrencyCounts(
            admitted=self._admitted,
            refused_full=self._refused_full,
            refused_draining=self._refused_draining,
            in_flight=self._in_flight,
            streams=self._streams.taken,
        )

    def drain(self) -> None:
        """From now on refuse new calls; those in flight go on."""
        self._draining = True

    async def idle(self) -> None:
        """Returns once no call is in flight."""
        await self._idle.wait()

    def enter(self, places: _Places) -> None:
        """Count one call in. Raises NotReady and Overloaded."""
        if self._draining:
            self._refused_draining += 1
            raise NotReady("the server is shutting down: ask another one")
        if places.bound is not None and places.taken >= places.bound:
            self._refused_full += 1
            raise Overloaded(f"{places.taken} {places.what}, as many as this server takes: retry")
        places.taken += 1
        self._admitted += 1
        self._in_flight += 1
        self._idle.clear()

    def leave(self, places: _Places) -> None:
        """Count one call out."""
        places.taken -= 1
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()


class _Places:
    """Room for the calls of one kind; a context manager that is entered once for each of them."""

    def __init__(self, limit: ConcurrencyLimit, bound: int | None, what: str) -> None:
        self._limit = limit
        self.bound = bound
        self.what = what
        self.taken = 0

    def take(self, call: Call) -> _Places:
        return self

    def __enter__(self) -> None:
        self._limit.enter(self)

    def __exit__(self, *_: object) -> None:
        self._limit.leave(self)
