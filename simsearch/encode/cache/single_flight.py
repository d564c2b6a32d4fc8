"""Single-flight (request coalescing): a call that asks for what another one is computing waits for
that one's result instead."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from simsearch.types import CallContext, Priority

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

POLL_S = 0.05
"""How soon a call that waits notices that its caller has gone."""


class Flight(Generic[R]):
    """One computation on its way. The call that leads it lands it, whatever happens."""

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self._landed = threading.Event()
        self._result: R | None = None

    def land(self, result: R | None) -> None:
        """None: it came to nothing that another call could use."""
        self._result = result
        self._landed.set()

    def wait(self, call: CallContext, wait_s_max: float) -> R | None:
        """Its result; None where it came to nothing, or where `call` has no time left, or after
        `wait_s_max`."""
        until = min(call.deadline, time.monotonic() + wait_s_max)
        while call.is_wanted() and (left := until - time.monotonic()) > 0:
            if self._landed.wait(min(left, POLL_S)):
                return self._result
        return None


class SingleFlight(Generic[K, R]):
    """All computations on their way, by key."""

    def __init__(self) -> None:
        self._flying: dict[K, Flight[R]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._flying)

    def board(
        self, keys: Iterable[K], priority: Priority
    ) -> tuple[dict[K, Flight[R]], dict[K, Flight[R]]]:
        """The flights that the caller now leads, and those of others that it can wait for.

        Nobody waits for a leader of a priority behind its own: the flight is led once more, and joined
        from then on. Every flight that is led must be given to `land`.
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
        """Take a flight out and wake those who wait for it."""
        with self._lock:
            if self._flying.get(key) is flight:
                del self._flying[key]
        flight.land(result)
