"""Lists into a bank: every row accounted for, nothing twice, all of a part or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch import errors
from simsearch.bank.audit import verify
from simsearch.bank.edits.imports import ImportedPart, ImportItem, RowOutcome
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.store import BankStore
from simsearch.types import EntryDraft, EntryState, Fingerprint, Signal
from tests.bank.worlds import EDIT, full_draft, sha, store_with_bank

ADDED, DUPLICATE, TOMBSTONE, WITHDRAWN, ABSENT, HELD = RowOutcome


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BankStore]:
    with store_with_bank(tmp_path / "bank") as opened:
        opened.create_bank("other", "", opened.bank("spam").policy, EDIT)
        yield opened


def pdq(number: int, source_id: str = "", **about: object) -> EntryDraft:
    row = np.frombuffer(sha(str(number)), np.uint8).reshape(1, 32)
    fingerprint = Fingerprint(bits={Signal.PDQ: row})
    return replace(EntryDraft(fingerprint, source="tips", source_id=source_id), **about)  # type: ignore[arg-type]


def taken(*drafts: EntryDraft) -> list[ImportItem]:
    return [ImportItem(draft) for draft in drafts]


def back(*drafts: EntryDraft) -> list[ImportItem]:
    return [ImportItem(draft, withdrawn=True) for draft in drafts]


class Importing:
    """Parts of imports, each under a new id."""

    def __init__(self, store: BankStore) -> None:
        self.store = store
        self.number = 0

    def __call__(self, items: Sequence[ImportItem], bank: str = "spam", **how: Any) -> ImportedPart:
        self.number += 1
        return self.store.import_part(bank, f"list {self.number}", 0, items, EDIT, **how)


@pytest.fixture
def put(store: BankStore) -> Importing:
    return Importing(store)


def test_rows_become_entries_and_none_twice(store: BankStore, put: Importing) -> None:
    """Nor within one part; another bank is another matter."""
    found = put(taken(pdq(1), pdq(2), pdq(1), full_draft(3)))
    assert found.outcomes == (ADDED, ADDED, DUPLICATE, ADDED)
    assert found.keys == (1, 2, 1, 3)
    assert found.seq == store.seq()
    assert put(taken(pdq(2), pdq(4))).outcomes == (DUPLICATE, ADDED)
    assert put(taken(pdq(2)), bank="other").outcomes == (ADDED,)
    assert store.bank("spam").active_entries == 4
    assert store.bank("other").active_entries == 1
    assert len(store.list_entries("spam", limit=99)) == 4


def test_the_same_file_is_the_same_item_whatever_else_is_computed_of_it(
    store: BankStore, put: Importing
) -> None:
    """An image's vectors may differ in the last bit; its digest does not."""
    draft = full_draft(1)
    other = Fingerprint(digests=draft.fingerprint.digests, bits=full_draft(2).fingerprint.bits)
    assert put(taken(draft, EntryDraft(other))).outcomes == (ADDED, DUPLICATE)


def test_what_was_taken_back_is_not_banned_again_by_a_list(
    store: BankStore, put: Importing
) -> None:
    """Unless that is asked for; then it has a new key."""
    put(taken(pdq(1)))
    store.retract_entry("spam", 1, EDIT)
    again = put(taken(pdq(1)))
    assert (again.outcomes, again.keys, again.seq) == ((TOMBSTONE,), (1,), 0)
    revived = put(taken(pdq(1)), revive=True)
    assert (revived.outcomes, revived.keys) == ((ADDED,), (2,))
    assert put(taken(pdq(1))).outcomes == (DUPLICATE,)


def test_a_source_takes_back_what_it_named(store: BankStore, put: Importing) -> None:
    """By the hash or by its id, also another of its ids; another source's id is not meant."""
    put(taken(pdq(1, "a"), pdq(2, "b", aliases=("b2",)), pdq(3, "c"), pdq(4, "d")))
    nameless = EntryDraft(Fingerprint(), source="tips", source_id="b2")
    stranger = EntryDraft(Fingerprint(), source="others", source_id="d")
    found = put(back(pdq(1), nameless, stranger, pdq(9), replace(pdq(3), source="others")))
    assert found.outcomes == (WITHDRAWN, WITHDRAWN, ABSENT, ABSENT, ABSENT)
    assert found.keys == (1, 2, 0, 0, 0)
    states = [store.entry("spam", key).state for key in (1, 2, 3, 4)]
    assert states == [EntryState.RETRACTED] * 2 + [EntryState.ACTIVE] * 2
    assert store.bank("spam").active_entries == 2
    assert put(taken(pdq(1, "a"))).outcomes == (TOMBSTONE,)


def test_all_that_a_source_calls_so_is_taken_back(store: BankStore, put: Importing) -> None:
    """Several hashes of one item; what was taken back by hand is not in the way."""
    put(taken(pdq(1, "a"), pdq(2, "a"), pdq(3, "a")))
    store.retract_entry("spam", 1, EDIT)
    gone = EntryDraft(Fingerprint(), source="tips", source_id="a")
    assert put(back(gone)).outcomes == (WITHDRAWN,)
    assert store.bank("spam").active_entries == 0


def test_entries_that_were_banned_one_by_one_are_known_to_a_list(
    store: BankStore, put: Importing
) -> None:
    store.add_entries("spam", [pdq(1), full_draft(2)], EDIT)
    assert put(taken(pdq(1), full_draft(2))).outcomes == (DUPLICATE, DUPLICATE)


def test_a_part_that_comes_again_is_answered_and_not_done_again(store: BankStore) -> None:
    """Also after a restart and after edits; other rows under its name are refused."""
    items = [*taken(pdq(1), pdq(2)), *back(pdq(3))]
    first = store.import_part("spam", "list", 7, items, EDIT)
    store.retract_entry("spam", 1, EDIT)
    seq = store.seq()
    again = store.import_part("spam", "list", 7, items, EDIT)
    assert again == replace(first, repeated=True)
    for other in (taken(pdq(1)), taken(pdq(1), pdq(2), pdq(3)), [*back(pdq(1)), *items[1:]]):
        with pytest.raises(errors.BadRequest, match="held other rows"):
            store.import_part("spam", "list", 7, other, EDIT)
    with pytest.raises(errors.BadRequest, match="held other rows"):
        store.import_part("other", "list", 7, items, EDIT)
    assert store.seq() == seq


def test_a_dry_run_writes_nothing_and_says_what_would_be(store: BankStore) -> None:
    items = [*taken(pdq(1), pdq(1)), *back(pdq(1))]
    dry = store.import_part("spam", "list", 0, items, EDIT, dry_run=True)
    assert store.seq() == 2
    wet = store.import_part("spam", "list", 0, items, EDIT)
    assert (wet.outcomes, wet.keys) == (dry.outcomes, dry.keys) == ((1, 2, 4), (1, 1, 1))
    assert not wet.repeated


def test_a_part_that_fails_in_the_middle_leaves_nothing(
    store: BankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = taken(*(pdq(n) for n in range(5)))
    put_fingerprint = Tables.put_fingerprint

    def fail(tables: Tables, key: int, fingerprint: bytes) -> None:
        if key == 4:
            raise errors.InternalFault("in the middle")
        put_fingerprint(tables, key, fingerprint)

    with monkeypatch.context() as patch:
        patch.setattr(Tables, "put_fingerprint", fail)
        with pytest.raises(errors.InternalFault):
            store.import_part("spam", "list", 0, items, EDIT)
    assert (store.seq(), store.bank("spam").active_entries) == (2, 0)
    done = store.import_part("spam", "list", 0, items, EDIT)
    assert done.keys == (1, 2, 3, 4, 5)
    assert not done.repeated


def test_what_is_no_part_is_refused(store: BankStore) -> None:
    for import_id, part, items, words in (
        ("", 0, taken(pdq(1)), "import_id is missing"),
        ("list", -1, taken(pdq(1)), "part is -1"),
        ("list", 0, [], "holds no rows"),
    ):
        with pytest.raises(errors.BadRequest, match=words):
            store.import_part("spam", import_id, part, items, EDIT)
    with pytest.raises(errors.NoSignal):
        store.import_part("spam", "list", 0, taken(EntryDraft(Fingerprint())), EDIT)
    with pytest.raises(errors.BankNotFound):
        store.import_part("none", "list", 0, taken(pdq(1)), EDIT)


rows = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(["", "a", "b"]), st.booleans()), max_size=12
)


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, max_size=4), st.booleans())
def test_the_bank_is_what_the_rows_say(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[int, str, bool]]], revive: bool
) -> None:
    """Against a model of dictionaries; every row is accounted for, and the audit is content."""
    path = tmp_path_factory.mktemp("model") / "bank"
    living: dict[int, str] = {}
    dead: set[int] = set()
    with store_with_bank(path) as store:
        put = Importing(store)
        for part in filter(None, parts):
            expected = []
            for number, source_id, withdrawn in part:
                if withdrawn:
                    meant = {n for n, s in living.items() if n == number or (s and s == source_id)}
                    expected.append(WITHDRAWN if meant else ABSENT)
                    dead |= meant
                    living = {n: s for n, s in living.items() if n not in meant}
                elif number in living:
                    expected.append(DUPLICATE)
                elif number in dead and not revive:
                    expected.append(TOMBSTONE)
                else:
                    expected.append(ADDED)
                    living[number] = source_id
            items = [ImportItem(pdq(n, s), withdrawn) for n, s, withdrawn in part]
            found = put(items, revive=revive)
            assert Counter(found.outcomes).total() == len(part)
            assert list(found.outcomes) == expected
        assert store.bank("spam").active_entries == len(living)
        with store.reading() as reading:
            assert verify(reading, store.store_id).faults == ()
