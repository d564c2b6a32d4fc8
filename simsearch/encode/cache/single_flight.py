"""Single-flight (request coalescing): a call that needs a result which another call is computing
waits for it instead of computing it again."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from simsearch.types import CallContext, Priority

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

POLL_S = 0.05
"""How often a waiting call checks that its caller is still there."""


class Flight(Generic[R]):
    """One computation in progress. The call that leads it must land it, also when it fails."""

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self._landed = threading.Event()
        self._result: R | None = None

    def land(self, result: R | None) -> None:
        """End the flight. None: there is no result that another call could use."""
        self._result = result
        self._landed.set()

    def wait(self, call: CallContext, wait_s_max: float) -> R | None:
        """Its result; None where there is none, when `call` ends, or after `wait_s_max`."""
        until = min(call.deadline, time.monotonic() + wait_s_max)
        while call.is_wanted() and (left := until - time.monotonic()) > 0:
            if self._landed.wait(min(left, POLL_S)):
                return self._result
        return None


class SingleFlight(Generic[K, R]):
    """All computations in progress, by key. Thread-safe."""

    def __init__(self) -> None:
        self._flying: dict[K, Flight[R]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._flying)

    def board(
        self, keys: Iterable[K], priority: Priority
    ) -> tuple[dict[K, Flight[R]], dict[K, Flight[R]]]:
        """The flights that the caller now leads, and those of other calls that it can wait for.

        An interactive call never waits for a bulk leader: it leads a flight of its own, which
        later calls join. Every flight that is led must be given to `land`.
        """
        led: dict[K, Flight[R]] = {}
        joined: dict[K, Flight[R]] = {}
        with self._lock:
            for key in keys:
                flying = self._flying.get(key)
                if flying is not None and flying.priority <= priority:
                    joined[key] = flying
                else:
                    led[key] = self._flying[key] = Flight(priority)
        return led, joined

    def land(self, key: K, flight: Flight[R], result: R | None) -> None:
        """Remove a flight and wake the calls that wait for it."""
        with self._lock:
            if self._flying.get(key) is flight:
                del self._flying[key]
        flight.land(result)
