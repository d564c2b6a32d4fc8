"""Fingerprint cache: content that was seen before, or that another call is encoding, is not encoded
again.

The key is what a fingerprint depends on: the kind of content, its bytes and the wanted signals.
The encoders and limits, on which it depends too, stay the same while a server runs.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeAlias

from simsearch.encode.cache.lru import Lru
from simsearch.encode.cache.packing import (
    Packed,
    Packing,
    for_one_caller,
    lasts,
    packed_bytes,
    shared,
)
from simsearch.encode.cache.single_flight import Flight, SingleFlight
from simsearch.encode.digests import content_key
from simsearch.encode.fingerprint import ContentLimits, Outcome, Wanted
from simsearch.encode.registry import EncoderSet
from simsearch.errors import DeadlinePassed, NotReady
from simsearch.types import NO_CALL, CallContext, Content, FileContent, Modality, Signal

JOINS_MAX = 3
"""After this many flights without a result a call stops waiting and computes itself."""

WAIT_S_MAX = 30.0
"""How long a call without a deadline waits for one flight."""

ENTRY_BYTES = 950
"""What an entry takes besides its values; tests/encode/cache measures it."""

Parts: TypeAlias = frozenset[tuple[str, Modality | None]]
"""The wanted signals that one kind of content can have."""

Key: TypeAlias = bytes
"""Cache key: the content's key, then a digest of its wanted parts."""


class FingerprintSource(Protocol):
    """Computes fingerprints for queries, in batches: a Fingerprinter, or a cache of one."""

    @property
    def encoders(self) -> EncoderSet:
        """The encoders it computes with."""
        ...

    @property
    def limits(self) -> ContentLimits:
        """The limits on content."""
        ...

    def query(
        self, contents: Sequence[Content], wanted: Wanted, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        """The fingerprint of each content, or why it has none."""
        ...


@dataclass(frozen=True)
class FingerprintCacheCounts:
    """Lookups of images and texts: found (`hits`), computed (`misses`), or taken from another item
    or call that computed them (`joins`); and the size of the cache."""

    hits: int = 0
    misses: int = 0
    joins: int = 0
    evictions: int = 0
    entries: int = 0
    entry_bytes: int = 0


class FingerprintCache:
    """A cache in front of a Fingerprinter. Its results are shared between calls and read-only. Safe
    to call from any number of threads."""

    def __init__(
        self, fingerprints: FingerprintSource, bytes_max: int, single_flight: bool
    ) -> None:
        """`bytes_max` 0: no cache. `single_flight` False: concurrent calls do not wait for each
        other. Equal contents of one call are computed once in any case."""
        self._prints = fingerprints
        spaces = [encoder.space.id for encoder in fingerprints.encoders.with_older if encoder.space]
        self._candidates = {
            modality: [*((str(s), None) for s in Signal), *((space, modality) for space in spaces)]
            for modality in Modality
        }
        self._packing = Packing()
        self._packed = Lru[Packed](bytes_max, lambda packed: packed_bytes(packed) + ENTRY_BYTES)
        self._flights = SingleFlight[Key, Outcome]() if single_flight else None
        self._lock = threading.Lock()
        self._hits = self._misses = self._joins = 0

    @property
    def encoders(self) -> EncoderSet:
        """Those of the Fingerprinter."""
        return self._prints.encoders

    @property
    def limits(self) -> ContentLimits:
        """Those of the Fingerprinter."""
        return self._prints.limits

    @property
    def counts(self) -> FingerprintCacheCounts:
        """Totals since the start, and the size of the cache."""
        with self._lock:
            done = (self._hits, self._misses, self._joins)
        packed = self._packed
        return FingerprintCacheCounts(*done, packed.evictions, len(packed), packed.weight)

    def query(
        self, contents: Sequence[Content], wanted: Wanted, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        """The fingerprint of each content, or why it has none. Raises what the encoders raise, and
        DeadlinePassed or NotReady when the call ends while it waits for another."""
        parts = {
            modality: _digest(frozenset(part for part in candidates if part in wanted))
            for modality, candidates in self._candidates.items()
        }
        keys = [_key(content, parts) for content in contents]
        ready = [c for c, key in zip(contents, keys, strict=True) if key is None]
        asked = {key: c for c, key in zip(contents, keys, strict=True) if key is not None}
        self._count(joins=len(contents) - len(ready) - len(asked))
        found = self._outcomes(asked, wanted, call)
        others = iter(self._prints.query(ready, wanted, call) if ready else ())
        return [next(others) if key is None else for_one_caller(found[key]) for key in keys]

    def _outcomes(
        self, asked: Mapping[Key, Content], wanted: Wanted, call: CallContext
    ) -> dict[Key, Outcome]:
        """In rounds: compute what no other call is computing, then wait for the rest. A call never
        waits while others wait for it, so two calls that need each other's contents both end."""
        found: dict[Key, Outcome] = {}
        for _ in range(JOINS_MAX):
            led, joined = self._board([key for key in asked if key not in found], call)
            found |= self._lead(led, asked, wanted, call)
            found |= self._join(joined, call)
            if len(found) == len(asked):
                return found
        rest = {key: Flight[Outcome](call.priority) for key in asked if key not in found}
        return found | self._lead(rest, asked, wanted, call)

    def _board(
        self, keys: Sequence[Key], call: CallContext
    ) -> tuple[dict[Key, Flight[Outcome]], dict[Key, Flight[Outcome]]]:
        if self._flights is None:
            return {key: Flight(call.priority) for key in keys}, {}
        return self._flights.board(keys, call.priority)

    def _lead(
        self,
        led: dict[Key, Flight[Outcome]],
        asked: Mapping[Key, Content],
        wanted: Wanted,
        call: CallContext,
    ) -> dict[Key, Outcome]:
        """Compute, and land every flight, also on an error: then another call leads."""
        found: dict[Key, Outcome] = {}
        try:
            found |= self._cached(led)
            missing = [key for key in led if key not in found]
            self._count(hits=len(found), misses=len(missing))
            contents = [asked[key] for key in missing]
            outcomes = self._prints.query(contents, wanted, call) if missing else []
            for key, outcome in zip(missing, outcomes, strict=True):
                found[key] = shared(outcome)
                if lasts(outcome) and (packed := self._packing.pack(found[key])) is not None:
                    self._packed.put(key, packed)
            return found
        finally:
            for key, flight in led.items():
                self._land(key, flight, found.get(key))

    def _cached(self, keys: Iterable[Key]) -> dict[Key, Outcome]:
        found = ((key, self._packed.get(key)) for key in keys)
        return {key: self._packing.unpack(packed) for key, packed in found if packed is not None}

    def _land(self, key: Key, flight: Flight[Outcome], outcome: Outcome | None) -> None:
        lasting = outcome if outcome is not None and lasts(outcome) else None
        if self._flights is not None:
            self._flights.land(key, flight, lasting)

    def _join(self, joined: Mapping[Key, Flight[Outcome]], call: CallContext) -> dict[Key, Outcome]:
        """The results of those flights that have one. Raises DeadlinePassed, and NotReady where the
        caller is gone."""
        found: dict[Key, Outcome] = {}
        for key, flight in joined.items():
            outcome = flight.wait(call, WAIT_S_MAX)
            if outcome is not None:
                found[key] = outcome
            else:
                _check(call)
        self._count(joins=len(found))
        return found

    def _count(self, hits: int = 0, misses: int = 0, joins: int = 0) -> None:
        with self._lock:
            self._hits += hits
            self._misses += misses
            self._joins += joins


def _check(call: CallContext) -> None:
    if not call.is_wanted():
        raise NotReady("the call was given up while another call encoded the same content")
    if time.monotonic() >= call.deadline:
        raise DeadlinePassed(
            "the deadline passed while another call encoded the same content: give it more time, "
            "or try again when there is less to do"
        )


def _key(content: Content, parts: Mapping[Modality, bytes]) -> Key | None:
    """None for a ready vector or hash: computing costs less than caching."""
    key = content_key(content)
    if key is None:
        return None
    return key + parts[Modality.IMAGE if isinstance(content, FileContent) else Modality.TEXT]


@lru_cache(maxsize=1_024)
def _digest(parts: Parts) -> bytes:
    """16 bytes, the same for equal parts."""
    names = sorted(f"{signal}\0{modality or ''}" for signal, modality in parts)
    return hashlib.sha256("\n".join(names).encode()).digest()[:16]
