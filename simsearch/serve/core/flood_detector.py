"""When the hits of an entry are a flood: far more in a minute than in a usual one. Pure.

It is for entries that match what they should not: a plain picture, a greeting. Only near hits
count, those without an equal digest: no number of copies of one file takes its own ban away.
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
"""Time constant of what is usual: a rate that doubles in an hour stays within six times of it."""

LEARN_S: Final = 600.0
"""For so long after a start nothing is a flood: nobody knows yet what is usual."""

FORGOTTEN_HITS: Final = 0.05
"""What is left of an entry's hits when it is forgotten: of one hit, after 18 hours."""


@dataclass(frozen=True)
class Flood:
    """Near hits of an entry in the last minute, and in a usual one."""

    key: int
    near_hits: int
    usual: float

    @property
    def words(self) -> str:
        return f"{self.near_hits:,} near hits in a minute, {self.usual:,.0f} in a usual one"


@dataclass
class _Rate:
    """The hits of the last minute by their time, and what is left of those before at `as_of`."""

    recent: deque[tuple[float, int]] = field(default_factory=deque)
    in_window: int = 0
    before: float = 0.0
    as_of: float = 0.0

    def add(self, now: float, hits: int) -> None:
        self.recent.append((now, hits))
        self.in_window += hits

    def settle(self, now: float) -> None:
        """Lets what is older than a minute become a part of what is usual."""
        self.before *= _left(now - self.as_of)
        self.as_of = now
        while self.recent and self.recent[0][0] <= now - WINDOW_S:
            at, hits = self.recent.popleft()
            self.in_window -= hits
            self.before += hits * _left(now - WINDOW_S - at)


class FloodDetector:
    """Told of near hits every second or so. A flood is over `near_hits_per_minute` and over
    `times_usual` times what was usual before this minute. For one thread."""

    def __init__(
        self,
        near_hits_per_minute: int,
        times_usual: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._floor = near_hits_per_minute
        self._times_usual = times_usual
        self._clock = clock
        self._last = clock()
        self._now = 0.0
        self._swept = 0.0
        self._rates: dict[int, _Rate] = {}

    def look(self, near: Mapping[int, int]) -> list[Flood]:
        """`near`: by entry key the near hits since the last look."""
        share = self._pass_time()
        for key, hits in near.items():
            rate = self._rates.setdefault(key, _Rate(as_of=self._now))
            rate.add(self._now, round(hits * share))
            rate.settle(self._now)
        self._sweep()
        if self._now < LEARN_S + WINDOW_S:
            return []
        floods = (Flood(key, self._rates[key].in_window, self.usual(key)) for key in near)
        return [flood for flood in floods if self._is_flood(flood)]

    def usual(self, key: int) -> float:
        """Near hits in a usual minute, as of the last look: what came since the start and before
        the last minute, the older of it the less."""
        observed = self._now - WINDOW_S
        rate = self._rates.get(key)
        if rate is None or observed <= 0:
            return 0.0
        before = rate.before * _left(self._now - rate.as_of)
        return WINDOW_S * before / (USUAL_S * (1 - _left(observed)))

    def forget_minute(self, key: int) -> None:
        """The flood was dealt with: its hits are neither usual nor a flood again."""
        if rate := self._rates.get(key):
            rate.recent.clear()
            rate.in_window = 0

    @property
    def entries(self) -> int:
        """How many are remembered."""
        return len(self._rates)

    def _is_flood(self, flood: Flood) -> bool:
        return flood.near_hits > max(self._floor, self._times_usual * flood.usual)

    def _pass_time(self) -> float:
        """The time since the last look, a minute at most; which share of the hits fell into it. So
        neither a clock that jumps nor a machine that slept makes a flood."""
        now = self._clock()
        passed = max(0.0, now - self._last)
        self._last = now
        self._now += min(passed, WINDOW_S)
        return min(1.0, WINDOW_S / passed) if passed else 1.0

    def _sweep(self) -> None:
        """Once a minute: those that were hit long ago are forgotten."""
        if self._now < self._swept + WINDOW_S:
            return
        self._swept = self._now
        for rate in self._rates.values():
            rate.settle(self._now)
        self._rates = {
            key: rate
            for key, rate in self._rates.items()
            if rate.recent or rate.before > FORGOTTEN_HITS
        }


def _left(seconds: float) -> float:
    """The share that is left of something usual after so long."""
    return math.exp(-seconds / USUAL_S)
