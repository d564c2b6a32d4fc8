"""A replica: the rows of one state of the bank, moved along its log by one thread.

Everything in it comes from the bank, so it can be discarded and loaded again at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from simsearch.bank.state_reader import StateReader
from simsearch.bank.store import BankStore
from simsearch.errors import BadSnapshot
from simsearch.index.gpu.gpu_view import Gpus
from simsearch.index.snapshot.loader import Manifest, open_snapshot
from simsearch.live.indexes import Added, LiveIndexes
from simsearch.live.view import View
from simsearch.types import Bank, Change, ChangeKind, Fingerprint

LOAD_ENTRIES = 4096
CHANGES_AT_ONCE = 128
"""A step holds the interpreter lock for about 10 ms, which searches may wait. Small steps are part
of benchmarks/README.md, index_swap."""


class SpaceFilter:
    """Drops the rows of spaces that no loaded encoder serves, and counts them.

    `spaces` None: all are served. Rows of `uncounted` spaces are dropped without a count. Dropped
    rows cannot be searched: results of a bank with a rule for such a space are marked incomplete.
    """

    def __init__(self, spaces: Container[str] | None, uncounted: Collection[str] = ()) -> None:
        self._spaces = spaces
        self._uncounted = uncounted
        self.unsearchable: Counter[str] = Counter()

    def serves(self, space: str) -> bool:
        """Whether rows of this space are kept."""
        return self._spaces is None or space in self._spaces

    def filtered(self, added: Sequence[Added]) -> list[Added]:
        """`added` without the rows of other spaces, which are counted."""
        self.count((f for _, _, f in added), 1)
        return [(key, bank, self._without_others(f)) for key, bank, f in added]

    def count(self, fingerprints: Iterable[Fingerprint], sign: int) -> None:
        """Count their dropped rows as added (`sign` 1) or removed (-1)."""
        for fingerprint in fingerprints:
            for space, rows in fingerprint.vectors.items():
                self.count_rows(space, sign * len(rows))

    def count_rows(self, space: str, rows: int) -> None:
        """Add `rows` to the count of this space, if it is not served."""
        if not self.serves(space) and space not in self._uncounted:
            self.unsearchable[space] += rows

    def _without_others(self, fingerprint: Fingerprint) -> Fingerprint:
        vectors = fingerprint.vectors
        if not vectors:
            return fingerprint
        return replace(fingerprint, vectors={s: v for s, v in vectors.items() if self.serves(s)})


class Replica:
    """In-memory replica of the bank's active entries. Load one, then `step` until there is nothing
    more; `view` is the immutable result."""

    def __init__(
        self,
        store: BankStore,
        rows: LiveIndexes,
        space_filter: SpaceFilter,
        seq: int,
        banks: Sequence[Bank],
        snapshot: str,
    ) -> None:
        self._store = store
        self._rows = rows
        self._space_filter = space_filter
        self._seq = seq
        self._banks = banks
        self._snapshot = snapshot

    @classmethod
    def from_bank(cls, store: BankStore, spaces: Container[str] | None = None) -> Replica:
        """All active entries of the bank as it is now; of `spaces`, where they are given."""
        rows, space_filter = LiveIndexes(), SpaceFilter(spaces)
        with store.reading() as reading:
            for chunk in reading.active_chunks(LOAD_ENTRIES):
                rows.append(space_filter.filtered(chunk))
            return cls(
                store, rows, space_filter, reading.seq, reading.banks(), f"bank-{reading.seq}"
            )

    @classmethod
    def from_snapshot(
        cls,
        store: BankStore,
        path: Path,
        spaces: Container[str] | None = None,
        gpus: Gpus | None = None,
    ) -> Replica:
        """The rows of a snapshot of this bank, of `spaces` where they are given, on `gpus` where
        possible; `step` then applies later edits.

        Raises BadSnapshot, NewerFormat.
        """
        snapshot = open_snapshot(path)
        manifest = snapshot.manifest
        space_filter = SpaceFilter(spaces, uncounted=manifest.without)
        _require_spaces(manifest, space_filter)
        with store.reading() as reading:
            if manifest.store_id != store.store_id or manifest.built_through > reading.seq:
                raise BadSnapshot(
                    f"snapshot {manifest.id} was built from another bank than this one: "
                    "build one with simsearch-build run"
                )
            banks = reading.banks()
        for part in manifest.spaces:
            space_filter.count_rows(part.space, part.count)
        rows = LiveIndexes.of(snapshot, spaces, gpus)
        return cls(store, rows, space_filter, manifest.built_through, banks, manifest.id)

    @property
    def seq(self) -> int:
        """The log position up to which changes are applied."""
        return self._seq

    @property
    def snapshot(self) -> str:
        """The id of the snapshot it was loaded from, or `bank-<seq>`."""
        return self._snapshot

    def view(self) -> View:
        """The view at `seq`."""
        cosine, hamming = self._rows.freeze(self._seq)
        by_name = {bank.name: bank for bank in self._banks}
        unsearchable = {
            space: rows for space, rows in self._space_filter.unsearchable.items() if rows
        }
        return View(self._seq, self._snapshot, by_name, cosine, hamming, self._store, unsearchable)

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
            self._rows.append(self._space_filter.filtered(added))
            if gone and self._space_filter.unsearchable:
                ended = reading.fingerprints([c.entry_key for c in gone])
                self._space_filter.count(ended.values(), -1)
            self._banks = reading.banks()
        if gone:
            self._rows.retire([c.entry_key for c in gone], [c.seq for c in gone])
            self._rows.compact(self._seq)
        self._seq = changes[-1].seq
        self._rows.maintain(self._seq)
        return True

    def maintain(self) -> bool:
        """Adopt and start sealing of rows; True where a new view is searched faster."""
        return self._rows.maintain(self._seq)

    def wait_until_sealed(self) -> None:
        """Wait until no rows are left that should be sealed."""
        self._rows.wait_until_sealed(self._seq)


def _added(reading: StateReader, changes: Sequence[Change]) -> list[Added]:
    """What each change brought, and no other: an entry that was extended comes in parts."""
    grown = [c for c in changes if c.kind in (ChangeKind.ENTRY_ADDED, ChangeKind.ENTRY_EXTENDED)]
    fingerprints = reading.fingerprints_of_changes(grown)
    return [(c.entry_key, c.bank_id, f) for c, f in zip(grown, fingerprints, strict=True)]


def _require_spaces(manifest: Manifest, space_filter: SpaceFilter) -> None:
    """Raises BadSnapshot where the snapshot lacks a space that is served: its matches would be
    missed without a report."""
    for space in manifest.without:
        if space_filter.serves(space):
            raise BadSnapshot(
                f"snapshot {manifest.id} was built without the space {space}, which this server "
                "has an encoder for: build one with it (simsearch-build run), or take the encoder "
                "out of the configuration and restart"
            )
