"""How much one identity may ask: items a second, and calls at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from simsearch.errors import Overloaded
from simsearch.serve.auth.identity import Identity, Quota

BURST_S = 1.0
"""What was not used of the last second may be used at once."""


class Meter:
    """One identity's account. A batch larger than a second's worth is let in when the account is
    full, and leaves it in debt: the rate holds in the long run whatever the batches are."""

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quota = quota
        self._level = self._capacity
        self._filled_at = clock()
        self.in_flight = 0

    @property
    def quota(self) -> Quota:
        return self._quota

    @quota.setter
    def quota(self, quota: Quota) -> None:
        """From now on another bound; what was used stays used."""
        self._fill()
        self._quota = quota
        self._level = min(self._level, self._capacity)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call. Raises Overloaded where as many are in flight as may be."""
        most = self._quota.in_flight_max
        if most is not None and self.in_flight >= most:
            raise Overloaded(f"{self.in_flight} of your calls are in flight, as many as you may")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def charge(self, items: int) -> None:
        """Raises Overloaded, with the time to wait, where the second's items are used up."""
        wait_s = self.try_charge(items)
        if wait_s:
            raise Overloaded(
                f"your quota is {self._quota.items_per_s:g} items a second: come back later",
                retry_after_ms=max(1, math.ceil(round(wait_s * 1e3, 3))),
            )

    def try_charge(self, items: int) -> float:
        """0.0 once it is charged; else the seconds after which to try again, nothing charged."""
        rate = self._quota.items_per_s
        if rate is None:
            return 0.0
        self._fill()
        missing = min(items, self._capacity) - self._level
        if missing > 1e-6:  # a wait that was just long enough must not be repeated
            return missing / rate
        self._level -= items
        return 0.0

    @property
    def _capacity(self) -> float:
        rate = self._quota.items_per_s
        return math.inf if rate is None else max(1.0, rate * BURST_S)

    def _fill(self) -> None:
        now = self._clock()
        if self._quota.items_per_s is not None:
            grown = self._level + (now - self._filled_at) * self._quota.items_per_s
            self._level = min(self._capacity, grown)
        self._filled_at = now


class Meters:
    """The account of each identity, by name: it outlives a change of the identity's quota."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._meters: dict[str, Meter] = {}

    def of(self, caller: Identity) -> Meter:
        meter = self._meters.get(caller.name)
        if meter is None:
            meter = self._meters[caller.name] = Meter(caller.quota, self._clock)
        if meter.quota != caller.quota:
            meter.quota = caller.quota
        return meter
