"""Signals added to an entry later: what it gets, what stays, what every earlier seq still sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from simsearch import errors
from simsearch.bank.lmdb import tables
from simsearch.bank.records import keys
from simsearch.bank.store import BankStore
from simsearch.types import ChangeKind, EntryDraft, Fingerprint, Signal
from tests.bank.worlds import (
    EDIT,
    OTHER_SPACE,
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

THIRD_SPACE = "toy@222222222222/none/5"
FIRST = EntryDraft(
    Fingerprint(digests={Signal.SHA256: (sha("a"),)}, vectors={SPACE: unit(2, 4, 1)}), ("scam",)
)
MORE = Fingerprint(
    digests={Signal.MD5: (sha("a")[:16],), Signal.SHA256: (sha("b"),)},
    bits={Signal.PDQ: bits(1, 3)},
    vectors={SPACE: unit(1, 4, 9), OTHER_SPACE: unit(3, 6, 2)},
)
BOTH = as_stored(
    Fingerprint(
        digests={Signal.SHA256: (sha("a"),)},
        bits={Signal.PDQ: bits(1, 3)},
        vectors={SPACE: unit(2, 4, 1), OTHER_SPACE: unit(3, 6, 2)},
    )
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.fixture
def store(path: Path) -> Iterator[BankStore]:
    with store_with_bank(path) as opened:
        opened.add_entries("spam", [FIRST, digest_draft("z")], EDIT)
        yield opened


def format_of(path: Path) -> int:
    with lmdb.open(str(path), max_dbs=1, readonly=True, lock=False) as raw:
        meta = raw.open_db(keys.META, create=False)
        with raw.begin() as transaction:
            body = transaction.get(keys.META_FORMAT, db=meta)
    assert body is not None
    return keys.unpack_u32(keys.unseal(keys.META_FORMAT, body, "format"), "format")


def test_an_entry_gets_what_it_lacks_and_keeps_what_it_has(store: BankStore, path: Path) -> None:
    """Spaces and binary signals are added; rows that are there and all digests stay."""
    entry, added = store.extend_entry("spam", 1, MORE, EDIT)
    assert same(
        added, Fingerprint(bits=MORE.bits, vectors={OTHER_SPACE: MORE.vectors[OTHER_SPACE]})
    )
    assert entry.signals == {"sha256": 1, SPACE: 2, "pdq": 1, OTHER_SPACE: 3}
    assert [change.seq for change in entry.extended] == [4]
    assert entry.last == entry.extended[0] == store.changes(3, 9)[0]
    assert entry.last.kind is ChangeKind.ENTRY_EXTENDED
    store.close()
    with BankStore.open(path, writer=False) as again:
        assert again.entry("spam", 1) == entry
        assert same(again.fingerprints([1])[1], BOTH)
        assert again.bank("spam").active_entries == 2
        assert again.find_digests([(Signal.SHA256, sha("b"))], 99)[0] == []
        with again.reading() as reading:
            assert [key for key, _, _ in reading.active_entries()] == [1, 2]


def test_extending_again_changes_nothing(store: BankStore) -> None:
    """No change, no subscriber woken, the same entry: a call whose answer was lost can be sent
    again."""
    heard: list[int] = []
    store.subscribe(heard.append)
    entry, _ = store.extend_entry("spam", 1, MORE, EDIT)
    again, added = store.extend_entry("spam", 1, MORE, EDIT)
    assert (again, added.rows()) == (entry, {})
    assert (store.seq(), heard) == (4, [4])


def test_every_earlier_seq_reads_as_it_did(store: BankStore) -> None:
    """A reading begun before an extension never sees its rows; one between two sees the first."""
    with store.reading() as before:
        store.extend_entry("spam", 1, MORE, EDIT)
    with store.reading() as between:
        store.extend_entry("spam", 1, Fingerprint(vectors={THIRD_SPACE: unit(1, 5, 4)}), EDIT)
    with store.reading() as after:
        pass
    seen = [dict((k, f) for k, _, f in r.active_entries())[1] for r in (before, between, after)]
    assert [sorted(f.vectors) for f in seen] == [
        [SPACE],
        [SPACE, OTHER_SPACE],
        [SPACE, OTHER_SPACE, THIRD_SPACE],
    ]
    for reading, found in zip((before, between, after), seen, strict=True):
        assert same(reading.fingerprints([1])[1], found)


def test_each_change_brought_its_own_part(store: BankStore) -> None:
    """Who follows the log gets every row once, though the entry was extended meanwhile."""
    store.extend_entry("spam", 1, MORE, EDIT)
    with store.reading() as reading:
        added, other, extended = reading.changes(1, 99)
        first, second, third = reading.fingerprints_of_changes([added, other, extended])
    assert same(first, as_stored(FIRST.fingerprint))
    assert dict(second.digests) == {Signal.SHA256: (sha("z"),)}
    assert sorted(third.rows()) == sorted(["pdq", OTHER_SPACE])


def test_a_retracted_entry_is_not_extended(store: BankStore) -> None:
    """It matches nothing, and an extension does not bring it back; what it had stays readable."""
    store.extend_entry("spam", 1, MORE, EDIT)
    retracted, _ = store.retract_entry("spam", 1, EDIT)
    assert retracted.last == retracted.retracted
    with pytest.raises(errors.EntryRetracted, match="ban the item anew"):
        store.extend_entry("spam", 1, Fingerprint(vectors={THIRD_SPACE: unit(1, 5, 4)}), EDIT)
    assert store.find_digests([(Signal.SHA256, sha("a"))], 99)[0] == []
    assert same(store.fingerprints([1])[1], BOTH)


def test_the_entry_must_be_there_and_in_the_bank(store: BankStore) -> None:
    """As for every other edit of an entry."""
    store.create_bank("ham", "", store.bank("spam").policy, EDIT)
    with pytest.raises(errors.BankNotFound):
        store.extend_entry("eggs", 1, MORE, EDIT)
    with pytest.raises(errors.EntryNotFound):
        store.extend_entry("spam", 9, MORE, EDIT)
    with pytest.raises(errors.EntryInOtherBank):
        store.extend_entry("ham", 1, MORE, EDIT)
    with pytest.raises(errors.NoSignal):
        store.extend_entry("spam", 1, Fingerprint(), EDIT)
    with pytest.raises(errors.BadVector):
        store.extend_entry("spam", 1, Fingerprint(vectors={OTHER_SPACE: 2 * unit(1, 6, 1)}), EDIT)
    assert store.seq() == 4


def test_an_extension_that_fails_in_the_middle_leaves_nothing(
    store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Change, record and rows are one transaction."""
    for step in ("put_entry", "put_extension", "append_change"):
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise errors.InternalFault("in the middle")

            patch.setattr(tables.Tables, step, fail)
            with pytest.raises(errors.InternalFault):
                store.extend_entry("spam", 1, MORE, EDIT)
        assert store.seq() == 3
        assert store.entry("spam", 1).extended == ()
        assert same(store.fingerprints([1])[1], as_stored(FIRST.fingerprint))


def test_neighbours_by_key_are_not_mixed_up(store: BankStore) -> None:
    """Extensions lie between the first records of two entries."""
    drafts = [full_draft(seed) for seed in range(4)]
    for entry in store.add_entries("spam", drafts, EDIT)[::2]:
        third = Fingerprint(vectors={THIRD_SPACE: unit(1, 5, entry.key)})
        store.extend_entry("spam", entry.key, third, EDIT)
    found = store.fingerprints(range(1, 9))
    assert [key for key, f in found.items() if THIRD_SPACE in f.vectors] == [3, 5]
    for key, draft in zip(range(3, 7), drafts, strict=True):
        without = {s: v for s, v in found[key].vectors.items() if s != THIRD_SPACE}
        rest = Fingerprint(found[key].digests, found[key].bits, without)
        assert same(rest, as_stored(draft.fingerprint))
    for key in (3, 5):
        third = as_stored(Fingerprint(vectors={THIRD_SPACE: unit(1, 5, key)}))
        assert (found[key].vectors[THIRD_SPACE] == third.vectors[THIRD_SPACE]).all()


@pytest.mark.parametrize("lost", ["first", "extension"])
def test_a_lost_record_is_corrupt(store: BankStore, lost: str) -> None:
    """Never an entry with half of its rows."""
    store.extend_entry("spam", 1, MORE, EDIT)
    at = keys.pack_u64(1) if lost == "first" else keys.extension_key(1, 4)

    def delete(found: tables.Tables) -> None:
        assert found._transaction.delete(at, db=found._handles[keys.FINGERPRINTS])

    store._edit(delete)
    with store.reading() as reading, pytest.raises(errors.Corrupt, match=r"entry 1|fingerprint 1"):
        reading.fingerprints_of_changes(reading.changes(1, 99))
