"""The store's promises, by values."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simsearch import errors
from simsearch.bank import edit_checks
from simsearch.bank.edits import entries as edits
from simsearch.bank.lmdb.environment import Environment
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.store import BankStore
from simsearch.types import (
    Change,
    ChangeKind,
    CosineRule,
    DigestRule,
    Edit,
    Entry,
    EntryDraft,
    EntryState,
    Fingerprint,
    Modality,
    Policy,
    Signal,
)
from tests.bank.worlds import (
    EDIT,
    POLICY,
    SPACE,
    as_stored,
    bits,
    digest_draft,
    full_draft,
    same,
    sha,
    store_with_bank,
    unit,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.fixture
def store(path: Path) -> Iterator[BankStore]:
    with store_with_bank(path) as opened:
        yield opened


def keys(entries: list[Entry]) -> list[int]:
    return [entry.key for entry in entries]


# ---------------------------------------------------------------- what goes in comes out


def test_every_field_of_an_entry_comes_back_after_a_restart(path: Path) -> None:
    """Labels, source, note, who, why, when and every signal survive closing and opening."""
    draft = full_draft(1)
    with store_with_bank(path) as store:
        added = store.add_entries("spam", [draft], EDIT)[0]
    with BankStore.open(path, writer=False) as store:
        assert store.entry("spam", added.key) == added
        read = store.fingerprints([added.key, 999])
    assert added == Entry(
        key=1,
        bank_id=1,
        state=EntryState.ACTIVE,
        labels=("scam", "größe"),
        source="tips line",
        source_id="t-1",
        note="seen twice\n",
        signals=draft.fingerprint.rows(),
        added=Change(2, ChangeKind.ENTRY_ADDED, 1, 1, "ann", "case 7", added.added.time_us),
    )
    assert list(read) == [added.key]
    assert same(read[added.key], as_stored(draft.fingerprint))


def test_every_field_of_a_bank_comes_back_after_a_restart(path: Path) -> None:
    """Name, description, policy, times and counts survive closing and opening."""
    with store_with_bank(path) as store:
        created = store.bank("spam")
        store_id = store.store_id
    with BankStore.open(path, writer=True) as store:
        assert store.banks() == [created]
        assert store.store_id == store_id
    assert (created.id, created.name, created.description) == (1, "spam", "Known spam")
    assert (created.policy, created.version, created.active_entries) == (POLICY, 1, 0)


def test_a_retracted_entry_keeps_its_record_and_fingerprint(store: BankStore) -> None:
    """Retraction says who and why; what was banned stays readable, to explain old hits."""
    draft = full_draft(2)
    added = store.add_entries("spam", [draft], EDIT)[0]
    retracted, _ = store.retract_entry("spam", added.key, Edit("bob", "false positive"))
    change = retracted.retracted
    assert change is not None
    assert change == Change(
        3, ChangeKind.ENTRY_RETRACTED, 1, added.key, "bob", "false positive", change.time_us
    )
    assert retracted == replace(added, state=EntryState.RETRACTED, retracted=change)
    assert store.entry("spam", added.key) == retracted
    assert same(store.fingerprints([added.key])[added.key], as_stored(draft.fingerprint))
    assert store.bank("spam").active_entries == 0


# ---------------------------------------------------------------- keys, seqs, the log


def test_a_key_is_never_given_twice(path: Path) -> None:
    """Not after a retraction, a refused edit, an aborted transaction or a restart."""
    given: list[int] = []
    for _ in range(3):
        with BankStore.open(path, writer=True) as store:
            if not given:
                store.create_bank("spam", "", POLICY, EDIT)
            given += keys(store.add_entries("spam", [digest_draft("a"), digest_draft("b")], EDIT))
            store.retract_entry("spam", given[-1], EDIT)
            with pytest.raises(errors.NoSignal):
                store.add_entries("spam", [EntryDraft(Fingerprint())], EDIT)
            given += keys(store.add_entries("spam", [digest_draft("a")], EDIT))
            store.retract_entry("spam", given[-1], EDIT)
    assert given == sorted(set(given))
    assert len(given) == 9


def test_the_log_has_no_gap_and_one_order(store: BankStore) -> None:
    """Every change has the next seq, whichever bank and kind, one per entry of a batch."""
    assert store.seq() == 1
    _, created = store.create_bank("terror", "", Policy(), EDIT)
    entries = store.add_entries("terror", [digest_draft(name) for name in "abc"], EDIT)
    _, updated = store.update_bank("spam", EDIT, description="new")
    retracted, _ = store.retract_entry("terror", entries[1].key, EDIT)
    assert [entry.added.seq for entry in entries] == [3, 4, 5]
    log = store.changes(0, 100)
    assert [change.seq for change in log] == [1, 2, 3, 4, 5, 6, 7]
    assert log[1:] == [created, *(e.added for e in entries), updated, retracted.retracted]
    assert store.changes(2, 2) == log[2:4]
    assert store.changes(7, 2) == store.changes(2**40, 2) == []
    assert store.seq() == 7


def test_subscribers_hear_of_each_commit_in_order(
    store: BankStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The callback gets the last seq of a durable edit; if it fails, the edit still stands."""
    heard: list[int] = []

    def fail(seq: int) -> None:
        raise ValueError(seq)

    store.subscribe(fail)
    store.subscribe(heard.append)
    with caplog.at_level(logging.ERROR):
        store.add_entries("spam", [digest_draft("a"), digest_draft("b")], EDIT)
    store.retract_entry("spam", 1, EDIT)
    with pytest.raises(errors.EntryRetracted):
        store.retract_entry("spam", 1, EDIT)
    assert heard == [3, 4]
    assert "bank_subscriber_failed" in caplog.text


def test_edits_of_many_threads_are_all_kept(store: BankStore) -> None:
    """Threads may edit and read at once: no edit is lost, no key or seq is given twice."""
    added: list[Entry] = []

    def edit(thread: int) -> None:
        for number in range(10):
            added.extend(store.add_entries("spam", [digest_draft(f"{thread}/{number}")], EDIT))
            assert store.seq() >= added[-1].added.seq - 40
            store.list_entries("spam", limit=5)

    threads = [threading.Thread(target=edit, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(keys(added)) == list(range(1, 41))
    assert sorted(entry.added.seq for entry in added) == list(range(2, 42))
    assert store.bank("spam").active_entries == 40
    assert all(store.entry("spam", entry.key) == entry for entry in added)


# ---------------------------------------------------------------- banks


def test_an_update_sets_what_is_given_and_moves_the_etag(store: BankStore) -> None:
    """What is None stays; adding entries is no update of the bank."""
    store.add_entries("spam", [digest_draft("a")], EDIT)
    assert store.bank("spam").etag == "v1"
    first, change = store.update_bank("spam", EDIT, description="new", etag="v1")
    assert (first.description, first.policy, first.etag) == ("new", POLICY, "v2")
    assert (change.kind, change.bank_id, change.entry_key) == (ChangeKind.BANK_UPDATED, 1, 0)
    second, _ = store.update_bank("spam", EDIT, policy=Policy())
    assert (second.description, second.policy, second.etag) == ("new", Policy(), "v3")
    assert store.bank("spam") == second
    assert second.active_entries == 1


def test_an_update_of_another_version_is_refused(store: BankStore) -> None:
    """Of two edits that began from one etag the second is refused, and changes nothing."""
    store.update_bank("spam", EDIT, description="first", etag="v1")
    with pytest.raises(errors.BankChanged, match="is at v2, not at v1"):
        store.update_bank("spam", EDIT, description="second", etag="v1")
    assert store.bank("spam").description == "first"
    assert store.seq() == 2


def test_a_bank_name_is_given_once(store: BankStore) -> None:
    """Creating a bank that is there is refused and logs nothing."""
    with pytest.raises(errors.BankExists, match="'spam' exists"):
        store.create_bank("spam", "", Policy(), EDIT)
    assert store.seq() == 1


@pytest.mark.parametrize("name", ["", "Spam", "1a", "a b", "a" * 65, "é", "a\n", "-a", "\ud800"])
def test_a_bad_bank_name_is_refused(store: BankStore, name: str) -> None:
    """Names are a lower-case letter, then up to 63 of a-z 0-9 _ -; no other can be found."""
    with pytest.raises(errors.BadBankName):
        store.create_bank(name, "", Policy(), EDIT)
    with pytest.raises(errors.BankNotFound):
        store.bank(name)


def test_the_longest_bank_name_works(store: BankStore) -> None:
    """64 characters."""
    name = "a" + "-" * 62 + "9"
    store.create_bank(name, "", Policy(), EDIT)
    assert [bank.name for bank in store.banks()] == ["spam", name]


def test_an_unknown_bank_is_named(store: BankStore) -> None:
    """Every method that takes a bank says which one is not there."""
    with pytest.raises(errors.BankNotFound, match="'ham'"):
        store.update_bank("ham", EDIT, description="")
    with pytest.raises(errors.BankNotFound, match="'ham'"):
        store.add_entries("ham", [digest_draft("a")], EDIT)
    with pytest.raises(errors.BankNotFound, match="'ham'"):
        store.retract_entry("ham", 1, EDIT)
    with pytest.raises(errors.BankNotFound, match="'ham'"):
        store.entry("ham", 1)
    with pytest.raises(errors.BankNotFound, match="'ham'"):
        store.list_entries("ham", limit=1)
    assert store.seq() == 1


# ---------------------------------------------------------------- entries


def test_an_entry_of_another_bank_is_not_given_out_or_retracted(store: BankStore) -> None:
    """A key belongs to one bank; through another bank's name it is refused by name."""
    store.create_bank("terror", "", Policy(), EDIT)
    (entry,) = store.add_entries("terror", [digest_draft("a")], EDIT)
    with pytest.raises(errors.EntryInOtherBank, match="entry 1 is not in bank 'spam'"):
        store.entry("spam", entry.key)
    with pytest.raises(errors.EntryInOtherBank):
        store.retract_entry("spam", entry.key, EDIT)
    assert store.entry("terror", entry.key) == entry
    assert store.list_entries("spam", limit=10) == []


def test_an_entry_is_retracted_once(store: BankStore) -> None:
    """The second retraction is refused: the first actor and reason stand."""
    store.add_entries("spam", [digest_draft("a")], EDIT)
    retracted, _ = store.retract_entry("spam", 1, EDIT)
    with pytest.raises(errors.EntryRetracted, match="entry 1"):
        store.retract_entry("spam", 1, Edit("eve", "again"))
    assert store.entry("spam", 1) == retracted
    assert store.bank("spam").active_entries == 0
    assert store.seq() == 3


@pytest.mark.parametrize("key", [0, -1, 2, 2**64 - 1, 2**70])
def test_an_unknown_entry_is_named(store: BankStore, key: int) -> None:
    """Whatever number is asked for."""
    store.add_entries("spam", [digest_draft("a")], EDIT)
    with pytest.raises(errors.EntryNotFound, match=f"no entry {key}"):
        store.entry("spam", key)
    with pytest.raises(errors.EntryNotFound):
        store.retract_entry("spam", key, EDIT)
    assert list(store.entries_by_key([key, 1])) == [1]
    assert list(store.fingerprints([key, 1])) == [1]


def test_listing_pages_by_key_within_one_bank(store: BankStore) -> None:
    """Pages of 2 give every entry of the bank once, in key order; `state` selects."""
    store.create_bank("terror", "", Policy(), EDIT)
    for name in "abcde":
        store.add_entries("spam", [digest_draft(name)], EDIT)
        store.add_entries("terror", [digest_draft(name)], EDIT)
    store.retract_entry("spam", 3, EDIT)
    store.retract_entry("spam", 7, EDIT)
    assert keys(store.list_entries("spam", limit=2)) == [1, 3]
    assert keys(store.list_entries("spam", after_key=3, limit=2)) == [5, 7]
    assert keys(store.list_entries("spam", after_key=7, limit=2)) == [9]
    assert keys(store.list_entries("spam", after_key=9, limit=2)) == []
    assert keys(store.list_entries("spam", limit=9, state=EntryState.ACTIVE)) == [1, 5, 9]
    assert keys(store.list_entries("spam", limit=1, state=EntryState.RETRACTED)) == [3]
    assert keys(store.list_entries("terror", after_key=2**40, limit=2)) == []
    assert store.list_entries("spam", limit=1)[0] == store.entry("spam", 1)


def test_a_batch_is_added_whole_or_not_at_all(store: BankStore) -> None:
    """One bad draft refuses the batch before anything is written."""
    drafts = [digest_draft("a"), EntryDraft(Fingerprint()), digest_draft("b")]
    with pytest.raises(errors.NoSignal):
        store.add_entries("spam", drafts, EDIT)
    assert store.seq() == 1
    assert store.find_digests([(Signal.SHA256, sha("a"))], 9)[0] == []


def test_an_edit_that_fails_in_the_middle_leaves_nothing(
    store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong inside the transaction, no table keeps a part of it."""
    store.add_entries("spam", [digest_draft("a")], EDIT)
    before = _everything(store)
    put_fingerprint = Tables.put_fingerprint

    def fail_at_4(tables: Tables, key: int, fingerprint: bytes) -> None:
        put_fingerprint(tables, key, fingerprint)
        if key == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Tables, "put_fingerprint", fail_at_4)
    with pytest.raises(KeyboardInterrupt):
        store.add_entries("spam", [digest_draft(name) for name in "abcd"], EDIT)
    monkeypatch.undo()
    assert _everything(store) == before
    assert keys(store.add_entries("spam", [digest_draft("b")], EDIT)) == [2]


def _everything(store: BankStore) -> tuple[object, ...]:
    with store.reading() as reading:
        active = [(key, bank_id) for key, bank_id, _ in reading.active_entries()]
    digests = [store.find_digests([(Signal.SHA256, sha(name))], 99)[0] for name in "abcd"]
    entries = store.list_entries("spam", limit=99)
    return (
        store.banks(),
        store.changes(0, 99),
        entries,
        active,
        digests,
        list(store.fingerprints(range(1, 9))),
    )


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (Edit("", "r"), errors.BadRequest, "actor is missing"),
        (Edit(" \t", "r"), errors.BadRequest, "actor is missing"),
        (Edit("a", ""), errors.BadRequest, "reason is missing"),
        (Edit("a", "\n"), errors.BadRequest, "reason is missing"),
        (Edit("a" * 129, "r"), errors.LimitExceeded, "actor has 129"),
        (Edit("a", "r" * 2001), errors.LimitExceeded, "reason has 2001"),
        (Edit("\ud800", "r"), errors.BadRequest, "actor is not valid Unicode"),
    ],
)
def test_no_edit_without_a_name_and_a_reason(
    store: BankStore, edit: Edit, error: type[errors.SimsearchError], message: str
) -> None:
    """Every kind of edit is refused alike, and the message says what is missing."""
    store.add_entries("spam", [digest_draft("a")], EDIT)
    with pytest.raises(error, match=message):
        store.create_bank("terror", "", Policy(), edit)
    with pytest.raises(error, match=message):
        store.update_bank("spam", edit, description="x")
    with pytest.raises(error, match=message):
        store.add_entries("spam", [digest_draft("a")], edit)
    with pytest.raises(error, match=message):
        store.retract_entry("spam", 1, edit)
    assert store.seq() == 2


def test_the_longest_texts_are_kept(store: BankStore) -> None:
    """At each limit exactly, a text comes back whole."""
    edit = Edit("a" * 128, "r" * 2_000)
    draft = replace(
        digest_draft("a"),
        labels=tuple("l" * 63 + chr(97 + n % 26) for n in range(32)),
        source="s" * 256,
        source_id="i" * 256,
        note="n" * 4_000,
    )
    (entry,) = store.add_entries("spam", [draft], edit)
    read = store.entry("spam", entry.key)
    assert (read.labels, read.source, read.source_id) == (draft.labels, "s" * 256, "i" * 256)
    assert (read.note, read.added.actor, read.added.reason) == (
        "n" * 4_000,
        edit.actor,
        edit.reason,
    )


DRAFT = digest_draft("a")
NAN = np.float32("nan")


@pytest.mark.parametrize(
    ("draft", "error"),
    [
        (replace(DRAFT, labels=("l",) * 33), errors.LimitExceeded),
        (replace(DRAFT, labels=("l" * 65,)), errors.LimitExceeded),
        (replace(DRAFT, labels=("a", " ")), errors.BadRequest),
        (replace(DRAFT, note="n" * 4_001), errors.LimitExceeded),
        (replace(DRAFT, source="s" * 257), errors.LimitExceeded),
        (replace(DRAFT, source_id="s" * 257), errors.LimitExceeded),
        (replace(DRAFT, note="\udfff"), errors.BadRequest),
        (EntryDraft(Fingerprint()), errors.NoSignal),
        (EntryDraft(Fingerprint(digests={Signal.MD5: ()})), errors.NoSignal),
        (EntryDraft(Fingerprint(digests={Signal.MD5: (b"a",)})), errors.BadHash),
        (EntryDraft(Fingerprint(digests={Signal.PDQ: (bytes(32),)})), errors.BadHash),
        (EntryDraft(Fingerprint(bits={Signal.SHA256: bits(1, 0)})), errors.BadHash),
        (EntryDraft(Fingerprint(bits={Signal.PDQ: bits(1, 0)[:, :31]})), errors.BadHash),
        (EntryDraft(Fingerprint(bits={Signal.PDQ: bits(1, 0)[0]})), errors.BadHash),
        (EntryDraft(Fingerprint(bits={Signal.PDQ: bits(1025, 0)})), errors.LimitExceeded),
        (EntryDraft(Fingerprint(vectors={"": unit(1, 4, 0)})), errors.BadRequest),
        (EntryDraft(Fingerprint(vectors={"s" * 257: unit(1, 4, 0)})), errors.LimitExceeded),
        (EntryDraft(Fingerprint(vectors={"s": 2 * unit(1, 4, 0)})), errors.BadVector),
        (
            EntryDraft(Fingerprint(vectors={"s": unit(1, 4, 0) * np.float32("nan")})),
            errors.BadVector,
        ),
        (EntryDraft(Fingerprint(vectors={"s": unit(1, 4, 0)[0]})), errors.BadVector),
        (EntryDraft(Fingerprint(vectors={"s": unit(1, 8193, 0)})), errors.BadVector),
        (
            EntryDraft(Fingerprint(vectors={"s": unit(1, 4, 0).astype(np.float64)})),
            errors.BadVector,
        ),
    ],
)
def test_a_draft_outside_the_limits_is_refused(
    store: BankStore, draft: EntryDraft, error: type[errors.SimsearchError]
) -> None:
    """By name, before anything is written."""
    with pytest.raises(error):
        store.add_entries("spam", [DRAFT, draft], EDIT)
    assert store.seq() == 1


def test_edits_and_listings_have_bounds(store: BankStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches, pages, rules and descriptions beyond their limits are refused by name."""
    assert edit_checks.EDIT_BYTES_MAX == 1 << 28
    monkeypatch.setattr(edit_checks, "EDIT_BYTES_MAX", 1_000)
    with pytest.raises(errors.BadRequest, match="no entries"):
        store.add_entries("spam", [], EDIT)
    with pytest.raises(errors.LimitExceeded, match="16384"):
        store.add_entries("spam", [DRAFT] * 16_385, EDIT)
    full = EntryDraft(Fingerprint({}, {Signal.PDQ: bits(5, 0)}, {SPACE: unit(5, 4, 0)}))
    with pytest.raises(errors.LimitExceeded, match="have 1200 bytes, the limit is 1000: split it"):
        store.add_entries("spam", [full] * 6, EDIT)
    for limit, error in [
        (0, errors.BadRequest),
        (-1, errors.BadRequest),
        (10_001, errors.LimitExceeded),
    ]:
        with pytest.raises(error):
            store.list_entries("spam", limit=limit)
        with pytest.raises(error):
            store.changes(0, limit)
    for after in (-1, 2**64 - 1):
        with pytest.raises(errors.BadRequest):
            store.changes(after, 1)
    with pytest.raises(errors.LimitExceeded):
        store.update_bank("spam", EDIT, description="d" * 4_001)
    with pytest.raises(errors.LimitExceeded):
        store.update_bank("spam", EDIT, policy=Policy(digests=(DigestRule(Signal.MD5, 1),) * 257))  # type: ignore[arg-type]
    with pytest.raises(errors.LimitExceeded):
        store.update_bank("spam", EDIT, policy=Policy((CosineRule("s" * 257, Modality.TEXT),)))
    with pytest.raises(errors.BadRequest, match="changes nothing"):
        store.update_bank("spam", EDIT)
    assert store.seq() == 1


# ---------------------------------------------------------------- digests


def test_a_digest_is_found_at_every_position_of_the_log(store: BankStore) -> None:
    """MVCC: an entry is found from its own seq on, and no longer from its retraction on."""
    store.create_bank("terror", "", Policy(), EDIT)
    alive: dict[int, set[tuple[int, int]]] = {store.seq(): set()}
    banks = {1: "spam", 2: "terror"}

    def remember(add: set[tuple[int, int]], remove: set[tuple[int, int]]) -> None:
        alive[store.seq()] = (alive[store.seq() - 1] | add) - remove

    for number in range(12):
        bank_id = 1 + number % 2
        (entry,) = store.add_entries(banks[bank_id], [digest_draft("same")], EDIT)
        remember({(entry.key, bank_id)}, set())
        if number % 3:
            bank_id = 1 + (number - 1) % 2
            store.retract_entry(banks[bank_id], entry.key - 1, EDIT)
            remember(set(), {(entry.key - 1, bank_id)})
        else:
            store.add_entries(banks[bank_id], [digest_draft("other")], EDIT)
            remember(set(), set())
            (entry,) = store.add_entries(banks[bank_id], [digest_draft("same")], EDIT)
            remember({(entry.key, bank_id)}, set())
    assert store.find_digests([(Signal.SHA256, sha("same"))], 0)[0] == []
    for through, expected in alive.items():
        assert store.find_digests([(Signal.SHA256, sha("same"))], through)[0] == sorted(expected)
    assert store.find_digests([(Signal.SHA256, sha("same"))], 2**63)[0] == sorted(
        alive[store.seq()]
    )
    assert store.find_digests([(Signal.SHA256, sha("same"))], -1)[0] == []


def test_a_digest_of_another_signal_is_not_found(store: BankStore) -> None:
    """Equal bytes under another signal are another digest; so are bytes that share a prefix."""
    store.add_entries("spam", [digest_draft("a", Signal.TEXT_SHA256)], EDIT)
    short = EntryDraft(Fingerprint(digests={Signal.MD5: (sha("a")[:16],)}))
    store.add_entries("spam", [short], EDIT)
    assert store.find_digests([(Signal.SHA256, sha("a"))], 9)[0] == []
    assert store.find_digests([(Signal.TEXT_SHA256, sha("a"))], 9)[0] == [(1, 1)]
    assert store.find_digests([(Signal.MD5, sha("a")[:16])], 9)[0] == [(2, 1)]


def test_all_digests_of_an_entry_live_and_end_together(store: BankStore) -> None:
    """An entry with several digests, one of them twice, is found once by each until it ends."""
    twice = (sha("a"), sha("b"), sha("a"))
    store.add_entries("spam", [EntryDraft(Fingerprint(digests={Signal.SHA256: twice}))], EDIT)
    for name in "ab":
        assert store.find_digests([(Signal.SHA256, sha(name))], 2)[0] == [(1, 1)]
    store.retract_entry("spam", 1, EDIT)
    for name in "ab":
        assert store.find_digests([(Signal.SHA256, sha(name))], 2)[0] == [(1, 1)]
        assert store.find_digests([(Signal.SHA256, sha(name))], 3)[0] == []


@pytest.mark.parametrize(
    ("signal", "digest"), [(Signal.PDQ, bytes(32)), (Signal.MD5, bytes(32)), (Signal.SHA256, b"")]
)
def test_asking_for_something_that_is_no_digest_is_refused(
    store: BankStore, signal: Signal, digest: bytes
) -> None:
    """Never an empty answer for a question that cannot have one."""
    with pytest.raises(errors.BadHash):
        store.find_digests([(Signal.SHA256, sha("a")), (signal, digest)], 1)


def test_many_digests_are_looked_up_in_one_transaction(
    store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets its own answer, in order, though one is asked twice or is not there."""
    store.add_entries("spam", [digest_draft(name) for name in "ab"], EDIT)
    begun: list[object] = []
    read = Environment.read

    def counted(environment: Environment, work: Callable[[Tables], object]) -> object:
        begun.append(work)
        return read(environment, work)

    monkeypatch.setattr(Environment, "read", counted)
    asked = [(Signal.SHA256, sha(name)) for name in "bxab"]
    assert store.find_digests(asked, 9) == [[(2, 1)], [], [(1, 1)], [(2, 1)]]
    assert len(begun) == 1


# ---------------------------------------------------------------- reading


def test_a_reading_stays_at_its_seq(store: BankStore) -> None:
    """Edits made while it is read change nothing in it: not entries, banks, log or signals."""
    drafts = [full_draft(seed) for seed in range(5)]
    store.add_entries("spam", drafts, EDIT)
    store.retract_entry("spam", 2, EDIT)
    with store.reading() as reading:
        rows = reading.active_entries()
        first = next(rows)
        store.retract_entry("spam", 4, EDIT)
        store.add_entries("spam", drafts, EDIT)
        store.update_bank("spam", EDIT, description="later")
        read = [first, *rows]
        assert reading.seq == 7
        assert reading.banks()[0].description == "Known spam"
        assert reading.banks()[0].active_entries == len(read)
        assert [change.seq for change in reading.changes(4, 99)] == [5, 6, 7]
        assert reading.changes(7, 99) == []
        assert sorted(reading.fingerprints(range(20))) == [1, 2, 3, 4, 5]
    assert [(key, bank_id) for key, bank_id, _ in read] == [(1, 1), (3, 1), (4, 1), (5, 1)]
    for key, _, fingerprint in read:
        assert same(fingerprint, as_stored(drafts[key - 1].fingerprint))
    with store.reading() as later:
        assert [key for key, _, _ in later.active_entries()] == [1, 3, 5, 6, 7, 8, 9, 10]


def test_a_reading_crosses_its_chunks(store: BankStore) -> None:
    """More entries than one short transaction reads, whole chunks of them retracted."""
    store.add_entries("spam", [digest_draft(str(n)) for n in range(1_600)], EDIT)
    gone = [*range(1, 9), *range(505, 1_030), 1_536, 1_600]

    def work(tables: Tables) -> None:
        for key in gone:
            edits.retract_entry(tables, "spam", key, EDIT)

    store._edit(work)
    with store.reading() as reading:
        read = [key for key, _, _ in reading.active_entries()]
        assert list(reading.fingerprints(range(1, 1_700))) == list(range(1, 1_601))
    assert read == [key for key in range(1, 1_601) if key not in gone]
    assert store.bank("spam").active_entries == len(read)


@pytest.mark.parametrize(("size", "lengths"), [(1, [1] * 4), (2, [2, 2]), (3, [3, 1]), (9, [4])])
def test_active_chunks_hold_every_active_entry_once(
    store: BankStore, size: int, lengths: list[int]
) -> None:
    """In key order, full but for the last, and none of them empty."""
    store.add_entries("spam", [digest_draft(str(n)) for n in range(5)], EDIT)
    store.retract_entry("spam", 2, EDIT)
    with store.reading() as reading:
        chunks = list(reading.active_chunks(size))
        assert [len(chunk) for chunk in chunks] == lengths
        assert [key for chunk in chunks for key, *_ in chunk] == [1, 3, 4, 5]


def test_a_new_store_is_empty(path: Path) -> None:
    """Seq 0, no banks, no changes, nothing to load."""
    with BankStore.open(path, writer=True) as store, store.reading() as reading:
        assert (store.seq(), store.banks(), store.changes(0, 9)) == (0, [], [])
        assert (reading.seq, reading.banks(), list(reading.active_entries())) == (0, [], [])
        assert list(reading.active_chunks(2)) == []
        assert reading.changes(0, 9) == []
        assert store.find_digests([(Signal.MD5, bytes(16))], 9)[0] == []
