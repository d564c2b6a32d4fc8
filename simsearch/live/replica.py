"""A replica: the rows of one state of the bank, moved along its log by one thread.

Everything in it comes from the bank, so it can be thrown away and loaded again at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from simsearch.bank.reading import Reading
from simsearch.bank.store import BankStore
from simsearch.errors import BadSnapshot
from simsearch.index.snapshot import open_snapshot
from simsearch.live.rows import Added, LiveRows
from simsearch.live.view import View
from simsearch.types import Bank, Change, ChangeKind

LOAD_ENTRIES = 4096
CHANGES_AT_ONCE = 1024


class Replica:
    """Load one, then `step` until there is nothing more; `view` is what searches get."""

    def __init__(
        self, store: BankStore, rows: LiveRows, seq: int, banks: Sequence[Bank], snapshot: str
    ) -> None:
        self._store = store
        self._rows = rows
        self._seq = seq
        self._banks = banks
        self._snapshot = snapshot

    @classmethod
    def from_bank(cls, store: BankStore) -> Replica:
        """Every active entry of the bank as it is now."""
        rows = LiveRows()
        with store.reading() as reading:
            for chunk in _chunks(reading.active_entries(), LOAD_ENTRIES):
                rows.append(chunk)
            return cls(store, rows, reading.seq, reading.banks(), f"bank-{reading.seq}")

    @classmethod
    def from_snapshot(cls, store: BankStore, path: Path) -> Replica:
        """The rows of a snapshot of this bank; `step` then applies what was edited since.

        Raises BadSnapshot, NewerFormat.
        """
        snapshot = open_snapshot(path)
        manifest = snapshot.manifest
        with store.reading() as reading:
            if manifest.store_id != store.store_id or manifest.built_through > reading.seq:
                raise BadSnapshot(
                    f"snapshot {manifest.id} was built from another bank than this one: "
                    "build one with simsearch-build run"
                )
            banks = reading.banks()
        return cls(store, LiveRows.of(snapshot), manifest.built_through, banks, manifest.id)

    @property
    def seq(self) -> int:
        return self._seq

    @property
    def snapshot(self) -> str:
        """What it was loaded from."""
        return self._snapshot

    def view(self) -> View:
        cosine, hamming = self._rows.freeze(self._seq)
        by_name = {bank.name: bank for bank in self._banks}
        return View(self._seq, self._snapshot, by_name, cosine, hamming, self._store)

    def step(self) -> bool:
        """Apply the next changes; False where there are none."""
        if self._store.seq() == self._seq:
            return False
        with self._store.reading() as reading:
            changes = reading.changes(self._seq, CHANGES_AT_ONCE)
            if not changes:
                return False
            added = _added(reading, changes)
            self._banks = reading.banks()
        self._rows.append(added)
        gone = [c for c in changes if c.kind is ChangeKind.ENTRY_RETRACTED]
        if gone:
            self._rows.retire([c.entry_key for c in gone], [c.seq for c in gone])
            self._rows.compact(self._seq)
        self._seq = changes[-1].seq
        return True


def _added(reading: Reading, changes: Sequence[Change]) -> list[Added]:
    new = [c for c in changes if c.kind is ChangeKind.ENTRY_ADDED]
    prints = reading.fingerprints([c.entry_key for c in new])
    return [(c.entry_key, c.bank_id, prints[c.entry_key]) for c in new]


def _chunks(entries: Iterator[Added], size: int) -> Iterator[list[Added]]:
    while chunk := list(islice(entries, size)):
        yield chunk
