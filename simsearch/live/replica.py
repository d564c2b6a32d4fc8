"""A replica: the rows of one state of the bank, moved along its log by one thread.

Everything in it comes from the bank, so it can be thrown away and loaded again at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from simsearch.bank.state_reader import Reading
from simsearch.bank.store import BankStore
from simsearch.errors import BadSnapshot
from simsearch.index.gpu.gpu_view import Gpus
from simsearch.index.snapshot.loader import Manifest, open_snapshot
from simsearch.live.indexes import Added, LiveRows
from simsearch.live.view import View
from simsearch.types import Bank, Change, ChangeKind, Fingerprint

LOAD_ENTRIES = 4096
CHANGES_AT_ONCE = 128
"""A step is Python throughout, about 10 ms of it: searches beside it wait no longer than that."""


class Intake:
    """Lets through the rows of the spaces that can be asked in, and counts the others.

    `spaces` None: all. Rows that nobody can ask about would cost memory, and say in no answer
    that they were left out: a bank that has a rule for such a space is answered as incomplete.
    """

    def __init__(self, spaces: Container[str] | None, uncounted: Collection[str] = ()) -> None:
        self._spaces = spaces
        self._uncounted = uncounted
        self.aside: Counter[str] = Counter()

    def wants(self, space: str) -> bool:
        return self._spaces is None or space in self._spaces

    def served(self, added: Sequence[Added]) -> list[Added]:
        self.count((f for _, _, f in added), 1)
        return [(key, bank, self._served(f)) for key, bank, f in added]

    def count(self, fingerprints: Iterable[Fingerprint], sign: int) -> None:
        """Their rows that are left aside, as come (1) or gone (-1)."""
        for fingerprint in fingerprints:
            for space, rows in fingerprint.vectors.items():
                self.put_aside(space, sign * len(rows))

    def put_aside(self, space: str, rows: int) -> None:
        if not self.wants(space) and space not in self._uncounted:
            self.aside[space] += rows

    def _served(self, fingerprint: Fingerprint) -> Fingerprint:
        vectors = fingerprint.vectors
        if not vectors:
            return fingerprint
        return replace(fingerprint, vectors={s: v for s, v in vectors.items() if self.wants(s)})


class Replica:
    """Load one, then `step` until there is nothing more; `view` is what searches get."""

    def __init__(
        self,
        store: BankStore,
        rows: LiveRows,
        intake: Intake,
        seq: int,
        banks: Sequence[Bank],
        snapshot: str,
    ) -> None:
        self._store = store
        self._rows = rows
        self._intake = intake
        self._seq = seq
        self._banks = banks
        self._snapshot = snapshot

    @classmethod
    def from_bank(cls, store: BankStore, spaces: Container[str] | None = None) -> Replica:
        """Every active entry of the bank as it is now; of `spaces`, where they are given."""
        rows, intake = LiveRows(), Intake(spaces)
        with store.reading() as reading:
            for chunk in _chunks(reading.active_entries(), LOAD_ENTRIES):
                rows.append(intake.served(chunk))
            return cls(store, rows, intake, reading.seq, reading.banks(), f"bank-{reading.seq}")

    @classmethod
    def from_snapshot(
        cls,
        store: BankStore,
        path: Path,
        spaces: Container[str] | None = None,
        gpus: Gpus | None = None,
    ) -> Replica:
        """The rows of a snapshot of this bank, of `spaces` where they are given and on `gpus` as
        far as they can be; `step` then applies what was edited since.

        Raises BadSnapshot, NewerFormat.
        """
        snapshot = open_snapshot(path)
        manifest = snapshot.manifest
        intake = Intake(spaces, uncounted=manifest.without)
        _require_served(manifest, intake)
        with store.reading() as reading:
            if manifest.store_id != store.store_id or manifest.built_through > reading.seq:
                raise BadSnapshot(
                    f"snapshot {manifest.id} was built from another bank than this one: "
                    "build one with simsearch-build run"
                )
            banks = reading.banks()
        for part in manifest.spaces:
            intake.put_aside(part.space, part.count)
        rows = LiveRows.of(snapshot, spaces, gpus)
        return cls(store, rows, intake, manifest.built_through, banks, manifest.id)

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
        aside = {space: rows for space, rows in self._intake.aside.items() if rows}
        return View(self._seq, self._snapshot, by_name, cosine, hamming, self._store, aside)

    def step(self) -> bool:
        """Apply the next changes; False where there are none."""
        if self._store.seq() == self._seq:
            return False
        with self._store.reading() as reading:
            changes = reading.changes(self._seq, CHANGES_AT_ONCE)
            if not changes:
                return False
            added = _added(reading, changes)
            gone = [c for c in changes if c.kind is ChangeKind.ENTRY_RETRACTED]
            self._rows.append(self._intake.served(added))
            if gone and self._intake.aside:
                ended = reading.fingerprints([c.entry_key for c in gone])
                self._intake.count(ended.values(), -1)
            self._banks = reading.banks()
        if gone:
            self._rows.retire([c.entry_key for c in gone], [c.seq for c in gone])
            self._rows.compact(self._seq)
        self._seq = changes[-1].seq
        self._rows.tend(self._seq)
        return True

    def tend(self) -> bool:
        """What is done while nothing is edited; True where a new view is searched faster."""
        return self._rows.tend(self._seq)

    def settle(self) -> None:
        """Wait until no rows are left that should be sealed."""
        self._rows.settle(self._seq)


def _added(reading: Reading, changes: Sequence[Change]) -> list[Added]:
    """What each change brought, and no other: an entry that was extended comes in parts."""
    grown = [c for c in changes if c.kind in (ChangeKind.ENTRY_ADDED, ChangeKind.ENTRY_EXTENDED)]
    fingerprints = reading.brought(grown)
    return [(c.entry_key, c.bank_id, f) for c, f in zip(grown, fingerprints, strict=True)]


def _require_served(manifest: Manifest, intake: Intake) -> None:
    """A space that was left out of the snapshot and is asked in would miss in silence."""
    for space in manifest.without:
        if intake.wants(space):
            raise BadSnapshot(
                f"snapshot {manifest.id} was built without the space {space}, which this server "
                "has an encoder for: build one with it (simsearch-build run), or take the encoder "
                "out of the configuration and restart"
            )


def _chunks(entries: Iterator[Added], size: int) -> Iterator[list[Added]]:
    while chunk := list(islice(entries, size)):
        yield chunk
