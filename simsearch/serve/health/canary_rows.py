"""Canary rows: searches for stored entries by their own rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from simsearch.index.index_protocol import CosineMatches, HammingMatches
from simsearch.live.view import View
from simsearch.serve.core.health_state import CheckResult, Component
from simsearch.serve.core.server_core import Core
from simsearch.types import DIGEST_ENTRIES_MAX, DIGESTS, Entry, EntryState, Fingerprint, Signal

SELF_COSINE_MIN: Final = 0.999
"""Least cosine of a stored row to itself, which is rounded to float16 on disk."""

PAGE_ENTRIES: Final = 16
PAGES_MAX: Final = 16
"""Pages read in one probe until every signal has an entry."""

LOOKED_UP_MAX: Final = 16
"""Entries of one signal in one probe: 140,000 a day, every 10 s."""


class StoredRows:
    """Searches for entries by their own rows, page by page of all banks, so that every entry is
    checked in time."""

    def __init__(self, start: Callable[[int], int] = random.randrange) -> None:
        """`start(n)` chooses the first of n banks or keys."""
        self._start = start
        self._bank = 0
        self._after_key: int | None = None
        self._last: dict[str, Entry] = {}

    def check(self, core: Core) -> Iterator[CheckResult]:
        """One result for each signal with rows in the view and an entry on the pages read."""
        view = core.follower.view
        wanted = {name for name in (*view.cosine_views, *view.hamming_views) if _rows(view, name)}
        chosen = self._choose(core, view, wanted)
        keys = {entry.key for entries in chosen.values() for entry in entries}
        fingerprints = core.store.fingerprints(sorted(keys))
        for signal, entries in chosen.items():
            lost = _lost(view, signal, entries, [fingerprints[entry.key] for entry in entries])
            fault = _LOST.format(lost=lost, searched=len(entries)) if lost else ""
            yield CheckResult(Component.INDEX, signal, fault)

    def _choose(self, core: Core, view: View, wanted: set[str]) -> dict[str, list[Entry]]:
        """Entries by signal, digests included: those of the next pages; for a signal without any,
        the last entry that had it."""
        chosen: dict[str, list[Entry]] = {}
        for _ in range(PAGES_MAX):
            for entry in self._next_page(core, view):
                for signal in entry.signals:
                    if signal in wanted or signal in DIGESTS:
                        chosen.setdefault(signal, []).append(entry)
            if wanted <= chosen.keys():
                break
        for signal in wanted - chosen.keys():
            if (last := self._last.get(signal)) and (current := self._reload(core, view, last)):
                chosen[signal] = [current]
        self._last |= {signal: entries[-1] for signal, entries in chosen.items()}
        return {signal: entries[:LOOKED_UP_MAX] for signal, entries in chosen.items()}

    def _next_page(self, core: Core, view: View) -> list[Entry]:
        """The next entries that the view contains; after the last of a bank, the next bank."""
        names = list(view.banks)
        if not names or not view.seq:
            return []
        if self._after_key is None:
            self._bank, self._after_key = self._start(len(names)), self._start(view.seq)
        name = names[self._bank % len(names)]
        page = core.store.list_entries(name, after_key=self._after_key, limit=PAGE_ENTRIES)
        if len(page) == PAGE_ENTRIES:
            self._after_key = page[-1].key
        else:
            self._bank, self._after_key = (self._bank + 1) % len(names), 0
        return [entry for entry in page if _is_visible(entry, view)]

    def _reload(self, core: Core, view: View, last: Entry) -> Entry | None:
        entry = core.store.entries_by_key([last.key]).get(last.key)
        return entry if entry and _is_visible(entry, view) else None


_LOST: Final = (
    "{lost} of {searched} stored entries are not found by their own rows: restart; if it stays, "
    "go back to the snapshot before (simsearch-build rollback) and check the bank"
)


def _rows(view: View, signal: str) -> int:
    if signal in view.cosine_views:
        return len(view.cosine_views[signal])
    return len(view.hamming_views[Signal(signal)])


def _is_visible(entry: Entry, view: View) -> bool:
    """Whether the view surely contains the entry: it has not changed since the view was made."""
    return entry.state is EntryState.ACTIVE and entry.last.seq <= view.seq


def _lost(
    view: View, signal: str, entries: Sequence[Entry], fingerprints: Sequence[Fingerprint]
) -> int:
    """The number of entries that a search for their first row misses; truncated results are not
    counted."""
    if signal in DIGESTS:
        digests = [(Signal(signal), stored.digests[Signal(signal)][0]) for stored in fingerprints]
        holders = view.find_digests(digests)
        return sum(not _is_among(e, held) for e, held in zip(entries, holders, strict=True))
    found: CosineMatches | HammingMatches
    if index := view.cosine_views.get(signal):
        rows = np.vstack([stored.vectors[signal][:1] for stored in fingerprints])
        found = index.search(rows, {entry.bank_id: SELF_COSINE_MIN for entry in entries})
    else:
        binary = Signal(signal)
        bits = np.vstack([stored.bits[binary][:1] for stored in fingerprints])
        ceilings = {entry.bank_id: 0 for entry in entries}
        found = view.hamming_views[binary].search(bits, ceilings)
    return sum(
        entry.key not in found.key[found.query == number] and not found.truncated[number]
        for number, entry in enumerate(entries)
    )


def _is_among(entry: Entry, holders: Sequence[tuple[int, int]]) -> bool:
    """Of a digest; where there are more than a look-up gives, it may be."""
    return (entry.key, entry.bank_id) in holders or len(holders) >= DIGEST_ENTRIES_MAX
