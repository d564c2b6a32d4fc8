"""How often each entry is hit: counted on the way, written every few seconds, and watched for
floods, of which the entry is put into quarantine."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from simsearch.bank.store import BankStore
from simsearch.config import FeedbackConfig
from simsearch.errors import SimsearchError
from simsearch.serve.core.counters import BANKS_MAX, OTHER_BANKS
from simsearch.serve.core.flood_detector import Flood, FloodDetector
from simsearch.telemetry import EventLog
from simsearch.types import Band, Hit, HitCounts, MatchResult

if TYPE_CHECKING:
    from simsearch.match.matcher import Outcome

log = EventLog(__name__)

LOOK_S: Final = 1.0
FLUSH_S: Final = 5.0
RETRY_S: Final = 10.0
"""Between two tries to quarantine an entry."""

ENTRIES_AT_ONCE: Final = 4_096
"""Whose counts one transaction writes: edits wait for it."""

_FIRST: Final = {
    Band.BLOCK: HitCounts(block=1),
    Band.REVIEW: HitCounts(review=1),
    Band.LOG: HitCounts(log=1),
}


class HitCounter:
    """Hits by entry since they were last taken. Safe to use from any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[int, HitCounts] = {}
        self._near: Counter[int] = Counter()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Where nothing was hit, as mostly, this costs a look at each and no lock."""
        hit = [o for o in outcomes if isinstance(o, MatchResult) and (o.hits or o.shadow)]
        if not hit:
            return
        now_us = time.time_ns() // 1000
        counted = [(h.entry_key, _counts_of(h, now_us)) for o in hit for h in o.hits]
        counted += [(h.entry_key, HitCounts(shadow=1)) for o in hit for h in o.shadow]
        with self._lock:
            self._add(counted)
            self._near.update(key for key, counts in counted if counts.near)

    def take(self) -> dict[int, HitCounts]:
        """What is to be written; from now on it is not held here."""
        with self._lock:
            taken, self._counts = self._counts, {}
        return taken

    def put_back(self, counts: Mapping[int, HitCounts]) -> None:
        """What could not be written."""
        with self._lock:
            self._add(counts.items())

    def take_near(self) -> Counter[int]:
        """Near hits by entry since the last time."""
        with self._lock:
            taken, self._near = self._near, Counter()
        return taken

    def held(self, key: int) -> HitCounts:
        """Of one entry, what is not written yet."""
        return self._counts.get(key, HitCounts())

    def _add(self, counted: Iterable[tuple[int, HitCounts]]) -> None:
        for key, counts in counted:
            held = self._counts.get(key)
            self._counts[key] = held + counts if held else counts


def hit_counts_of(
    store: BankStore, counter: HitCounter, keys: Sequence[int]
) -> dict[int, HitCounts]:
    """Written or not."""
    return {key: written + counter.held(key) for key, written in store.hits(keys).items()}


def _counts_of(hit: Hit, now_us: int) -> HitCounts:
    first = _FIRST[hit.band]
    return HitCounts(first.block, first.review, first.log, int(is_near(hit)), 0, now_us)


def is_near(hit: Hit) -> bool:
    """Whether no digest was equal: another file, that looks or reads alike."""
    return all(e.cosine is not None or e.hamming is not None for e in hit.evidence)


@dataclass
class _Seen:
    """A flood that is to be dealt with."""

    flood: Flood
    time_us: int
    next_s: float


class HitCountWriter:
    """Looks once a second, in a thread of its own, from `start` to `close`. What is killed loses
    the counts of the last few seconds, and what was usual."""

    def __init__(
        self, store: BankStore, hits: HitCounter, breaker: FloodDetector | None = None
    ) -> None:
        """Without a breaker nothing is a flood."""
        self.quarantines: Counter[str] = Counter()
        """By bank."""
        self._store = store
        self._hits = hits
        self._breaker = breaker
        self._seen: dict[int, _Seen] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hit-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """What was counted is written."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def _run(self) -> None:
        flushed = time.monotonic()
        while not self._stopping.wait(LOOK_S):
            self.look()
            if time.monotonic() >= flushed + FLUSH_S:
                self.flush()
                flushed = time.monotonic()

    def flush(self) -> None:
        """Writes what was counted; what cannot be written is kept, and tried again."""
        counts = iter(self._hits.take().items())
        while some := dict(islice(counts, ENTRIES_AT_ONCE)):
            try:
                self._store.add_hits(some)
            except SimsearchError as fault:  # as of a full bank
                self._hits.put_back(some | dict(counts))
                log.error("hits_not_written", reason=fault.reason, entries=len(some))

    def look(self) -> None:
        """Deals with floods; one that cannot be dealt with is said, and tried again."""
        near = self._hits.take_near()
        if self._breaker is None:
            return
        now_s = time.monotonic()
        for flood in self._breaker.look(near):
            seen = _Seen(flood, time.time_ns() // 1000, now_s)
            self._seen.setdefault(flood.key, seen)
        for seen in [s for s in self._seen.values() if s.next_s <= now_s]:
            self._stop(seen, self._breaker)

    def _stop(self, seen: _Seen, breaker: FloodDetector) -> None:
        flood = seen.flood
        try:
            done = self._store.quarantine_flooding(flood.key, flood.words, seen.time_us)
        except SimsearchError as fault:
            log.error("flood_not_stopped", reason=fault.reason, entry=flood.key)
            seen.next_s += RETRY_S
            return
        del self._seen[flood.key]
        breaker.forget_minute(flood.key)
        if done is None:
            return
        event = "flood_quarantined" if done.change else "flood_left_alone"
        log.warning(
            event,
            bank=done.bank,
            entry=flood.key,
            near_hits=flood.near_hits,
            usual=round(flood.usual),
        )
        if done.change:
            known = done.bank in self.quarantines or len(self.quarantines) < BANKS_MAX
            self.quarantines[done.bank if known else OTHER_BANKS] += 1


def keeper_of(store: BankStore, hits: HitCounter, chosen: FeedbackConfig) -> HitCountWriter:
    """With the breaker that the configuration asks for."""
    floor, times_usual = chosen.flood_near_hits_per_minute, chosen.flood_times_usual
    breaker = FloodDetector(floor, times_usual) if floor and times_usual else None
    return HitCountWriter(store, hits, breaker)
