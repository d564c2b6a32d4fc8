"""Rate limits of identities: items a second (token bucket) and calls in flight."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from simsearch.errors import Overloaded
from simsearch.serve.auth.identity import Identity, Quota

BURST_S = 1.0
"""The bucket holds the items of this time: unused quota of the last second may be used at once."""


class TokenBucket:
    """Token bucket and in-flight count of one identity. A batch larger than the bucket is admitted
    when the bucket is full, and leaves it below zero: so the rate holds in the long run, whatever
    the size of the batches."""

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quota = quota
        self._level = self._capacity
        self._filled_at = clock()
        self.in_flight = 0

    @property
    def quota(self) -> Quota:
        """The bounds in force."""
        return self._quota

    @quota.setter
    def quota(self, quota: Quota) -> None:
        """Other bounds from now on; what was used stays used."""
        self._fill()
        self._quota = quota
        self._level = min(self._level, self._capacity)

    def begin_call(self, items: int = 0) -> None:
        """Count one call in flight and charge its items. Raises Overloaded, with nothing counted,
        where too many calls are in flight or the items of this second are used up."""
        most = self._quota.in_flight_max
        if most is not None and self.in_flight >= most:
            raise Overloaded(f"{self.in_flight} of your calls are in flight, as many as you may")
        if items:
            self.charge(items)
        self.in_flight += 1

    def end_call(self) -> None:
        """Once for each `begin_call` that did not raise."""
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
        """Charge the items and return 0.0, or charge nothing and return the seconds to wait."""
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


class RateLimits:
    """The bucket of each identity, by name: it is kept when the identity's quota changes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    def of(self, caller: Identity) -> TokenBucket:
        """The bucket of this identity, with its present quota."""
        bucket = self._buckets.get(caller.name)
        if bucket is None:
            bucket = self._buckets[caller.name] = TokenBucket(caller.quota, self._clock)
        if bucket.quota != caller.quota:
            bucket.quota = caller.quota
        return bucket
