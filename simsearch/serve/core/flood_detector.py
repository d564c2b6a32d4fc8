"""Flood detector: an entry with far more near hits in a minute than in a usual one.

Such an entry probably matches what it should not: a plain picture, a greeting. Only near hits
count, those without an equal digest: copies of a banned file, however many, do not lift its ban.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

WINDOW_S: Final = 60.0

USUAL_S: Final = 6 * 3_600.0
"""Time constant of the usual rate, an exponential average: a rate that doubles every hour stays
within six times of it."""

LEARN_S: Final = 600.0
"""Time after a start without floods: there is no usual rate yet."""

HITS_MIN: Final = 0.05
"""An entry whose decayed hits fall to this is dropped: one hit decays to it in 18 hours."""


@dataclass(frozen=True)
class Flood:
    """An entry with its near hits in the last minute, and in a usual one."""

    key: int
    near_hits: int
    usual: float

    @property
    def description(self) -> str:
        """The two numbers, as a reason for the record."""
        return f"{self.near_hits:,} near hits in a minute, {self.usual:,.0f} in a usual one"


@dataclass
class _Rate:
    """The hits of the last minute by time, and the decayed number of those before, at `as_of`."""

    recent: deque[tuple[float, int]] = field(default_factory=deque)
    in_window: int = 0
    before: float = 0.0
    as_of: float = 0.0

    def add(self, now: float, hits: int) -> None:
        self.recent.append((now, hits))
        self.in_window += hits

    def advance(self, now: float) -> None:
        """Move hits older than a minute into the decayed number."""
        self.before *= _decay(now - self.as_of)
        self.as_of = now
        while self.recent and self.recent[0][0] <= now - WINDOW_S:
            at, hits = self.recent.popleft()
            self.in_window -= hits
            self.before += hits * _decay(now - WINDOW_S - at)


class FloodDetector:
    """Counts near hits by entry. A flood is more than `near_hits_per_minute` and more than
    `times_usual` times the usual rate before this minute. Not safe to use from two threads."""

    def __init__(
        self,
        near_hits_per_minute: int,
        times_usual: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: seconds, from any start."""
        self._floor = near_hits_per_minute
        self._times_usual = times_usual
        self._clock = clock
        self._last = clock()
        self._now = 0.0
        self._swept = 0.0
        self._rates: dict[int, _Rate] = {}

    def update(self, near: Mapping[int, int]) -> list[Flood]:
        """Add the near hits by entry key since the last update, and return the floods among these
        entries. To be called every second or so."""
        share = self._advance_clock()
        for key, hits in near.items():
            rate = self._rates.setdefault(key, _Rate(as_of=self._now))
            rate.add(self._now, round(hits * share))
            rate.advance(self._now)
        self._sweep()
        if self._now < LEARN_S + WINDOW_S:
            return []
        floods = (Flood(key, self._rates[key].in_window, self.usual(key)) for key in near)
        return [flood for flood in floods if self._is_flood(flood)]

    def usual(self, key: int) -> float:
        """Near hits of an entry in a usual minute, as of the last update: those since the start and
        before the last minute, recent ones weighted most."""
        observed = self._now - WINDOW_S
        rate = self._rates.get(key)
        if rate is None or observed <= 0:
            return 0.0
        before = rate.before * _decay(self._now - rate.as_of)
        return WINDOW_S * before / (USUAL_S * (1 - _decay(observed)))

    def forget_minute(self, key: int) -> None:
        """Drop the last minute of an entry whose flood was handled, so that it is neither reported
        again nor counted as usual."""
        if rate := self._rates.get(key):
            rate.recent.clear()
            rate.in_window = 0

    @property
    def entries(self) -> int:
        """Number of entries with a rate."""
        return len(self._rates)

    def _is_flood(self, flood: Flood) -> bool:
        return flood.near_hits > max(self._floor, self._times_usual * flood.usual)

    def _advance_clock(self) -> float:
        """Advance by the time since the last update, a minute at most, and return the share of the
        hits that falls into it: a clock that jumps or a machine that slept makes no flood."""
        now = self._clock()
        passed = max(0.0, now - self._last)
        self._last = now
        self._now += min(passed, WINDOW_S)
        return min(1.0, WINDOW_S / passed) if passed else 1.0

    def _sweep(self) -> None:
        """Once a minute, drop the entries whose hits have decayed."""
        if self._now < self._swept + WINDOW_S:
            return
        self._swept = self._now
        for rate in self._rates.values():
            rate.advance(self._now)
        self._rates = {
            key: rate for key, rate in self._rates.items() if rate.recent or rate.before > HITS_MIN
        }


def _decay(seconds: float) -> float:
    """The weight that remains after so many seconds."""
    return math.exp(-seconds / USUAL_S)
