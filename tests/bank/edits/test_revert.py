"""Somebody's changes taken back: by new changes, once, and never what others did since."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from simsearch.bank.audit import verify
from simsearch.bank.edits.revert import CHANGES_AT_ONCE, Reverted
from simsearch.bank.log_search import LOOKED_AT_MAX, ChangeFilter, ChangePage, search
from simsearch.bank.store import BankStore
from simsearch.errors import BadRequest
from simsearch.types import (
    ChangeKind,
    Edit,
    Entry,
    EntryDraft,
    EntryState,
    Fingerprint,
    Policy,
    Signal,
)
from tests.bank.worlds import (
    EXTENSION,
    POLICY,
    as_stored,
    digest_draft,
    full_draft,
    same,
    sha,
    store_with_bank,
    unit,
)

ANN, BOB, EVE = Edit("ann", "case 7"), Edit("bob", "case 8"), Edit("eve", "for fun")
BACK = Edit("ann", "eve was not to be trusted")

LATER_US = 2**57
"""Long after whatever a test does."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BankStore]:
    """With the bank `spam`; whatever is done to it, its record of edits is whole in the end."""
    with store_with_bank(tmp_path / "bank") as store:
        yield store
        with store.reading() as reading:
            assert verify(reading, store.store_id).faults == ()


def found(store: BankStore, span: ChangeFilter, before_seq: int = 0) -> ChangePage:
    with store.reading() as reading:
        return search(
            reading, span, after_seq=0, before_seq=before_seq or reading.seq + 1,
            limit=CHANGES_AT_ONCE, newest=True,
        )  # fmt: skip


def span_of(store: BankStore, actor: str, **more: Any) -> ChangeFilter:
    return ChangeFilter(frozenset(bank.id for bank in store.banks()), actor=actor, **more)


def reverted(
    store: BankStore, actor: str = "eve", edit: Edit = BACK, *, dry_run: bool = False, **more: int
) -> list[Reverted]:
    """The whole of it, as a server's caller does it: part by part."""
    span, done, before = span_of(store, actor, **more), [], 0
    while True:
        part = found(store, span, before)
        seqs = [logged.change.seq for logged in reversed(part.changes)]
        some = store.revert(span, seqs, edit, dry_run=dry_run)
        done += some
        if len(some) < len(seqs):
            before = seqs[len(some) - 1]
        elif part.rest:
            before = part.rest[1]
        else:
            return done


def why(done: list[Reverted]) -> list[str]:
    assert all(each.by is None for each in done)
    return [each.why for each in done]


def banned(store: BankStore, edit: Edit, draft: EntryDraft | None = None) -> Entry:
    return store.add_entries("spam", [draft or digest_draft("x")], edit)[0]


def active(store: BankStore) -> int:
    return store.bank("spam").active_entries


# ---------------------------------------------------------------- each kind


def test_what_was_added_is_retracted(store: BankStore) -> None:
    """Signed by who takes it back, with the reason and the change that it undoes."""
    kept, entry = banned(store, BOB), banned(store, EVE)
    [done] = reverted(store)
    gone = store.entry("spam", entry.key)
    assert gone.state is EntryState.RETRACTED
    assert gone.retracted == done.by
    assert done.by is not None
    assert (done.by.actor, done.by.reason) == (BACK.actor, BACK.reason)
    assert done.by.undoes == entry.added.seq == done.change.seq
    assert store.entry("spam", kept.key).state is EntryState.ACTIVE
    assert active(store) == 1


def test_what_was_retracted_is_banned_again(store: BankStore) -> None:
    """Under a new key, with the same facts and all the signals that it had."""
    draft = full_draft(1)
    before = banned(store, BOB, EntryDraft(**{**vars(draft), "severity": "A1", "aliases": ("z",)}))
    lacking = Fingerprint(vectors={"new@1/none/4": unit(1, 4, 3)})
    store.extend_entry("spam", before.key, lacking, BOB)
    store.retract_entry("spam", before.key, EVE)
    [done] = reverted(store)
    again = store.entry("spam", done.key)
    assert done.key not in (0, before.key)
    for fact in ("labels", "source", "source_id", "note", "severity", "aliases", "first_state"):
        assert getattr(again, fact) == getattr(before, fact)
    assert again.state is EntryState.ACTIVE
    assert again.added == done.by
    fingerprints = store.fingerprints([before.key, again.key])
    assert same(fingerprints[before.key], fingerprints[again.key])
    assert again.signals == fingerprints[before.key].rows()
    assert store.find_digests([(Signal.SHA256, sha("a1"))], store.seq())[0] == [(again.key, 1)]
    assert active(store) == 1


@pytest.mark.parametrize("state", [EntryState.SHADOW, EntryState.QUARANTINED])
@pytest.mark.parametrize("until_us", [0, LATER_US])
def test_it_is_banned_again_in_the_state_that_it_had(
    store: BankStore, state: EntryState, until_us: int
) -> None:
    """And goes back by itself to where it would have gone."""
    key = banned(store, BOB).key
    store.move_entry("spam", key, state, BOB, until_us=until_us)
    store.retract_entry("spam", key, EVE)
    [done] = reverted(store)
    again = store.entry("spam", done.key)
    assert (again.state, again.until_us) == (state, until_us)
    assert again.last == done.by
    if until_us:
        store.apply_due(until_us)
        assert store.entry("spam", done.key).state is EntryState.ACTIVE


def test_what_eve_made_of_it_first_does_not_come_back_with_it(store: BankStore) -> None:
    """She weakened it, added to it and then retracted it: it comes back as it was before her."""
    key = banned(store, BOB, EntryDraft(full_draft(1).fingerprint)).key
    store.move_entry("spam", key, EntryState.SHADOW, EVE)
    store.extend_entry("spam", key, Fingerprint(vectors={"eve@1/none/4": unit(1, 4, 3)}), EVE)
    store.retract_entry("spam", key, EVE)
    retracted, extended, moved = reverted(store)
    again = store.entry("spam", retracted.key)
    assert again.state is EntryState.ACTIVE
    assert same(store.fingerprints([again.key])[again.key], as_stored(full_draft(1).fingerprint))
    assert "signals that were added stay" in extended.why
    assert "retracted" in moved.why


def test_what_was_added_and_retracted_by_one_does_not_come_back(store: BankStore) -> None:
    """Nothing was banned before her, and nothing is after."""
    key = banned(store, EVE).key
    store.move_entry("spam", key, EntryState.SHADOW, EVE)
    store.retract_entry("spam", key, EVE)
    assert len(why(reverted(store))) == 3
    assert active(store) == 0


def test_what_was_moved_goes_back(store: BankStore) -> None:
    """Through all of her moves, to where it was before the first; with the time that it had."""
    key = banned(store, BOB).key
    store.move_entry("spam", key, EntryState.SHADOW, BOB, until_us=LATER_US)
    for state in (EntryState.ACTIVE, EntryState.QUARANTINED, EntryState.ACTIVE):
        store.move_entry("spam", key, state, EVE)
    done = reverted(store)
    assert [each.by is not None for each in done] == [True] * 3
    entry = store.entry("spam", key)
    assert (entry.state, entry.until_us) == (EntryState.SHADOW, LATER_US)


def test_what_was_made_active_from_a_draft_is_asked_no_more(store: BankStore) -> None:
    """Nothing becomes a draft again; a quarantined entry matches as little."""
    key = banned(store, BOB, EntryDraft(full_draft(1).fingerprint, state=EntryState.DRAFT)).key
    store.move_entry("spam", key, EntryState.ACTIVE, EVE)
    reverted(store)
    assert store.entry("spam", key).state is EntryState.QUARANTINED


def test_a_move_back_to_what_has_run_out_is_left(store: BankStore) -> None:
    """It was to be quarantined until then only."""
    key = banned(store, BOB).key
    soon = time.time_ns() // 1000 + 20_000
    store.move_entry("spam", key, EntryState.QUARANTINED, BOB, until_us=soon)
    store.move_entry("spam", key, EntryState.ACTIVE, EVE)
    time.sleep(0.03)
    assert "ended by itself" in why(reverted(store))[0]


def test_a_ban_that_would_have_ended_does_not_come_back(store: BankStore) -> None:
    soon = time.time_ns() // 1000 + 20_000
    key = banned(store, BOB, EntryDraft(full_draft(1).fingerprint, expires_us=soon)).key
    store.retract_entry("spam", key, EVE)
    time.sleep(0.03)
    assert "ended by itself" in why(reverted(store))[0]


def test_a_bank_gets_back_its_policy_and_description(store: BankStore) -> None:
    """Through all of her updates; what else happened to it meanwhile stays."""
    store.update_bank("spam", BOB, description="known spam")
    store.update_bank("spam", EVE, policy=Policy())
    store.update_bank("spam", EVE, description="nothing to see")
    banned(store, BOB)
    done = reverted(store)
    assert [each.by is not None for each in done] == [True, True]
    bank = store.bank("spam")
    assert (bank.policy, bank.description, bank.active_entries) == (POLICY, "known spam", 1)
    assert bank.etag == "v6"


def test_an_update_by_others_after_half_a_revert_is_left(store: BankStore) -> None:
    """The second of hers was undone, then somebody set the bank up: the first stays."""
    store.update_bank("spam", EVE, policy=Policy())
    _, second = store.update_bank("spam", EVE, description="nothing to see")
    assert store.revert(span_of(store, "eve"), [second.seq], BACK)[0].by
    store.update_bank("spam", BOB, description="mine")
    assert len(why(reverted(store))) == 2
    assert store.bank("spam").description == "mine"


def test_an_update_from_before_there_were_records_of_banks_is_skipped(
    store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And said."""
    with monkeypatch.context() as patched:
        from simsearch.bank.records import entries

        write = entries.change_to_bytes
        patched.setattr(
            entries, "change_to_bytes", lambda change, content, before: write(change, content)
        )
        store.update_bank("spam", EVE, description="old")
    assert "earlier release" in why(reverted(store))[0]


def test_a_bank_and_an_extension_cannot_be_undone(store: BankStore) -> None:
    """Both are said, and left."""
    key = banned(store, BOB).key
    store.create_bank("hers", "", Policy(), EVE)
    store.extend_entry("spam", key, EXTENSION, EVE)
    extended, created = why(reverted(store))
    assert "signals" in extended
    assert "unmade" in created


# ---------------------------------------------------------------- what others did since


def test_what_others_did_since_is_left(store: BankStore) -> None:
    """They have looked at it after her."""
    moved, retracted, again = (banned(store, BOB, full_draft(n)).key for n in range(3))
    added = banned(store, EVE).key
    store.move_entry("spam", moved, EntryState.SHADOW, EVE)
    store.move_entry("spam", moved, EntryState.QUARANTINED, BOB)
    store.move_entry("spam", retracted, EntryState.SHADOW, EVE)
    store.retract_entry("spam", retracted, BOB)
    store.retract_entry("spam", again, EVE)
    banned(store, BOB, full_draft(2))
    store.retract_entry("spam", added, BOB)
    store.update_bank("spam", EVE, policy=Policy())
    store.update_bank("spam", BOB, description="mine")
    before = store.seq()
    reasons = why(reverted(store))
    assert [words in reason for words, reason in zip(
        ("was changed since", "bob banned it anew", "bob retracted", "bob moved", "bob retracted"),
        reasons, strict=True,
    )] == [True] * 5  # fmt: skip
    assert store.seq() == before


def test_a_span_has_its_bounds(store: BankStore) -> None:
    """By time, from the first to before the last; by bank; by name."""
    first, second, third = (banned(store, EVE, digest_draft(str(n))) for n in range(3))
    times = (first.added.time_us, second.added.time_us, third.added.time_us)
    [done] = reverted(store, since_us=times[1], until_us=times[2])
    assert done.change == second.added
    assert store.entry("spam", third.key).state is EntryState.ACTIVE
    elsewhere = ChangeFilter(frozenset(), actor="eve")
    assert found(store, elsewhere).changes == ()
    assert reverted(store, "nobody") == []


def test_who_banned_it_anew_decides_what_becomes_of_it(store: BankStore) -> None:
    """Also where he took it back again. Her own hand is no such decision, and what she took from
    him after that comes back once."""
    mine, his, hers = (banned(store, BOB, full_draft(n)).key for n in range(3))
    for key in (mine, his, hers):
        store.retract_entry("spam", key, EVE)
    store.retract_entry("spam", banned(store, BOB, full_draft(0)).key, BOB)
    store.retract_entry("spam", banned(store, BOB, full_draft(1)).key, EVE)
    banned(store, EVE, full_draft(2))
    reverted(store)
    found = [
        len(store.find_digests([(Signal.SHA256, sha(f"a{n}"))], store.seq())[0]) for n in range(3)
    ]
    assert found == [0, 1, 1]
    assert active(store) == 2


# ---------------------------------------------------------------- again


def some_of_everything(store: BankStore) -> None:
    """Of eve's, newest last: two moves, an addition, a retraction and an update."""
    moved, gone = (banned(store, BOB, full_draft(n)).key for n in range(2))
    store.move_entry("spam", moved, EntryState.SHADOW, EVE)
    store.move_entry("spam", moved, EntryState.QUARANTINED, EVE)
    banned(store, EVE)
    store.retract_entry("spam", gone, EVE)
    store.update_bank("spam", EVE, policy=Policy())


def test_what_was_undone_is_not_undone_twice(store: BankStore) -> None:
    """Whoever runs it, and whoever ran it first."""
    some_of_everything(store)
    assert all(each.by for each in reverted(store))
    before = store.seq()
    assert len(why(reverted(store))) == 5
    assert len(why(reverted(store, edit=BOB))) == 5
    assert store.seq() == before


def test_what_was_done_anew_by_hand_after_a_revert_stands(store: BankStore) -> None:
    """Somebody looked, and found that she had been right."""
    some_of_everything(store)
    key = next(each.key for each in reverted(store) if each.key)
    store.retract_entry("spam", key, BOB)
    store.move_entry("spam", 1, EntryState.QUARANTINED, BOB)
    store.update_bank("spam", BOB, policy=Policy())
    before = store.seq()
    assert len(why(reverted(store))) == 5
    assert store.seq() == before


def test_ones_own_changes_can_be_undone_and_stay_so(store: BankStore) -> None:
    """What undid them is signed by the same name, and is not undone by doing it again."""
    some_of_everything(store)
    reverted(store, edit=EVE)
    before = store.seq()
    assert len(why(reverted(store, edit=EVE))) == 10
    assert store.seq() == before


def test_a_revert_can_be_reverted(store: BankStore) -> None:
    """Where who ran it was the one not to be trusted; and then what it undid can be undone."""
    moved, gone = (banned(store, ANN, full_draft(n)).key for n in range(2))
    added = banned(store, BOB).key
    store.retract_entry("spam", gone, BOB)
    store.move_entry("spam", moved, EntryState.SHADOW, BOB)
    store.update_bank("spam", BOB, policy=Policy())
    assert all(each.by for each in reverted(store, "bob", EVE))
    assert store.entry("spam", added).state is EntryState.RETRACTED
    assert all(each.by for each in reverted(store, "eve", BACK))
    assert store.bank("spam").policy == Policy()
    assert store.entry("spam", moved).state is EntryState.SHADOW
    assert store.find_digests([(Signal.SHA256, sha("a1"))], store.seq())[0] == []
    assert len(store.find_digests([(Signal.SHA256, sha("x"))], store.seq())[0]) == 1
    assert active(store) == 2
    assert [each.by is not None for each in reverted(store, "bob", ANN)] == [True] * 3 + [False]
    assert store.bank("spam").policy == POLICY
    assert store.entry("spam", moved).state is EntryState.ACTIVE
    assert len(store.find_digests([(Signal.SHA256, sha("a1"))], store.seq())[0]) == 1
    assert len(why(reverted(store, "bob", ANN))) == 4


def test_a_dry_run_writes_nothing_and_says_the_same(store: BankStore) -> None:
    some_of_everything(store)
    before = store.seq(), store.bank("spam"), store.list_entries("spam", limit=99)
    tried = reverted(store, dry_run=True)
    assert (store.seq(), store.bank("spam"), store.list_entries("spam", limit=99)) == before
    done = reverted(store)
    assert [(t.change, t.why, t.key) for t in tried] == [(d.change, d.why, d.key) for d in done]


@pytest.mark.parametrize("edit", [Edit("", "why"), Edit("ann", " ")])
def test_nobody_takes_back_without_a_name_and_a_reason(store: BankStore, edit: Edit) -> None:
    banned(store, EVE)
    with pytest.raises(BadRequest):
        reverted(store, edit=edit)


# ---------------------------------------------------------------- in bounded steps


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_changes_are_undone_in_bounded_steps(store: BankStore, count: int) -> None:
    """10,000 in the long form. No transaction takes more than its share, and what was cut off is
    gone on with by doing it again."""
    drafts = [
        EntryDraft(Fingerprint(digests={Signal.MD5: (sha(str(n))[:16],)})) for n in range(count)
    ]
    store.add_entries("spam", drafts, EVE)
    span = span_of(store, "eve")
    part = found(store, span)
    assert len(part.changes) == CHANGES_AT_ONCE
    store.revert(span, [c.change.seq for c in reversed(part.changes)], BACK)
    assert active(store) == count - CHANGES_AT_ONCE
    written: list[int] = []
    store.subscribe(written.append)
    done = reverted(store)
    assert len(done) == count
    assert sum(each.by is None for each in done) == CHANGES_AT_ONCE
    assert active(store) == 0
    assert max(b - a for a, b in pairwise(written)) <= CHANGES_AT_ONCE
    assert [each.change.seq for each in done] == sorted(
        (each.change.seq for each in done), reverse=True
    )


def test_a_transaction_ends_where_fingerprints_are_large(
    store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is for the next; at least one always does."""
    monkeypatch.setattr("simsearch.bank.edits.revert.BYTES_AT_ONCE", 100)
    keys = [banned(store, BOB, full_draft(n)).key for n in range(4)]
    for key in keys:
        store.retract_entry("spam", key, EVE)
    span = span_of(store, "eve")
    seqs = [c.change.seq for c in reversed(found(store, span).changes)]
    assert len(store.revert(span, seqs, BACK, dry_run=True)) == 1
    assert len(reverted(store)) == 4
    assert active(store) == 4


def test_a_search_of_the_log_looks_at_a_bounded_part(
    store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From either end, and every change is found by going on."""
    monkeypatch.setattr("simsearch.bank.log_search.LOOKED_AT_MAX", 7)
    monkeypatch.setattr("simsearch.bank.log_search.CHANGES_AT_ONCE", 3)
    for n in range(20):
        banned(store, (BOB, EVE)[n % 2], digest_draft(str(n)))
    span = span_of(store, "eve")
    wanted = [c.seq for c in store.changes(0, 100) if c.actor == "eve"]
    for newest in (False, True):
        seen: list[int] = []
        rest: tuple[int, int] | None = (0, 2**40)
        while rest:
            with store.reading() as reading:
                page = search(
                    reading, span, after_seq=rest[0], before_seq=rest[1], limit=2, newest=newest
                )
            some = [logged.change.seq for logged in page.changes]
            assert some == sorted(some)
            assert len(some) <= 2
            seen = some + seen if newest else seen + some
            rest = page.rest
        assert seen == wanted
        with store.reading() as reading:
            nobody = span_of(store, "nobody")
            page = search(reading, nobody, after_seq=0, before_seq=99, limit=2, newest=newest)
        assert page.changes == ()
        assert page.rest is not None
    assert LOOKED_AT_MAX == 16_384


def test_kinds_are_all_decided_about() -> None:
    """A new kind of change must be undone, or skipped with a reason."""
    assert len(ChangeKind) == 10
