"""Opinions on hits: whose counts, what they do to an entry, and that none is altered unseen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch import errors
from simsearch.bank.audit import verify
from simsearch.bank.edits import opinions
from simsearch.bank.edits.entries import SERVER_ACTOR
from simsearch.bank.edits.opinions import (
    RELEASE_GRACE_US,
    OpinionFilter,
    current_opinions,
    false_positive_actors,
    list_opinions,
    review_queue,
)
from simsearch.bank.records import keys
from simsearch.bank.store import BankStore
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import (
    Change,
    ChangeKind,
    Edit,
    Entry,
    EntryState,
    HitCounts,
    Move,
    Opinion,
    OpinionDraft,
    OpinionKind,
)
from tests.bank.test_audit import RawTables, audited
from tests.bank.worlds import EDIT, POLICY, full_draft, sha, store_with_bank

ACTIVE, DISPUTED, QUARANTINED = EntryState.ACTIVE, EntryState.DISPUTED, EntryState.QUARANTINED
WRONG = OpinionDraft(OpinionKind.FALSE_POSITIVE)
RIGHT = OpinionDraft(OpinionKind.TRUE_POSITIVE)
FULL = OpinionDraft(OpinionKind.WRONG_LABEL, "größe\n", sha("upload"), "case-9")
NOW_US = int(time.time() * 1e6)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BankStore]:
    with store_with_bank(tmp_path / "bank") as opened:
        yield opened


def banned(store: BankStore, state: EntryState = ACTIVE) -> int:
    return store.add_entries("spam", [replace(full_draft(1), state=state)], EDIT)[0].key


def says(
    store: BankStore, who: str, said: OpinionDraft, key: int, disputes_max: int = 3
) -> opinions.RecordedOpinion:
    return store.give_opinion("spam", key, said, Edit(who, "looked"), disputes_max=disputes_max)


def said_of(store: BankStore, **wanted: object) -> list[tuple[str, OpinionKind, bool]]:
    bank_id = store.bank("spam").id
    with store.reading() as reading:
        chosen = OpinionFilter(bank_id, **wanted)  # type: ignore[arg-type]
        page = reading.read(lambda t: list_opinions(t, chosen, (0, 0), 99))
    return [
        (told.opinion.actor, told.opinion.draft.kind, told.superseded) for told in page.opinions
    ]


def queue(store: BankStore) -> list[opinions.ReviewItem]:
    with store.reading() as reading:
        ids = frozenset(bank.id for bank in reading.banks())
        return list(reading.read(lambda t: review_queue(t, ids, 0, 99)).items)


# ---------------------------------------------------------------- given


def test_an_opinion_is_a_change_with_all_that_was_said(store: BankStore) -> None:
    key = banned(store)
    opinion, disputed = says(store, "bob", FULL, key)
    assert disputed is None
    change = opinion.change
    assert (change.kind, change.actor, change.reason) == (
        ChangeKind.OPINION_GIVEN, "bob", "looked",
    )  # fmt: skip
    assert (change.entry_key, change.seq) == (key, store.seq())
    with store.reading() as reading:
        [stored] = reading.read(lambda t: t.opinions(key))
    assert stored == Opinion(FULL, change)
    assert store.changes(change.seq - 1, 9) == [change]


def test_the_same_opinion_again_writes_nothing(store: BankStore) -> None:
    """Of the same person; of another it is one more."""
    key = banned(store)
    first = says(store, "bob", WRONG, key).opinion
    seq = store.seq()
    assert says(store, "bob", WRONG, key) == (first, None)
    assert store.seq() == seq
    assert says(store, "cid", WRONG, key).opinion != first


def test_what_cannot_be_said_is_refused(store: BankStore, monkeypatch: pytest.MonkeyPatch) -> None:
    key = banned(store)
    other = store.create_bank("other", "", POLICY, EDIT)[0].name
    for refusal, bank, entry, said in (
        (errors.BankNotFound, "absent", key, WRONG),
        (errors.EntryNotFound, "spam", 99, WRONG),
        (errors.EntryInOtherBank, other, key, WRONG),
        (errors.BadHash, "spam", key, replace(WRONG, content_sha256=b"short")),
        (errors.LimitExceeded, "spam", key, replace(WRONG, note="x" * 4_001)),
        (errors.LimitExceeded, "spam", key, replace(WRONG, case_id="x" * 129)),
    ):
        with pytest.raises(refusal):
            store.give_opinion(bank, entry, said, EDIT, disputes_max=3)
    with pytest.raises(errors.BadRequest):
        store.give_opinion("spam", key, WRONG, Edit("bob", ""), disputes_max=3)
    monkeypatch.setattr("simsearch.bank.edits.opinions.OPINIONS_MAX", 1)
    says(store, "bob", WRONG, key)
    with pytest.raises(errors.LimitExceeded, match="decide about it"):
        says(store, "cid", WRONG, key)
    store.update_bank("spam", EDIT, archived=True)
    with pytest.raises(errors.BankArchived):
        says(store, "dan", WRONG, key)


# ---------------------------------------------------------------- k people doubt


def test_an_entry_is_disputed_by_the_third_person_and_not_before(store: BankStore) -> None:
    """In the same transaction, signed by the server, with the names of the three."""
    key = banned(store)
    for who, said in (("ann", WRONG), ("bob", WRONG), ("ann", replace(WRONG, note="again"))):
        assert says(store, who, said, key).disputed is None
        assert store.entry("spam", key).state is ACTIVE
    opinion, disputed = says(store, "cid", WRONG, key)
    assert disputed is not None
    assert disputed.seq == opinion.change.seq + 1 == store.seq()
    assert (disputed.kind, disputed.actor) == (ChangeKind.ENTRY_MOVED, SERVER_ACTOR)
    assert disputed.reason == "held a false positive by bob, ann and cid"
    assert store.entry("spam", key).state is DISPUTED
    assert says(store, "dan", WRONG, key).disputed is None


def test_a_newer_opinion_takes_the_place_of_the_older(store: BankStore) -> None:
    """Who thinks better of it doubts no more; both stay on the record."""
    key = banned(store)
    says(store, "ann", WRONG, key)
    says(store, "bob", WRONG, key)
    says(store, "ann", RIGHT, key)
    assert says(store, "cid", WRONG, key).disputed is None
    assert says(store, "ann", WRONG, key).disputed is not None
    kinds = OpinionKind
    assert said_of(store) == [
        ("ann", kinds.FALSE_POSITIVE, True), ("bob", kinds.FALSE_POSITIVE, False),
        ("ann", kinds.TRUE_POSITIVE, True), ("cid", kinds.FALSE_POSITIVE, False),
        ("ann", kinds.FALSE_POSITIVE, False),
    ]  # fmt: skip


def test_what_was_said_before_a_persons_decision_counts_no_more(store: BankStore) -> None:
    """Nor does one more make three of two old ones; three new ones do, of the same people too."""
    key = banned(store)
    for who in ("ann", "bob", "cid"):
        says(store, who, WRONG, key)
    store.move_entry("spam", key, ACTIVE, Edit("judge", "rightly banned"))
    for who in ("dan", "ann"):
        assert says(store, who, WRONG, key).disputed is None
    assert store.entry("spam", key).state is ACTIVE
    disputed = says(store, "bob", WRONG, key).disputed
    assert disputed is not None
    assert disputed.reason.endswith("dan, ann and bob")


@pytest.mark.parametrize("state", [s for s in EntryState if s is not ACTIVE])
def test_only_what_is_active_is_disputed(store: BankStore, state: EntryState) -> None:
    """An opinion is taken of an entry in any state, and moves none of the others."""
    key = banned(store, state if state in (EntryState.DRAFT, EntryState.SHADOW) else ACTIVE)
    if state is EntryState.RETRACTED:
        store.retract_entry("spam", key, EDIT)
    elif store.entry("spam", key).state is not state:
        store.move_entry("spam", key, state, EDIT)
    for who in ("ann", "bob", "cid", "dan"):
        assert says(store, who, WRONG, key).disputed is None
    assert store.entry("spam", key).state is state


def test_other_opinions_and_no_number_dispute_nothing(store: BankStore) -> None:
    key = banned(store)
    for number, kind in enumerate(OpinionKind):
        if kind is not OpinionKind.FALSE_POSITIVE:
            says(store, f"person-{number}", OpinionDraft(kind), key, disputes_max=1)
    for number in range(9):
        says(store, f"doubter-{number}", WRONG, key, disputes_max=0)
    assert store.entry("spam", key).state is ACTIVE
    disputed = says(store, "one more", WRONG, key, disputes_max=9).disputed
    assert disputed is not None  # what was lowered meanwhile holds from the next opinion on
    assert disputed.reason.endswith("doubter-8 and one more")


def test_a_reason_names_no_more_people_than_fit(store: BankStore) -> None:
    key = banned(store)
    for number in range(12):
        disputed = says(store, "p" * 120 + str(number), WRONG, key, disputes_max=12).disputed
    assert disputed is not None
    assert disputed.reason.endswith("9 and 2 more")
    assert len(disputed.reason) < 2_000


ACTORS = ("ann", "bob", "cid", SERVER_ACTOR)


@given(
    events=st.lists(
        st.tuples(st.sampled_from(ACTORS), st.sampled_from(["move", "wrong", "right"])), max_size=12
    )
)
@settings(max_examples=200, deadline=None)
def test_who_doubts_is_who_said_so_last_since_the_last_decision(
    events: list[tuple[str, str]],
) -> None:
    """Against a plain model: a person's move clears it, the server's own does not."""
    entry_moves, given_, model = [], [], dict[str, str]()
    for seq, (actor, what) in enumerate(events, 2):
        kind = ChangeKind.ENTRY_MOVED if what == "move" else ChangeKind.OPINION_GIVEN
        change = Change(seq, kind, 1, 1, actor, "-", 0)
        if what == "move":
            entry_moves.append(Move(ACTIVE, change))
            if actor != SERVER_ACTOR:
                model.clear()
        else:
            given_.append(Opinion(WRONG if what == "wrong" else RIGHT, change))
            model[actor] = what
    added = Change(1, ChangeKind.ENTRY_ADDED, 1, 1, "ann", "-", 0)
    entry = Entry(1, 1, ACTIVE, (), "", "", "", {}, added, moves=tuple(entry_moves))
    assert {o.actor for o in current_opinions(entry, given_)} == model.keys()
    assert set(false_positive_actors(entry, given_)) == {
        a for a, what in model.items() if what == "wrong"
    }


# ---------------------------------------------------------------- lists


def test_opinions_are_chosen_and_listed_page_by_page(store: BankStore) -> None:
    keys = [banned(store) for _ in range(3)]
    other = store.create_bank("other", "", POLICY, EDIT)[0]
    foreign = store.add_entries("other", [full_draft(2)], EDIT)[0].key
    for key in keys:
        says(store, "ann", WRONG, key)
        says(store, "bob", RIGHT, key)
    store.give_opinion("other", foreign, RIGHT, EDIT, disputes_max=3)
    wrong, right = OpinionKind.FALSE_POSITIVE, OpinionKind.TRUE_POSITIVE
    assert len(said_of(store)) == 6
    assert said_of(store, key=keys[1]) == [("ann", wrong, False), ("bob", right, False)]
    assert said_of(store, key=foreign) == []
    assert said_of(store, kind=right, actor="ann") == []
    assert [who for who, *_ in said_of(store, actor="bob")] == ["bob"] * 3
    assert said_of(store, since_us=NOW_US + 10**12) == []
    assert len(said_of(store, since_us=1, until_us=NOW_US + 10**12)) == 6
    assert said_of(store, until_us=1) == []
    with store.reading() as reading:
        wanted, seen = OpinionFilter(store.bank("spam").id), list[int]()
        rest: tuple[int, int] | None = (0, 0)
        while rest is not None:
            at = rest
            page = reading.read(lambda t, at=at: list_opinions(t, wanted, at, 2))  # type: ignore[misc]
            seen += [told.opinion.change.seq for told in page.opinions]
            rest = page.rest
        assert len(seen) == len(set(seen)) == 6
        assert (
            len(
                reading.read(
                    lambda t: list_opinions(t, OpinionFilter(other.id), (0, 0), 9)
                ).opinions
            )
            == 1
        )


def test_a_page_looks_at_no_more_than_its_bound(
    store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is empty then, and says where to go on."""
    key = banned(store)
    for who in ("ann", "bob", "cid"):
        says(store, who, RIGHT, key, disputes_max=0)
    monkeypatch.setattr("simsearch.bank.edits.opinions.LOOKED_AT_MAX", 2)
    with store.reading() as reading:
        wanted = OpinionFilter(store.bank("spam").id, actor="cid")
        page = reading.read(lambda t: list_opinions(t, wanted, (0, 0), 9))
        assert page.opinions == ()
        assert page.rest is not None
        rest = page.rest
        [told] = reading.read(lambda t: list_opinions(t, wanted, rest, 9)).opinions
    assert told.opinion.actor == "cid"


def test_what_is_disputed_waits_for_a_person_the_longest_first(store: BankStore) -> None:
    """Whoever disputed it; with the opinions that stand; until it is moved, or retracted."""
    keys = [banned(store) for _ in range(4)]
    store.move_entry("spam", keys[2], DISPUTED, EDIT)
    for who in ("ann", "bob", "ann"):
        says(store, who, replace(WRONG, note=who), keys[0], disputes_max=2)
    store.move_entry("spam", keys[1], DISPUTED, EDIT)
    store.move_entry("spam", keys[3], QUARANTINED, EDIT)  # a person decided: nothing waits
    waiting = queue(store)
    assert [each.entry.key for each in waiting] == [keys[2], keys[0], keys[1]]
    assert [o.actor for o in waiting[1].opinions] == ["ann", "bob"]
    assert waiting[1].since.actor == SERVER_ACTOR
    store.move_entry("spam", keys[0], ACTIVE, EDIT)
    store.retract_entry("spam", keys[1], EDIT)
    assert [each.entry.key for each in queue(store)] == [keys[2]]
    with store.reading() as reading:
        assert reading.read(lambda t: review_queue(t, frozenset({99}), 0, 9)).items == ()
        first = reading.read(lambda t: review_queue(t, frozenset({1}), 0, 1))
    assert first.rest == 0


# ---------------------------------------------------------------- floods


def test_a_flooding_entry_is_quarantined_and_waits_for_a_person(store: BankStore) -> None:
    for start in (ACTIVE, DISPUTED):
        key = banned(store)
        if start is DISPUTED:
            store.move_entry("spam", key, DISPUTED, EDIT)
        done = store.quarantine_flooding(key, "1,240 near hits in a minute", NOW_US + 10**10)
        assert done is not None
        assert done.bank == "spam"
        assert done.change is not None
        assert (done.change.actor, done.change.reason) == (
            SERVER_ACTOR,
            "1,240 near hits in a minute",
        )
        assert store.entry("spam", key).state is QUARANTINED
        assert queue(store)[-1].entry.key == key
        assert store.quarantine_flooding(key, "again", NOW_US + 10**10) is None


def test_a_flood_moves_nothing_that_is_not_asked_or_was_moved_since(store: BankStore) -> None:
    later_us = NOW_US + 10**10
    shadow, moved, gone = banned(store, EntryState.SHADOW), banned(store), banned(store)
    store.move_entry("spam", moved, DISPUTED, EDIT)
    store.retract_entry("spam", gone, EDIT)
    before = store.seq()
    assert store.quarantine_flooding(shadow, "-", later_us) is None
    assert store.quarantine_flooding(gone, "-", later_us) is None
    assert store.quarantine_flooding(99, "-", later_us) is None
    assert store.quarantine_flooding(moved, "-", NOW_US - 10**10) is None
    store.update_bank("spam", EDIT, archived=True)
    assert store.quarantine_flooding(moved, "-", later_us) is None
    assert store.seq() == before + 1


def test_what_a_person_let_out_of_quarantine_stays_out_for_a_day(store: BankStore) -> None:
    """A person has looked at the flood: for a day the server does not know better."""
    key = banned(store)
    store.quarantine_flooding(key, "-", NOW_US + 10**10)
    released = store.move_entry("spam", key, ACTIVE, EDIT)[1]
    assert released is not None
    before = released.time_us + RELEASE_GRACE_US - 1
    left = store.quarantine_flooding(key, "-", before)
    assert left is not None
    assert left.change is None
    assert store.entry("spam", key).state is ACTIVE
    assert store.quarantine_flooding(key, "-", before + 1) not in (None, left)
    assert store.entry("spam", key).state is QUARANTINED


# ---------------------------------------------------------------- hits


def test_hits_are_added_beside_the_log(store: BankStore) -> None:
    """They are no change: the log, its subscribers and its head are as before."""
    key, told = banned(store), list[int]()
    store.subscribe(told.append)
    seq = store.seq()
    store.add_hits({key: HitCounts(block=1, near=1, last_us=5)})
    store.add_hits({key: HitCounts(review=2, log=3, shadow=4, last_us=3), 77: HitCounts(log=1)})
    assert store.hits([key, 78]) == {key: HitCounts(1, 2, 3, 1, 4, 5), 78: HitCounts()}
    assert store.hits([key])[key].total == 6
    assert (store.seq(), told) == (seq, [])


# ---------------------------------------------------------------- the record


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Entry 1 has three opinions (changes 3 to 5) and is disputed by the last of them."""
    path = tmp_path_factory.mktemp("opinions") / "bank"
    with store_with_bank(path) as store:
        key = banned(store)
        for who in ("ann", "bob", "cid"):
            says(store, who, replace(FULL, kind=OpinionKind.FALSE_POSITIVE), key)
        store.add_hits({key: HitCounts(block=3)})
    return path


@pytest.fixture
def path(untouched: Path, tmp_path: Path) -> Path:
    return shutil.copytree(untouched, tmp_path / "copy")


def test_an_untouched_record_of_opinions_is_whole(path: Path) -> None:
    """Also for a state from before the newest of them."""
    assert audited(path).faults == ()
    with BankStore.open(path, writer=True) as store, store.reading() as reading:
        store.give_opinion("spam", 1, RIGHT, EDIT, disputes_max=3)
        assert verify(reading, store.store_id).faults == ()


@pytest.mark.parametrize(
    "field", [{"kind": 1}, {"note": "none"}, {"content_sha256": sha("x")}, {"case_id": "c"}]
)
def test_an_altered_opinion_is_found(path: Path, field: dict[str, object]) -> None:
    with RawTables(path) as tables:
        at = keys.opinion_key(1, 4)
        record = pb.OpinionRecord.FromString(tables.rows(keys.OPINIONS)[at])
        record.MergeFrom(pb.OpinionRecord(**field))  # type: ignore[arg-type]
        tables.put(keys.OPINIONS, at, record.SerializeToString())
    assert audited(path).faults == ("entry 1: the opinion of change 4 is not as it was given",)


def test_an_opinion_that_was_taken_out_or_put_in_is_found(path: Path) -> None:
    with RawTables(path) as tables:
        body = tables.rows(keys.OPINIONS)[keys.opinion_key(1, 4)]
        tables.delete(keys.OPINIONS, keys.opinion_key(1, 4))
    assert audited(path).faults == (
        "entry 1: the opinion of change 4 is not as it was given",
        "there are 2 opinions; 3 were given",
    )
    with RawTables(path) as tables:
        tables.put(keys.OPINIONS, keys.opinion_key(1, 4), body)
        record = pb.OpinionRecord.FromString(body)
        record.change.seq = 2
        tables.put(keys.OPINIONS, keys.opinion_key(1, 2), record.SerializeToString())
    assert audited(path).faults == ("there are 4 opinions; 3 were given",)


def test_whose_opinion_it_was_cannot_be_changed(path: Path) -> None:
    """Not in the record alone, and not in the log with all its links made anew."""
    with RawTables(path) as tables:
        tables.alter_change(4, actor="eve")
        tables.link_anew()
    assert any("change 4" in fault for fault in audited(path).faults)


def test_a_store_from_before_there_were_opinions_gets_them(tmp_path: Path) -> None:
    """From who writes. Who reads finds none, which is true."""
    path = tmp_path / "old"
    with store_with_bank(path) as store:
        key = banned(store)
    with lmdb.open(str(path), max_dbs=len(keys.TABLES)) as raw:
        for table in (keys.OPINIONS, keys.HITS, keys.REVIEW):
            handle = raw.open_db(table)
            with raw.begin(write=True) as transaction:
                transaction.drop(handle, delete=True)
    with BankStore.open(path, writer=False) as reader:
        assert reader.hits([key]) == {key: HitCounts()}
        assert (queue(reader), said_of(reader)) == ([], [])
        with reader.reading() as reading:
            assert reading.read(lambda t: (t.opinions(key), t.opinion(key, 2))) == ([], None)
    assert audited(path).faults == ()
    with BankStore.open(path, writer=True) as store:
        assert says(store, "bob", WRONG, key, disputes_max=1).disputed is not None
        assert len(queue(store)) == 1
