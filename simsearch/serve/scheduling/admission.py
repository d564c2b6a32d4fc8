"""Admission control: bounds the queue time of matching, estimated from the work done so far.

A call that would wait too long, or whose deadline would pass before its answer, is rejected at
once, with a hint when to retry; an admitted call is then answered in time. The scheduler orders the
admitted ones: earliest deadline first. With a queue as short as admission keeps it, last-in-first-
out would gain nothing and would leave the oldest to expire.

Pure: no clock of its own, no event loop, no lock. One thread calls it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from simsearch.encode.fair_share import BULK_PARTS
from simsearch.types import Priority
from simsearch.wire.request_weight import Weight

BULK_PART: Final = 0.5
"""The part of every bound that bulk may fill: it is rejected while there is room for others."""

RETRY_MS_MIN: Final = 10
RETRY_MS_MAX: Final = 5_000

_JITTER: Final = 0.25
_LEARNING: Final = 0.2
_SURPRISE_MAX: Final = 8.0
_FACTOR_MIN, _FACTOR_MAX = 1e-4, 1e5

# Seconds of one match thread, before anything was measured: a call, a passage of text, an image,
# a kilobyte of vectors or hashes.
_GUESSES: Final = (3e-4, 5e-3, 2e-2, 1e-4)
_PASSAGE_BYTES: Final = 100
_IMAGE_BYTES: Final = 1 << 20
_READY_BYTES: Final = 1 << 10


class Cause(StrEnum):
    """Why a call is rejected."""

    QUEUE = "queue"
    DEADLINE = "deadline"
    SPACE = "space"
    DRAINING = "draining"


@dataclass(frozen=True)
class Bounds:
    """`workers` is how many calls run at once; the others bound all calls together."""

    workers: int
    queue_time_max_s: float = 0.5
    items_max: int = 4_096
    bytes_max: int = 512 << 20


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call needs. `deadline` is in seconds, on the clock of `now`."""

    weight: Weight
    priority: Priority = Priority.INTERACTIVE
    deadline: float = math.inf


@dataclass(frozen=True, slots=True)
class Rejection:
    """A call that is not admitted; `wait_s` is how long it would have queued."""

    cause: Cause
    wait_s: float
    retry_after_ms: int


@dataclass(eq=False, slots=True)
class Permit:
    """Room taken by one admitted call until it is given back, once, however the call ends."""

    demand: Demand
    cost_s: float
    _returned: bool = False


@dataclass(frozen=True)
class AdmissionCounts:
    """Calls but for `items`; `in_flight` and `waiting_s` are now, the others since the start."""

    admitted: int
    items: int
    refused: dict[Cause, int]
    expired: int
    cancelled: int
    in_flight: int
    items_in_flight: int
    bytes_in_flight: int
    waiting_s: float


class ServiceTime:
    """Cost model: seconds of a match thread that a call takes, as a constant plus so much per unit
    of each kind.

    Learnt by normalised least mean squares (Widrow and Hoff, 1960; Kaczmarz' projections with a
    step under 1): for calls of one kind it is a moving average, and where true costs exist, no
    step leads away from them.
    """

    def __init__(self) -> None:
        self._factors = [1.0] * len(_GUESSES)

    def of(self, weight: Weight) -> float:
        """The estimate for one call, in seconds."""
        return sum(f * g for f, g in zip(self._factors, _guesses(weight), strict=True))

    def learn(self, weight: Weight, spent_s: float) -> None:
        """Learn from one call. The effect of a single outlier, as of a stalled disk, is bounded."""
        guesses = _guesses(weight)
        expected = self.of(weight)
        credible = min(max(spent_s, expected / _SURPRISE_MAX), expected * _SURPRISE_MAX)
        step = _LEARNING * (credible - expected) / sum(g * g for g in guesses)
        self._factors = [
            min(max(f + step * g, _FACTOR_MIN), _FACTOR_MAX)
            for f, g in zip(self._factors, guesses, strict=True)
        ]


def _guesses(weight: Weight) -> tuple[float, float, float, float]:
    call, passage, image, ready = _GUESSES
    return (
        call,
        passage * (weight.texts + weight.text_bytes / _PASSAGE_BYTES),
        image * (weight.images + weight.image_bytes / _IMAGE_BYTES),
        ready * (weight.ready + weight.ready_bytes / _READY_BYTES),
    )


class Limiter:
    """Admits calls by estimated queue time. A priority with no call in flight admits one whatever
    the estimate: so a wrong estimate is corrected by a measurement.

    `BULK_PART` is no fair share of time, as `FairShare` keeps it, but room: how far bulk may fill
    the bounds, whether others wait or not."""

    def __init__(self, bounds: Bounds, jitter: Callable[[], float] = random.random) -> None:
        """`jitter` gives numbers in [0, 1)."""
        self._bounds = bounds
        self._jitter = jitter
        self._service = ServiceTime()
        self._cost_s = dict.fromkeys(Priority, 0.0)
        self._calls = dict.fromkeys(Priority, 0)
        self._items = self._bytes = 0
        self._rejected_s = 0.0
        self._rejected_at = -math.inf
        self._draining = False
        self._admitted = self._admitted_items = self._expired = self._cancelled = 0
        self._refused = dict.fromkeys(Cause, 0)

    def drain(self) -> None:
        """Reject from now on; permits that were given stay valid."""
        self._draining = True

    def admit(self, demand: Demand, now: float) -> Permit | Rejection:
        """A permit, which must be given back, or a rejection; both are counted."""
        rejection = self.check(demand, now)
        if rejection is not None:
            self._refused[rejection.cause] += 1
            self._note_rejected(demand, now)
            return rejection
        permit = Permit(demand, self._service.of(demand.weight))
        self._enter(permit, 1)
        self._admitted += 1
        self._admitted_items += demand.weight.items
        return permit

    def check(self, demand: Demand, now: float) -> Rejection | None:
        """The rejection that `admit` would give now, uncounted; None where it would admit."""
        wait_s = self.wait_s(demand.priority)
        remaining_s = demand.deadline - now
        if self._draining:
            return Rejection(Cause.DRAINING, wait_s, RETRY_MS_MAX)
        if not self._has_space(demand):
            return self._reject(Cause.SPACE, wait_s, wait_s, now)
        if self._calls[demand.priority] == 0:
            late_s, excess_s = wait_s - remaining_s, -math.inf
        else:
            late_s = wait_s + self._service.of(demand.weight) - remaining_s
            excess_s = wait_s - self._part(demand.priority) * self._bounds.queue_time_max_s
        if late_s > 0 or remaining_s <= 0:
            return self._reject(Cause.DEADLINE, wait_s, min(late_s, wait_s), now)
        if excess_s > 0:
            return self._reject(Cause.QUEUE, wait_s, excess_s, now)
        return None

    def give_back(self, permit: Permit, spent_s: float | None = None) -> None:
        """The call has ended; `spent_s` of a match thread, where it completed there."""
        assert not permit._returned, "a permit is given back once"
        permit._returned = True
        self._enter(permit, -1)
        if spent_s is not None:
            self._service.learn(permit.demand.weight, spent_s)

    def expired(self) -> None:
        """Count a call whose deadline passed after it was admitted."""
        self._expired += 1

    def cancelled(self) -> None:
        """Count a call that its client cancelled after it was admitted."""
        self._cancelled += 1

    def wait_s(self, priority: Priority) -> float:
        """Estimated time in the queue before a match thread takes a call of this priority."""
        if priority is Priority.BULK:
            return sum(self._cost_s.values()) / self._bounds.workers
        share = 1 - 1 / BULK_PARTS if self._calls[Priority.BULK] else 1.0
        return self._cost_s[priority] / share / self._bounds.workers

    @property
    def counts(self) -> AdmissionCounts:
        """A copy of the counters."""
        return AdmissionCounts(
            admitted=self._admitted,
            items=self._admitted_items,
            refused=dict(self._refused),
            expired=self._expired,
            cancelled=self._cancelled,
            in_flight=sum(self._calls.values()),
            items_in_flight=self._items,
            bytes_in_flight=self._bytes,
            waiting_s=self.wait_s(Priority.BULK),
        )

    # ------------------------------------------------------------ accounts

    def _enter(self, permit: Permit, sign: int) -> None:
        priority, weight = permit.demand.priority, permit.demand.weight
        self._calls[priority] += sign
        self._items += sign * weight.items
        self._bytes += sign * weight.nbytes
        self._cost_s[priority] += sign * permit.cost_s
        if self._calls[priority] == 0:
            self._cost_s[priority] = 0.0  # and not what rounding left

    def _has_space(self, demand: Demand) -> bool:
        """Bulk leaves room for interactive calls; they leave none for bulk."""
        part, weight = self._part(demand.priority), demand.weight
        items, nbytes = self._items + weight.items, self._bytes + weight.nbytes
        return items <= part * self._bounds.items_max and nbytes <= part * self._bounds.bytes_max

    @staticmethod
    def _part(priority: Priority) -> float:
        return BULK_PART if priority is Priority.BULK else 1.0

    # ------------------------------------------------------------ retry hints

    def _reject(self, cause: Cause, wait_s: float, until_room_s: float, now: float) -> Rejection:
        """The hint is when there will be room, behind the calls that were given a hint before."""
        until_s = max(until_room_s, 0.0) + self._hinted_s(now) / self._bounds.workers
        hint_ms = 1_000 * until_s * (1 + _JITTER * self._jitter())
        return Rejection(cause, wait_s, int(min(max(hint_ms, RETRY_MS_MIN), RETRY_MS_MAX)))

    def _hinted_s(self, now: float) -> float:
        """Seconds of rejected work whose hint is not yet due: a bucket that leaks as fast as the
        workers work."""
        leaked = (now - self._rejected_at) * self._bounds.workers
        return max(0.0, self._rejected_s - leaked)

    def _note_rejected(self, demand: Demand, now: float) -> None:
        full = RETRY_MS_MAX / 1_000 * self._bounds.workers
        self._rejected_s = min(self._hinted_s(now) + self._service.of(demand.weight), full)
        self._rejected_at = now
