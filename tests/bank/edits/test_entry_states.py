"""An entry's life: where it may go, what goes back by itself, what every earlier seq sees."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import lmdb
import pytest

from simsearch import errors
from simsearch.bank.audit import verify
from simsearch.bank.edits.entries import MOVES, SERVER_ACTOR
from simsearch.bank.records import keys
from simsearch.bank.store import BankStore
from simsearch.types import ChangeKind, Edit, Entry, EntryDraft, EntryState
from tests.bank.worlds import EDIT, full_draft, store_with_bank

ACTIVE, SHADOW, DRAFT, DISPUTED, QUARANTINED, RETRACTED = (
    EntryState.ACTIVE,
    EntryState.SHADOW,
    EntryState.DRAFT,
    EntryState.DISPUTED,
    EntryState.QUARANTINED,
    EntryState.RETRACTED,
)
LATER_US = 4_000_000_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BankStore]:
    with store_with_bank(tmp_path / "bank") as opened:
        yield opened


def added(store: BankStore, state: EntryState, expires_us: int = 0) -> Entry:
    draft: EntryDraft = replace(full_draft(1), state=state, expires_us=expires_us, severity="B2")
    return store.add_entries("spam", [draft], EDIT)[0]


def test_an_entry_goes_where_it_may_and_nowhere_else(store: BankStore) -> None:
    """Each state from each: the change is on the log, with its name and reason, or nothing is."""
    for start, goal in product(MOVES, EntryState):
        first = start if start not in (DISPUTED, QUARANTINED) else ACTIVE
        key = added(store, first).key
        if first is not start:
            store.move_entry("spam", key, start, EDIT)
        before = store.seq()
        if goal in MOVES[start]:
            entry, change = store.move_entry("spam", key, goal, Edit("bob", "seen"))
            assert change is not None
            assert (change.kind, change.actor, change.seq) == (
                ChangeKind.ENTRY_MOVED,
                "bob",
                before + 1,
            )
            assert entry == store.entry("spam", key)
            assert (entry.state, entry.first_state, entry.last) == (goal, first, change)
        elif goal is start and goal is not DRAFT:
            assert store.move_entry("spam", key, goal, EDIT)[1] is None
            assert store.seq() == before
        else:
            with pytest.raises(errors.BadRequest, match="cannot be"):
                store.move_entry("spam", key, goal, EDIT)
            assert store.seq() == before


def test_every_log_position_has_the_state_of_then(store: BankStore) -> None:
    key = added(store, DRAFT).key
    path = [DRAFT, SHADOW, ACTIVE, QUARANTINED, ACTIVE]
    seqs = [store.seq()]
    for state in path[1:]:
        store.move_entry("spam", key, state, EDIT)
        seqs.append(store.seq())
    entry, _ = store.retract_entry("spam", key, EDIT)
    assert [entry.state_at(seq) for seq in seqs] == path
    assert entry.state_at(store.seq()) is RETRACTED
    assert entry.unretracted_at(store.seq()) is ACTIVE
    assert all(a < b for a, b in pairwise(seqs))
    with pytest.raises(errors.EntryRetracted):
        store.move_entry("spam", key, ACTIVE, EDIT)


def test_what_cannot_begin_or_be_held_is_refused(store: BankStore) -> None:
    for draft, words in (
        (replace(full_draft(1), state=RETRACTED), "cannot begin retracted"),
        (replace(full_draft(1), expires_us=-1), "expires is no time"),
    ):
        with pytest.raises(errors.BadRequest, match=words):
            store.add_entries("spam", [draft], EDIT)
    key = added(store, ACTIVE).key
    with pytest.raises(errors.BadRequest, match="in the past"):
        store.move_entry("spam", key, QUARANTINED, EDIT, until_us=1)
    with pytest.raises(errors.BadRequest, match="no time"):
        store.move_entry("spam", key, QUARANTINED, EDIT, until_us=2**63)


def test_a_quarantine_ends_by_itself_where_it_began(store: BankStore) -> None:
    """At its time and not before, in the state that was before it, on the record, once; also where
    its end was put off, of which the first is then none."""
    keys = [added(store, state).key for state in (ACTIVE, SHADOW, ACTIVE)]
    for key in keys:
        store.move_entry("spam", key, QUARANTINED, EDIT, until_us=LATER_US)
    store.move_entry("spam", keys[2], QUARANTINED, EDIT, until_us=LATER_US + 10)
    before = store.seq()
    assert store.apply_due(LATER_US - 1) == 0
    assert store.apply_due(LATER_US) == 3
    states = [store.entry("spam", key).state for key in keys]
    assert states == [ACTIVE, SHADOW, QUARANTINED]
    assert store.seq() == before + 2
    assert store.apply_due(LATER_US + 10) == 1
    assert store.entry("spam", keys[2]).state is ACTIVE
    change = store.entry("spam", keys[0]).last
    assert (change.actor, change.reason) == (SERVER_ACTOR, "it was quarantined until now")
    assert store.apply_due(LATER_US * 2) == 0


def test_what_was_moved_meanwhile_is_left_alone(store: BankStore) -> None:
    key = added(store, ACTIVE).key
    store.move_entry("spam", key, QUARANTINED, EDIT, until_us=LATER_US)
    store.move_entry("spam", key, ACTIVE, EDIT)
    gone = added(store, ACTIVE, expires_us=LATER_US).key
    store.retract_entry("spam", gone, EDIT)
    before = store.seq()
    assert store.apply_due(LATER_US) == 2
    assert store.seq() == before


def test_a_ban_expires(store: BankStore) -> None:
    """It is retracted, on the record, and its bank counts one less; of many at once, each."""
    count = store.bank("spam").active_entries
    keys = [added(store, state, LATER_US).key for state in (ACTIVE, SHADOW, DRAFT)]
    assert store.apply_due(LATER_US) == 3
    entries = [store.entry("spam", key) for key in keys]
    assert {entry.state for entry in entries} == {RETRACTED}
    assert {entry.last.reason for entry in entries} == {"it was banned until now"}
    assert store.bank("spam").active_entries == count


def test_the_record_of_moves_is_audited(store: BankStore) -> None:
    """An untouched one is whole, whatever goes on meanwhile."""
    key = added(store, ACTIVE, LATER_US).key
    store.move_entry("spam", key, SHADOW, EDIT)
    with store.reading() as reading:
        store.move_entry("spam", key, ACTIVE, EDIT)
        store.apply_due(LATER_US)
        assert verify(reading, store.store_id).faults == ()
    with store.reading() as reading:
        assert verify(reading, store.store_id).faults == ()


def test_a_store_from_before_there_were_such_tables_gets_them(tmp_path: Path) -> None:
    """From who writes. Who reads finds nothing due, which is true."""
    path = tmp_path / "old"
    with store_with_bank(path) as store:
        key = added(store, ACTIVE).key
    with lmdb.open(str(path), max_dbs=len(keys.TABLES)) as raw:
        handle = raw.open_db(keys.DUE)
        with raw.begin(write=True) as transaction:
            transaction.drop(handle, delete=True)
    with BankStore.open(path, writer=False) as reader:
        assert reader.entry("spam", key).state is ACTIVE
    with BankStore.open(path, writer=True) as store:
        store.move_entry("spam", key, QUARANTINED, EDIT, until_us=int(time.time() * 1e6) + 50_000)
        time.sleep(0.06)
        assert store.apply_due(int(time.time() * 1e6)) == 1
        assert store.entry("spam", key).state is ACTIVE


def test_a_list_is_of_the_state_that_is_asked_for(store: BankStore) -> None:
    keys = {state: added(store, state).key for state in (ACTIVE, SHADOW, DRAFT)}
    store.retract_entry("spam", added(store, ACTIVE).key, EDIT)
    for state, key in keys.items():
        assert [e.key for e in store.list_entries("spam", limit=9, state=state)] == [key]
    assert len(store.list_entries("spam", limit=9, state=RETRACTED)) == 1
