"""Older form count: how many entries of each bank have texts in the older normal form alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from simsearch.bank.store import BankStore
from simsearch.encode.text_signals import is_of_older_form
from simsearch.types import Entry, EntryState, Signal

PAGE_ENTRIES: Final = 1000
REST: Final = 50
"""A count is made again no sooner than after this many times as long as it took: it reads the
record of every entry, and a status may be asked for every second."""


class OlderFormCount:
    """Counts when it is asked and the last count is old. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Mapping[str, int] = {}
        self._seq = -1
        self._not_before = 0.0

    def of(self, store: BankStore) -> Mapping[str, int]:
        """By the names of banks."""
        with self._lock:
            began, seq = self._clock(), store.seq()
            if seq != self._seq and began >= self._not_before:
                self._counts = {bank.name: _counted(store, bank.name) for bank in store.banks()}
                self._seq, ended = seq, self._clock()
                self._not_before = ended + REST * (ended - began)
            return self._counts


def _counted(store: BankStore, bank: str) -> int:
    return sum(_is_of_older_form_alone(entry) for entry in _entries(store, bank))


def _entries(store: BankStore, bank: str) -> Iterator[Entry]:
    after_key = 0
    while page := store.list_entries(bank, after_key=after_key, limit=PAGE_ENTRIES):
        yield from page
        after_key = page[-1].key


def _is_of_older_form_alone(entry: Entry) -> bool:
    if entry.state is EntryState.RETRACTED or Signal.TEXT_LIGHT_SHA256 in entry.signals:
        return False
    return any(map(is_of_older_form, entry.signals))
