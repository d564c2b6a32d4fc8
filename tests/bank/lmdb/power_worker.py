"""The process whose power is cut: it makes a bank store and edits it, and says how far it is.

`python -m tests.bank.lmdb.power_worker SEED EDITS HOW DISK MARKS`
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from simsearch.bank.lmdb import opening
from simsearch.bank.records.fingerprints import fingerprint_to_bytes
from simsearch.bank.store import BankStore
from simsearch.types import Bank, EntryDraft, EntryState, Fingerprint
from tests.bank.worlds import EDIT, POLICY, SPACE, digest_draft, full_draft, unit

STORE = Path("site") / "bank"
"""Where on the disk it is: its parent is made with it."""

WIDE = "wide@000000000000/none/512"

MAP_BYTES = 1 << 16
REOPEN_EVERY = 40

HOW: dict[str, dict[str, Any]] = {
    "as it is": {},
    "nothing synced": {"sync": False},
    "no meta page synced": {"metasync": False},
    "creation not synced": {},
}


class Writer:
    """Edits drawn at random, each told before it is begun and when it is acknowledged."""

    def __init__(self, disk: Path, marks: Path, seed: int) -> None:
        self._path = disk / STORE
        self._marks = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._rng = np.random.default_rng(seed)
        self._number = 0
        self._open()
        self._tell("done")

    def edit(self) -> None:
        self._number += 1
        self._tell("begun")
        banks = self._store.banks()
        if len(banks) < 2:
            self._create(banks)
        else:
            kinds = [self._add, self._extend, self._retract, self._update, self._create]
            kind = kinds[self._rng.choice(len(kinds), p=[0.5, 0.2, 0.2, 0.07, 0.03])]
            kind(banks)
        self._tell("done")
        if self._number % REOPEN_EVERY == 0:
            self._store.close()
            self._open()

    def _open(self) -> None:
        self._store = BankStore.open(self._path, writer=True, map_bytes=MAP_BYTES)

    def _tell(self, what: str) -> None:
        mark = {"edit": self._number, "what": what}
        mark |= state(self._store) if what == "done" else {}
        os.write(self._marks, json.dumps(mark).encode() + b"\n")

    # ------------------------------------------------------------ the edits

    def _create(self, banks: list[Bank]) -> None:
        self._store.create_bank(f"bank-{len(banks)}", "made", POLICY, EDIT)

    def _update(self, banks: list[Bank]) -> None:
        words = "x" * int(self._rng.integers(4_000))
        self._store.update_bank(self._bank(banks), EDIT, description=words)

    def _add(self, banks: list[Bank]) -> None:
        count = int(self._rng.integers(1, 4))
        makers: list[Callable[[int], EntryDraft]] = [small_draft, full_draft, large_draft]
        make = makers[self._rng.choice(3, p=[0.5, 0.44, 0.06])]
        drafts = [make(100 * self._number + n) for n in range(count)]
        self._store.add_entries(self._bank(banks), drafts, EDIT)

    def _extend(self, banks: list[Bank]) -> None:
        bank = self._bank(banks)
        if key := self._entry(bank):
            rows = int(self._rng.choice([1, 300]))  # a value of one page, or of many
            new = Fingerprint(vectors={f"{SPACE}-{self._number}": unit(rows, 4, self._number)})
            self._store.extend_entry(bank, key, new, EDIT)
        else:
            self._add(banks)

    def _retract(self, banks: list[Bank]) -> None:
        bank = self._bank(banks)
        if key := self._entry(bank):
            self._store.retract_entry(bank, key, EDIT)
        else:
            self._add(banks)

    def _bank(self, banks: list[Bank]) -> str:
        return banks[self._rng.integers(len(banks))].name

    def _entry(self, bank: str) -> int:
        """An active one; 0 where there is none."""
        found = self._store.list_entries(bank, limit=10_000, state=EntryState.ACTIVE)
        return found[self._rng.integers(len(found))].key if found else 0


def small_draft(seed: int) -> EntryDraft:
    return digest_draft(str(seed))


def large_draft(seed: int) -> EntryDraft:
    """A fingerprint of 64 KiB: many pages in one value."""
    return EntryDraft(Fingerprint(vectors={WIDE: unit(64, 512, seed)}))


def state(store: BankStore) -> dict[str, Any]:
    """Its log position, and a digest of every record and of what each digest finds."""
    told = hashlib.sha256()
    with store.reading() as reading:
        for bank in reading.banks():
            told.update(repr(bank).encode())
            for entry in store.list_entries(bank.name, limit=10_000):
                (fingerprint,) = reading.fingerprints([entry.key]).values()
                told.update(repr(entry).encode() + fingerprint_to_bytes(fingerprint))
                for signal_, values in fingerprint.digests.items():
                    found = [
                        store.find_digests([(signal_, value)], reading.seq)[0] for value in values
                    ]
                    told.update(repr((signal_, found)).encode())
        told.update(repr(reading.changes(0, 10_000)).encode())
        return {"seq": reading.seq, "state": told.hexdigest()}


def main(seed: str, edits: str, how: str, disk: str, marks: str) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(lmdb, "open", functools.partial(lmdb.open, **HOW[how]))
    if how == "creation not synced":
        patch.setattr(opening, "_sync", lambda _: None)
    writer = Writer(Path(disk), Path(marks), int(seed))
    for _ in range(int(edits)):
        writer.edit()


if __name__ == "__main__":
    main(*sys.argv[1:])
