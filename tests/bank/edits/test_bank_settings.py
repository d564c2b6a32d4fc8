"""A bank's own life: what it is for, who owns it, how much of it counts, when it is archived."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from simsearch.bank.audit import verify
from simsearch.bank.edits.imports import ImportItem
from simsearch.bank.log_search import ChangeFilter
from simsearch.bank.records import hash_chain
from simsearch.bank.store import BankStore
from simsearch.errors import BadRequest, BankArchived, BankChanged
from simsearch.types import BankKind, Edit, EntryState, Fingerprint, FourEyes, Policy
from tests.bank.worlds import EDIT, full_draft, store_with_bank

EVE = Edit("eve", "because")
ROW = ImportItem(full_draft(9))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BankStore]:
    with store_with_bank(tmp_path / "bank") as opened:
        yield opened


def is_sound(store: BankStore) -> bool:
    with store.reading() as reading:
        return not verify(reading, store.store_id).faults


def test_a_bank_keeps_what_it_was_made_with(store: BankStore) -> None:
    """Over a restart too; a bank of which nothing was said is as every bank was before."""
    made, _ = store.create_bank(
        "harmless",
        "press photographs",
        Policy(),
        EDIT,
        kind=BankKind.ALLOWED,
        owner="press desk",
        enabled_ratio=0.25,
        four_eyes=FourEyes.REQUIRED,
    )
    assert store.bank("harmless") == made
    assert (made.kind, made.owner, made.archived) == (BankKind.ALLOWED, "press desk", False)
    assert (made.enabled_ratio, made.four_eyes) == (0.25, FourEyes.REQUIRED)
    plain = store.bank("spam")
    assert (plain.kind, plain.owner, plain.enabled_ratio) == (BankKind.BANNED, "", 1.0)
    assert is_sound(store)


def test_a_share_of_nothing_is_kept_as_nothing(store: BankStore) -> None:
    """0 is a value, and not the absence of one."""
    store.update_bank("spam", EDIT, enabled_ratio=0.0)
    assert store.bank("spam").enabled_ratio == 0.0
    store.update_bank("spam", EDIT, enabled_ratio=1.0)
    assert store.bank("spam").enabled_ratio == 1.0


@pytest.mark.parametrize("ratio", [7.5, -0.01, 1.0001, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(store: BankStore, ratio: float) -> None:
    with pytest.raises(BadRequest, match=r"0 \(none\) to 1 \(all\)"):
        store.update_bank("spam", EDIT, enabled_ratio=ratio)
    with pytest.raises(BadRequest):
        store.create_bank("new", "", Policy(), EDIT, enabled_ratio=ratio)


def test_an_archived_bank_takes_no_edit_but_the_one_that_brings_it_back(store: BankStore) -> None:
    """What it holds stays readable."""
    key = store.add_entries("spam", [full_draft(1)], EDIT)[0].key
    store.update_bank("spam", EDIT, archived=True)
    before = store.seq()
    for edit in (
        lambda: store.add_entries("spam", [full_draft(2)], EDIT),
        lambda: store.retract_entry("spam", key, EDIT),
        lambda: store.move_entry("spam", key, EntryState.SHADOW, EDIT),
        lambda: store.extend_entry("spam", key, vectors_of(full_draft(3).fingerprint), EDIT),
        lambda: store.import_part("spam", "list-1", 0, [ROW], EDIT),
        lambda: store.update_bank("spam", EDIT, owner="me"),
        lambda: store.update_bank("spam", EDIT, archived=True),
    ):
        with pytest.raises(BankArchived, match="bring it back"):
            edit()
    assert store.seq() == before
    assert store.entry("spam", key).state is EntryState.ACTIVE
    store.update_bank("spam", EDIT, archived=False, owner="me")
    store.retract_entry("spam", key, EDIT)
    assert is_sound(store)


def vectors_of(fingerprint: Fingerprint) -> Fingerprint:
    return Fingerprint(vectors={f"{space}x": rows for space, rows in fingerprint.vectors.items()})


def test_a_lost_update_of_a_setting_is_refused(store: BankStore) -> None:
    read = store.bank("spam")
    store.update_bank("spam", EDIT, owner="first", etag=read.etag)
    with pytest.raises(BankChanged):
        store.update_bank("spam", EDIT, owner="second", etag=read.etag)


def test_all_of_a_banks_settings_are_reverted(store: BankStore) -> None:
    """And what is in an archived bank waits until it is brought back."""
    key = store.add_entries("spam", [full_draft(1)], EDIT)[0].key
    before = store.bank("spam")
    store.move_entry("spam", key, EntryState.QUARANTINED, EVE)
    store.update_bank("spam", EVE, owner="eve", enabled_ratio=0.0, four_eyes=FourEyes.OFF)
    store.update_bank("spam", EVE, archived=True)
    seqs = [c.seq for c in store.changes(0, 100) if c.actor == "eve"]
    hers = ChangeFilter(frozenset({before.id}), actor="eve")
    done = store.revert(hers, sorted(seqs, reverse=True), EDIT)
    assert all(each.by for each in done)
    after = store.bank("spam")
    assert replace(after, version=before.version, restores=0) == before
    assert store.entry("spam", key).state is EntryState.ACTIVE
    moved = store.move_entry("spam", key, EntryState.SHADOW, EVE)[1]
    assert moved
    store.update_bank("spam", EDIT, archived=True)
    [left] = store.revert(hers, [moved.seq], EDIT)
    assert "bring it back first" in left.why
    assert is_sound(store)


def test_what_a_change_of_a_bank_stored_covers_every_setting(store: BankStore) -> None:
    """And a bank without any has the digest that it had before there were settings."""
    bank = store.bank("spam")
    digests = {
        hash_chain.content_of_bank(replace(bank, **changed))
        for changed in (
            {},
            {"owner": "x"},
            {"kind": BankKind.ALLOWED},
            {"archived": True},
            {"enabled_ratio": 0.5},
            {"four_eyes": FourEyes.REQUIRED},
            {"four_eyes": FourEyes.OFF},
        )
    }
    assert len(digests) == 7


def test_settings_altered_behind_the_log_are_found(store: BankStore) -> None:
    """As where somebody with the disk in hand brings a bank's share down to nothing."""
    altered = replace(store.bank("spam"), enabled_ratio=0.0)
    store._environment.write(lambda t: t.put_bank(altered), then=lambda _: None)
    assert not is_sound(store)
