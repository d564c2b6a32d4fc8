"""Edits that wait for a second person: proposed, decided, done in the name of both, and audited."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from simsearch.bank.audit import verify
from simsearch.bank.edits import daily_limit, decide, exports
from simsearch.bank.edits.imports import ImportItem, RowOutcome
from simsearch.bank.log_search import ChangeFilter
from simsearch.bank.records import keys
from simsearch.bank.records.proposals import proposal_from_bytes, proposal_to_bytes
from simsearch.bank.store import BankStore
from simsearch.errors import (
    BadRequest,
    BankArchived,
    Corrupt,
    DailyLimit,
    NeedsApproval,
    PermissionDenied,
    ProposalClosed,
    ProposalNotFound,
)
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import (
    BankUpdate,
    Change,
    ChangeKind,
    Decision,
    Edit,
    EditTerms,
    EntryDraft,
    EntryState,
    FourEyes,
    Policy,
    ProposalKind,
    ProposalState,
    Signal,
)
from tests.bank.test_audit import RawTables
from tests.bank.test_audit import audited as audited_at
from tests.bank.worlds import POLICY, digest_draft

ANN, BOB, CID = (Edit(name, f"{name}'s case") for name in ("ann", "bob", "cid"))
TWO = EditTerms(four_eyes=True)
APPROVE, REJECT, WITHDRAW = Decision
ACTIVE, SHADOW, DRAFT = EntryState.ACTIVE, EntryState.SHADOW, EntryState.DRAFT
HELD = replace(digest_draft("held"), review_reasons=("it says nothing",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.fixture
def store(path: Path) -> Iterator[BankStore]:
    """`spam` needs a second person; `free` leaves it to the configuration."""
    with BankStore.open(path, writer=True, map_bytes=1 << 24) as opened:
        opened.create_bank("spam", "", POLICY, ANN, four_eyes=FourEyes.REQUIRED)
        opened.create_bank("free", "", POLICY, ANN)
        yield opened


def active(store: BankStore, name: str = "a") -> int:
    """An entry of `spam` that ann banned and bob approved."""
    [entry] = store.add_entries("spam", [digest_draft(name)], ANN)
    store.decide(entry.added.proposal, APPROVE, BOB)
    return entry.key


def last(store: BankStore, count: int = 1) -> list[Change]:
    return store.changes(store.seq() - count, count)


def waiting(store: BankStore) -> list[int]:
    found, rest = store.proposals({1, 2}, state=ProposalState.OPEN, limit=99)
    assert rest == 0
    return [proposal.id for proposal, _ in found]


def state(store: BankStore, key: int) -> EntryState:
    return store.entries_by_key([key])[key].state


def faults(store: BankStore) -> tuple[str, ...]:
    with store.reading() as reading:
        return verify(reading, store.store_id).faults


# ---------------------------------------------------------------- what waits


def test_a_ban_is_a_draft_until_another_person_approves_it(store: BankStore) -> None:
    """What they do then carries both names, and the proposal."""
    [entry] = store.add_entries("spam", [digest_draft("a")], ANN)
    assert (entry.state, entry.added.proposal) == (DRAFT, 1)
    assert last(store)[0].kind is ChangeKind.PROPOSAL_MADE
    proposal, rows = store.proposal(1)
    assert (proposal.kind, proposal.to, rows.moved) == (ProposalKind.MOVE, ACTIVE, (entry.key,))
    decided = store.decide(1, APPROVE, BOB)
    assert (decided.state, decided.remaining, decided.skipped) == (ProposalState.APPROVED, 0, 0)
    [said, done] = last(store, 2)
    assert (said.kind, said.actor, said.proposal) == (ChangeKind.PROPOSAL_DECIDED, "bob", 1)
    assert (done.kind, done.actor, done.approved_by) == (ChangeKind.ENTRY_MOVED, "ann", "bob")
    assert (done.reason, done.proposal) == ("ann's case", 1)
    assert state(store, entry.key) is ACTIVE
    assert store.entry("spam", entry.key).moves[-1].change == done
    assert waiting(store) == []
    assert faults(store) == ()


def test_drafts_and_shadows_need_nobody(store: BankStore) -> None:
    """Nor does what stops harm: quarantine, dispute."""
    drafts = [replace(digest_draft(str(s)), state=s) for s in (DRAFT, SHADOW)]
    entries = store.add_entries("spam", drafts, ANN)
    assert [(e.state, e.added.proposal) for e in entries] == [(DRAFT, 0), (SHADOW, 0)]
    key = active(store)
    for to in (EntryState.DISPUTED, EntryState.QUARANTINED, SHADOW):
        moved, change = store.move_entry("spam", key, to, ANN)
        assert moved.state is to
        assert change is not None
        assert change.kind is ChangeKind.ENTRY_MOVED
    assert waiting(store) == []


def test_a_batch_is_one_proposal_and_what_is_held_one_each(store: BankStore) -> None:
    shadow = replace(digest_draft("s"), state=SHADOW)
    drafts = [digest_draft("a"), HELD, digest_draft("b"), shadow]
    entries = store.add_entries("spam", drafts, ANN)
    assert [e.added.proposal for e in entries] == [1, 2, 1, 0]
    assert waiting(store) == [1, 2]
    assert store.proposal(2)[0].review_reasons == ("it says nothing",)
    assert store.proposal(1)[1].moved == (entries[0].key, entries[2].key)
    store.decide(1, APPROVE, BOB)
    assert [state(store, e.key) for e in entries] == [ACTIVE, DRAFT, ACTIVE, SHADOW]


def test_moves_to_active_retractions_and_updates_wait(store: BankStore) -> None:
    """Nothing changes but the log; asked again by the same person, they wait as before."""
    key = active(store)
    store.move_entry("spam", key, EntryState.QUARANTINED, ANN)
    for _ in range(2):
        entry, change = store.move_entry("spam", key, ACTIVE, ANN)
        assert change is not None
        assert (entry.state, change.proposal) == (EntryState.QUARANTINED, 2)
        entry, change = store.retract_entry("spam", key, ANN)
        assert (entry.retracted, change.kind) == (None, ChangeKind.PROPOSAL_MADE)
        assert (change.proposal, change.entry_key) == (3, key)
        bank, change = store.update_bank("spam", ANN, policy=Policy())
        assert (bank.policy, bank.version, change.proposal) == (POLICY, 1, 4)
    assert waiting(store) == [2, 3, 4]
    assert store.retract_entry("spam", key, CID)[1].proposal == 5
    for number in (2, 3, 4):
        store.decide(number, APPROVE, BOB)
    assert state(store, key) is EntryState.RETRACTED
    assert store.bank("spam").policy == Policy()
    with pytest.raises(ProposalClosed, match="does not fit any more"):
        store.decide(5, APPROVE, BOB)
    store.decide(5, REJECT, BOB)
    assert waiting(store) == []
    assert faults(store) == ()


def test_a_detour_by_time_is_a_way_to_active_too(store: BankStore) -> None:
    """A move that ends in ACTIVE by itself waits, unless it comes from there."""
    key = active(store)
    later = 2**52
    back, _ = store.move_entry("spam", key, EntryState.QUARANTINED, ANN, until_us=later)
    assert back.state is EntryState.QUARANTINED
    store.move_entry("spam", key, EntryState.QUARANTINED, ANN)
    entry, change = store.move_entry("spam", key, EntryState.QUARANTINED, ANN, until_us=later)
    assert change is not None
    assert (entry.until_us, change.kind) == (0, ChangeKind.PROPOSAL_MADE)
    [shadow] = store.add_entries("spam", [replace(digest_draft("s"), state=SHADOW)], ANN)
    _, change = store.move_entry("spam", shadow.key, SHADOW, ANN, until_us=later)
    assert change is not None
    assert change.kind is ChangeKind.PROPOSAL_MADE


def test_a_bank_is_not_switched_off_by_one_person(store: BankStore) -> None:
    """Neither by the switch nor by the archive, only by an approved change that is audited."""
    for settings in ({"four_eyes": FourEyes.OFF}, {"archived": True}, {"enabled_ratio": 0.0}):
        store.update_bank("spam", ANN, **settings)
    bank = store.bank("spam")
    assert (bank.four_eyes, bank.archived, bank.enabled_ratio) == (FourEyes.REQUIRED, False, 1.0)
    store.decide(1, APPROVE, BOB)
    assert store.bank("spam").four_eyes is FourEyes.OFF
    change = last(store)[0]
    assert (change.kind, change.actor, change.approved_by) == (
        ChangeKind.BANK_UPDATED, "ann", "bob",
    )  # fmt: skip
    assert store.add_entries("spam", [digest_draft("a")], ANN)[0].state is ACTIVE
    assert faults(store) == ()


def test_the_configuration_decides_where_the_bank_does_not(store: BankStore) -> None:
    assert store.add_entries("free", [digest_draft("a")], ANN)[0].state is ACTIVE
    assert store.add_entries("free", [digest_draft("b")], ANN, terms=TWO)[0].state is DRAFT
    store.update_bank("free", ANN, four_eyes=FourEyes.OFF)
    assert store.add_entries("free", [digest_draft("c")], ANN, terms=TWO)[0].state is ACTIVE


# ---------------------------------------------------------------- who decides


def test_nobody_decides_alone(store: BankStore) -> None:
    """One's own is withdrawn, another's approved or rejected."""
    store.add_entries("spam", [digest_draft("a")], ANN)
    for decision, edit in ((APPROVE, ANN), (REJECT, ANN), (WITHDRAW, BOB)):
        before = store.seq()
        with pytest.raises(PermissionDenied, match="proposal 1 is ann"):
            store.decide(1, decision, edit)
        assert (store.seq(), waiting(store)) == (before, [1])


@pytest.mark.parametrize(("decision", "edit"), [(REJECT, BOB), (WITHDRAW, ANN)])
def test_what_is_turned_down_is_done_by_nobody(
    store: BankStore, decision: Decision, edit: Edit
) -> None:
    """It is closed for good; said again, nothing is written. The item stays a draft."""
    [entry] = store.add_entries("spam", [digest_draft("a")], ANN)
    store.decide(1, decision, edit)
    seq = store.seq()
    store.decide(1, decision, edit)
    assert (store.seq(), state(store, entry.key)) == (seq, DRAFT)
    with pytest.raises(ProposalClosed, match=r"by \w+ \(change"):
        store.decide(1, APPROVE, CID)
    with pytest.raises(ProposalNotFound):
        store.decide(2, APPROVE, BOB)
    assert store.move_entry("spam", entry.key, ACTIVE, ANN)[1] is not None
    assert waiting(store) == [2]
    assert faults(store) == ()


def test_an_update_of_another_bank_than_it_was_is_not_done(store: BankStore) -> None:
    """Whoever approves must not undo in passing what was approved since."""
    store.update_bank("spam", ANN, description="first")
    store.update_bank("spam", ANN, description="second")
    store.decide(2, APPROVE, BOB)
    with pytest.raises(ProposalClosed, match="is at v2, and proposal 1 was made at v1"):
        store.decide(1, APPROVE, BOB)
    assert store.bank("spam").description == "second"
    assert waiting(store) == [1]


def test_an_archived_bank_is_not_edited_by_approval(store: BankStore) -> None:
    [entry] = store.add_entries("spam", [digest_draft("a")], ANN)
    store.update_bank("spam", ANN, archived=True)
    store.decide(2, APPROVE, BOB)
    with pytest.raises(BankArchived):
        store.decide(1, APPROVE, BOB)
    assert (state(store, entry.key), waiting(store)) == (DRAFT, [1])


def test_a_revert_is_one_persons(store: BankStore) -> None:
    """It is refused where it would retract, ban or change a bank; the rest can be reverted."""
    active(store)
    store.add_entries("free", [digest_draft("b")], ANN)
    with pytest.raises(NeedsApproval, match="'spam' needs a second person"):
        store.revert(ChangeFilter(frozenset({1, 2}), actor="ann"), [3], BOB)
    [made] = store.revert(ChangeFilter(frozenset({1, 2}), actor="ann"), [4], BOB)
    assert (made.by, made.why) == (None, "proposal 1 does nothing by itself: reject it")
    [undone] = store.revert(ChangeFilter(frozenset({2}), actor="ann"), [store.seq()], BOB)
    assert undone.by is not None


# ---------------------------------------------------------------- what is held


def test_what_is_held_waits_in_any_bank(store: BankStore) -> None:
    """And cannot be moved to where it counts by who banned it, until it was approved once."""
    [entry] = store.add_entries("free", [HELD], ANN)
    assert (entry.state, entry.review_reasons, entry.added.proposal) == (
        DRAFT,
        ("it says nothing",),
        1,
    )
    for to in (SHADOW, ACTIVE):
        _, change = store.move_entry("free", entry.key, to, ANN)
        assert change is not None
        assert change.kind is ChangeKind.PROPOSAL_MADE
    store.decide(2, APPROVE, BOB)
    assert state(store, entry.key) is SHADOW
    _, change = store.move_entry("free", entry.key, ACTIVE, CID)
    assert change is not None
    assert change.kind is ChangeKind.PROPOSAL_MADE
    store.decide(1, APPROVE, BOB)
    assert state(store, entry.key) is ACTIVE
    store.move_entry("free", entry.key, EntryState.QUARANTINED, ANN)
    assert store.move_entry("free", entry.key, ACTIVE, ANN)[0].state is ACTIVE
    assert faults(store) == ()


def test_a_disputed_ban_that_is_held_waits_in_quarantine(store: BankStore) -> None:
    """Where nothing asks it; a draft could not become what it is to be."""
    [entry] = store.add_entries("free", [replace(HELD, state=EntryState.DISPUTED)], ANN)
    assert entry.state is EntryState.QUARANTINED
    _, change = store.move_entry("free", entry.key, EntryState.DISPUTED, CID)
    assert change is not None
    assert change.kind is ChangeKind.PROPOSAL_MADE
    store.decide(1, APPROVE, BOB)
    assert state(store, entry.key) is EntryState.DISPUTED


def test_a_draft_that_says_nothing_is_marked_and_proposed_once_it_is_to_count(
    store: BankStore,
) -> None:
    [entry] = store.add_entries("free", [replace(HELD, state=DRAFT)], ANN)
    assert waiting(store) == []
    store.move_entry("free", entry.key, ACTIVE, ANN)
    assert (waiting(store), state(store, entry.key)) == ([1], DRAFT)


# ---------------------------------------------------------------- lists


def rows(*names: str, back: bool = False) -> list[ImportItem]:
    return [ImportItem(_row(name), withdrawn=back) for name in names]


def _row(name: str) -> EntryDraft:
    return replace(digest_draft(name), source="tips", source_id=name)


def test_a_list_is_one_proposal(store: BankStore) -> None:
    """All its parts: what it adds is a draft, what it withdraws is held and stays."""
    key = active(store)
    old = store.import_part("free", "before", 0, rows("x"), ANN).keys[0]
    first = store.import_part("free", "list", 0, rows("a", "b", "a"), ANN, terms=TWO)
    assert first.outcomes == (RowOutcome.ADDED, RowOutcome.ADDED, RowOutcome.DUPLICATE)
    second = store.import_part("free", "list", 1, rows("x", "y", back=True), ANN, terms=TWO)
    assert second.outcomes == (RowOutcome.HELD, RowOutcome.ABSENT)
    assert second.keys == (old, 0)
    assert (first.proposal, second.proposal) == (2, 2)
    again = store.import_part("free", "list", 1, rows("x", "y", back=True), ANN, terms=TWO)
    assert (again.repeated, again.proposal, again.outcomes) == (True, 2, second.outcomes)
    assert [state(store, k) for k in (*first.keys, old)] == [DRAFT, DRAFT, DRAFT, ACTIVE]
    assert store.proposal(2)[0].rows == 3
    assert faults(store) == ()
    done = store.decide(2, APPROVE, BOB)
    assert (done.remaining, done.skipped) == (0, 0)
    assert [state(store, k) for k in (*first.keys[:2], old)] == [
        ACTIVE, ACTIVE, EntryState.RETRACTED,
    ]  # fmt: skip
    assert store.bank("free").active_entries == 2
    assert state(store, key) is ACTIVE
    assert faults(store) == ()


def test_a_part_that_comes_after_the_decision_is_another_proposal(store: BankStore) -> None:
    """What was not there to be looked at was not approved."""
    store.import_part("free", "list", 0, rows("a"), ANN, terms=TWO)
    store.decide(1, APPROVE, BOB)
    late = store.import_part("free", "list", 1, rows("b"), ANN, terms=TWO)
    assert (late.proposal, waiting(store)) == (2, [2])
    assert state(store, late.keys[0]) is DRAFT


def test_a_long_list_is_approved_a_part_at_a_time(
    path: Path, store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was killed goes on, on the same disk; what does not fit any more is passed over."""
    monkeypatch.setattr(decide, "ROWS_AT_ONCE", 3)
    keys = [
        key
        for part in range(3)
        for key in store.import_part(
            "free", "list", part, rows(f"a{part}", f"b{part}"), ANN, terms=TWO
        ).keys
    ]
    store.retract_entry("free", keys[1], CID)
    assert store.decide(1, APPROVE, BOB).remaining == 3
    store.close()
    with BankStore.open(path, writer=True, map_bytes=1 << 24) as again:
        assert [state(again, key) for key in keys[2:]] == [ACTIVE, DRAFT, DRAFT, DRAFT]
        assert faults(again) == ()
        with pytest.raises(ProposalClosed):
            again.decide(1, REJECT, CID)
        done = again.decide(1, APPROVE, CID)
        assert (done.remaining, done.done, done.skipped) == (0, 6, 1)
        assert {state(again, key) for key in (keys[0], *keys[2:])} == {ACTIVE}
        assert last(again)[0].approved_by == "bob"
        seq = again.seq()
        assert again.decide(1, APPROVE, BOB).remaining == 0
        assert again.seq() == seq
        assert faults(again) == ()


# ---------------------------------------------------------------- how much a day


def test_the_day_of_a_person_is_bounded_across_restarts(
    path: Path, store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of lists count one each, what waits counts when it is proposed, repetitions do not."""
    now = 20_000 * daily_limit.DAY_S + 5.0
    monkeypatch.setattr("simsearch.bank.store.time.time", lambda: now)
    three = EditTerms(edits_per_day=3)
    store.add_entries("spam", [digest_draft("a")], ANN, terms=three)
    store.import_part("free", "list", 0, rows("x"), ANN, terms=three)
    store.import_part("free", "list", 0, rows("x"), ANN, terms=three)
    store.close()
    with BankStore.open(path, writer=True, map_bytes=1 << 24) as again:
        before = again.seq()
        with pytest.raises(DailyLimit, match="made 2 of 3 edits today, and this is 2 more"):
            again.add_entries("free", [digest_draft("b"), digest_draft("c")], ANN, terms=three)
        with pytest.raises(DailyLimit, match="2024-10-05 00:00 UTC"):
            again.import_part("free", "more", 0, rows("y", "z"), ANN, terms=three)
        assert again.seq() == before
        again.retract_entry("spam", 1, ANN, terms=three)
        again.add_entries("free", [digest_draft("b")], BOB, terms=three)
        for call in (
            lambda: again.move_entry("spam", 1, SHADOW, ANN, terms=three),
            lambda: again.update_bank("free", ANN, description="x", terms=three),
        ):
            with pytest.raises(DailyLimit):
                call()
        again.decide(1, APPROVE, BOB, terms=three)
        now += daily_limit.DAY_S
        again.move_entry("spam", 1, SHADOW, ANN, terms=three)


# ---------------------------------------------------------------- the record


@pytest.fixture
def decided(path: Path, store: BankStore) -> Path:
    """A list that was approved, a ban that was rejected, and an update that waits."""
    store.import_part("free", "list", 0, rows("a", "b"), ANN, terms=TWO)
    store.decide(1, APPROVE, BOB)
    store.add_entries("spam", [digest_draft("c")], ANN)
    store.decide(2, REJECT, BOB)
    store.update_bank("spam", ANN, policy=Policy(), owner="ann")
    assert faults(store) == ()
    store.close()
    return path


def test_a_proposal_that_is_altered_is_found(decided: Path) -> None:
    """What it asks for, how it was decided, and which entries it is about."""
    update = BankUpdate(policy=Policy(), owner="eve")
    altering: list[tuple[int, dict[str, object], str]] = [
        (3, {"etag": "v9"}, "proposal 3: what it asks for was altered"),
        (
            3,
            {"update": update},
            "proposal 3: what it asks for was altered",
        ),
        (2, {"state": ProposalState.APPROVED}, "proposal 2 was not decided as its record says"),
        (2, {"review_reasons": ("x",)}, "proposal 2: what it asks for was altered"),
    ]
    for number, fields, fault in altering:
        key = keys.pack_u64(number)

        def change(body: bytes, number: int = number, fields: dict[str, object] = fields) -> bytes:
            return proposal_to_bytes(replace(proposal_from_bytes(number, body), **fields))  # type: ignore[arg-type]

        with RawTables(decided) as tables:
            before = tables.rows(keys.PROPOSALS)[key]
            tables.put(keys.PROPOSALS, key, change(before))
        assert audited_at(decided).faults == (fault,)
        with RawTables(decided) as tables:
            tables.put(keys.PROPOSALS, key, before)
    assert audited_at(decided).faults == ()


def test_the_entries_of_a_proposal_are_vouched_for(decided: Path) -> None:
    """Others put in their place are found by the audit, and are not moved by an approval."""
    key = keys.proposed_rows_key(2, 0)
    with RawTables(decided) as tables:
        tables.put(keys.PROPOSALS, key, pb.ProposedRowsRecord(moved=[1]).SerializeToString())
    assert "proposal 2" in audited_at(decided).faults[0]
    with BankStore.open(decided, writer=True, map_bytes=1 << 24) as store:
        [entry] = store.add_entries("spam", [digest_draft("d")], ANN)
        number = entry.added.proposal
    with RawTables(decided) as tables:
        at = keys.proposed_rows_key(number, 0)
        tables.put(keys.PROPOSALS, at, pb.ProposedRowsRecord(moved=[1]).SerializeToString())
    with (
        BankStore.open(decided, writer=True, map_bytes=1 << 24) as store,
        pytest.raises(Corrupt, match="not about the entries that were proposed"),
    ):
        store.decide(number, APPROVE, BOB)


def test_a_decision_that_is_altered_in_the_log_or_taken_out_is_found(decided: Path) -> None:
    with RawTables(decided) as tables:
        tables.delete(keys.PROPOSALS, keys.pack_u64(3))
    assert audited_at(decided).faults == ("there are 2 proposals; 3 were made",)
    seq = next(
        seq
        for seq, change in enumerate(_log(decided), start=1)
        if change.kind is ChangeKind.PROPOSAL_DECIDED
    )
    with RawTables(decided) as tables:
        tables.alter_change(seq, actor="ann")
    found = audited_at(decided).faults
    assert any("does not follow on the one before" in fault for fault in found)
    assert any("says that bob approved proposal 1" in fault for fault in found)
    assert "proposal 1 was not decided as its record says" in found


def _log(path: Path) -> list[Change]:
    with BankStore.open(path, writer=False) as store:
        return store.changes(0, 99)


def test_the_audit_takes_proposals_made_meanwhile_as_they_are(store: BankStore) -> None:
    """It holds the newest records against the newest changes, and the state as it was."""
    store.import_part("free", "list", 0, rows("a"), ANN, terms=TWO)
    with store.reading() as reading:
        store.import_part("free", "list", 1, rows("b"), ANN, terms=TWO)
        store.decide(1, APPROVE, BOB)
        store.update_bank("spam", ANN, description="later")
        assert verify(reading, store.store_id).faults == ()


def test_a_digest_of_a_draft_is_found_as_a_drafts(store: BankStore) -> None:
    """A draft is in the tables as any entry is: only its state keeps it from being asked."""
    [entry] = store.add_entries("spam", [digest_draft("a")], ANN)
    digest = digest_draft("a").fingerprint.digests[Signal.SHA256][0]
    assert store.find_digests([(Signal.SHA256, digest)], store.seq())[0] == [(entry.key, 1)]


# ---------------------------------------------------------------- taking a bank out


def test_an_export_is_approved_for_a_day(store: BankStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """And as often as is needed until then; each time is on record, and the record verifies."""
    asked = store.begin_export("spam", ANN)
    assert asked.kind is ChangeKind.PROPOSAL_MADE
    proposal, rows = store.proposal(asked.proposal)
    assert (proposal.kind, len(rows)) == (ProposalKind.EXPORT, 0)
    assert store.decide(asked.proposal, APPROVE, BOB).remaining == 0
    for _ in range(2):
        begun = store.begin_export("spam", ANN, proposal_id=asked.proposal)
        assert (begun.kind, begun.actor, begun.approved_by) == (
            ChangeKind.BANK_EXPORTED, "ann", "bob",
        )  # fmt: skip
    store.check_export("spam", begun.seq, "ann")
    for bank, seq, actor in (
        ("spam", begun.seq, "bob"),
        ("free", begun.seq, "ann"),
        ("spam", 1, "ann"),
        ("spam", 0, "ann"),
        ("spam", 999, "ann"),
    ):
        with pytest.raises(BadRequest, match="none of yours"):
            store.check_export(bank, seq, actor)
    monkeypatch.setattr(exports, "APPROVED_FOR_US", -1)
    with pytest.raises(ProposalClosed, match="over a day ago"):
        store.begin_export("spam", ANN, proposal_id=asked.proposal)
    assert store.begin_export("free", ANN).kind is ChangeKind.BANK_EXPORTED
    assert not faults(store)
