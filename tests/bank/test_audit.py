"""The record of edits: whatever is done to it behind the store's back shows."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import lmdb
import pytest

from simsearch.bank.audit import FAULTS_MAX, Audit, head_of, verify
from simsearch.bank.records import hash_chain, keys
from simsearch.bank.signed_heads import Head
from simsearch.bank.store import BankStore
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import Policy, Signal
from tests.bank.worlds import EDIT, EXTENSION, POLICY, digest_draft, full_draft

ENTRIES = 12


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two banks and some of everything that can be done to them."""
    path = tmp_path_factory.mktemp("audit") / "bank"
    with BankStore.open(path, writer=True) as store:
        store.create_bank("spam", "", POLICY, EDIT)
        store.create_bank("scam", "", Policy(), EDIT)
        for seed in range(ENTRIES):
            bank = ("spam", "scam")[seed % 2]
            store.add_entries(
                bank, [full_draft(seed), digest_draft(str(seed), Signal.SHA256)], EDIT
            )
        store.update_bank("scam", EDIT, description="of coins")
        for key in (2, 6, 10):
            bank = ("spam", "scam")[(key - 1) // 2 % 2]
            store.extend_entry(bank, key, EXTENSION, EDIT)
        for key in (4, 9):
            store.retract_entry(("spam", "scam")[(key - 1) // 2 % 2], key, EDIT)
    return path


@pytest.fixture
def path(untouched: Path, tmp_path: Path) -> Path:
    return shutil.copytree(untouched, tmp_path / "copy")


def audited(path: Path, *heads: Head) -> Audit:
    with BankStore.open(path, writer=False) as store, store.reading() as reading:
        return verify(reading, store.store_id, heads)


def head(path: Path) -> Head:
    with BankStore.open(path, writer=False) as store, store.reading() as reading:
        return head_of(reading, store.store_id)


def test_an_untouched_history_has_no_fault(path: Path) -> None:
    """And its head is the link of its last change, whoever asks."""
    found = audited(path, head(path))
    assert found.faults == ()
    assert found.linked_from == 1
    assert found.head == head(path)
    assert found.head.seq == 2 + 2 * ENTRIES + 1 + 3 + 2


def test_a_new_store_can_be_verified(tmp_path: Path) -> None:
    with BankStore.open(tmp_path / "new", writer=True) as store, store.reading() as reading:
        assert verify(reading, store.store_id).faults == ()
        assert head_of(reading, store.store_id).link == hash_chain.GENESIS


def test_a_head_stands_while_edits_go_on(path: Path) -> None:
    """It vouches for what was before it. A state is verified as it was when its reading began."""
    before = head(path)
    with BankStore.open(path, writer=True) as store, store.reading() as reading:
        store.add_entries("spam", [full_draft(99)], EDIT)
        store.retract_entry("spam", 1, EDIT)
        store.update_bank("spam", EDIT, description="later")
        assert verify(reading, store.store_id, [before]).faults == ()
    assert audited(path, before).faults == ()


def test_a_log_from_before_there_were_links_is_vouched_for_by_the_first(path: Path) -> None:
    """It is linked from its next change on, and an edit of what was before shows all the same."""
    with raw(path) as tables:
        for seq in range(1, len(tables.changes) + 1):
            tables.put_change(seq, hash_chain.split_link(tables.change(seq)).body)
    assert audited(path).linked_from == 0
    assert head(path) == audited(path).head
    early = head(path)
    with BankStore.open(path, writer=True) as store:
        store.update_bank("spam", EDIT, description="new")
    assert audited(path, early).faults == ()
    assert audited(path, early).linked_from == early.seq + 1
    with raw(path) as tables:
        tables.alter_change(3, reason="another")
    assert audited(path, early).faults == (
        "entry 1 is not as change 3 added it",
        f"the history up to change {early.seq} is not the one noted then",
        f"change {early.seq + 1} does not follow on the one before: one of them is not what was "
        "written",
    )


def test_a_head_of_another_store_is_none_of_this_one(path: Path) -> None:
    other = Head("another", 1, bytes(32))
    assert "of another store" in audited(path, other).faults[0]


def test_faults_are_told_up_to_a_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simsearch.bank.audit.FAULTS_MAX", 3)
    with raw(path) as tables:
        for seq in range(1, 20):
            tables.put_change(seq, tables.change(seq)[:-1] + b"!")
    assert len(audited(path).faults) == 3
    assert FAULTS_MAX == 100


# ---------------------------------------------------------------- behind the store's back


class RawTables:
    """The tables of a store as a burglar has them: checksums are no hindrance."""

    def __init__(self, path: Path) -> None:
        self._lmdb = lmdb.open(str(path), max_dbs=len(keys.TABLES))
        self._handles = {name: self._lmdb.open_db(name) for name in keys.TABLES}
        self.transaction = self._lmdb.begin(write=True)

    def __enter__(self) -> RawTables:
        return self

    def __exit__(self, *_: object) -> None:
        self.transaction.commit()
        self._lmdb.close()

    def rows(self, table: bytes) -> dict[bytes, bytes]:
        with self.transaction.cursor(self._handles[table]) as cursor:
            return {key: keys.unseal(key, sealed, "x") for key, sealed in cursor}

    def put(self, table: bytes, key: bytes, body: bytes) -> None:
        self.transaction.put(key, keys.seal(key, body), db=self._handles[table])

    def delete(self, table: bytes, key: bytes) -> None:
        self.transaction.delete(key, db=self._handles[table])

    @property
    def changes(self) -> dict[bytes, bytes]:
        return self.rows(keys.CHANGES)

    def change(self, seq: int) -> bytes:
        return self.changes[keys.pack_u64(seq)]

    def put_change(self, seq: int, record: bytes) -> None:
        self.put(keys.CHANGES, keys.pack_u64(seq), record)

    def alter_change(self, seq: int, **fields: object) -> None:
        self.put_change(seq, altered(self.change(seq), fields))

    def link_anew(self, after: int = 0) -> None:
        """Every link made so that it holds, as one would who knows how they are made."""
        link = hash_chain.split_link(self.change(after)).link if after else hash_chain.GENESIS
        for seq in range(after + 1, len(self.changes) + 1):
            body = hash_chain.split_link(self.change(seq)).body
            link = hash_chain.link_of(body, link)
            self.put_change(seq, hash_chain.with_link(body, link))


def altered(data: bytes, fields: dict[str, object]) -> bytes:
    record = pb.ChangeRecord.FromString(data)
    for name, value in fields.items():
        setattr(record, name, value)
    return record.SerializeToString()


raw = RawTables

Tampering: TypeAlias = Callable[[RawTables, random.Random], None]


def edit_a_change(tables: RawTables, dice: random.Random) -> None:
    seq = dice.randint(1, len(tables.changes))
    field, value = dice.choice(
        [("actor", "mallory"), ("reason", "none"), ("time_us", 1), ("entry_key", 999)]
    )
    tables.alter_change(seq, **{field: value})


def flip_a_bit_of_a_change(tables: RawTables, dice: random.Random) -> None:
    seq = dice.randint(1, len(tables.changes))
    record = bytearray(tables.change(seq))
    record[dice.randrange(len(record))] ^= 1 << dice.randrange(8)
    tables.put_change(seq, bytes(record))


def edit_a_change_and_link_anew(tables: RawTables, dice: random.Random) -> None:
    edit_a_change(tables, dice)
    tables.link_anew()


def take_a_change_out(tables: RawTables, dice: random.Random) -> None:
    """Those after it move up, as if it had never been."""
    last = len(tables.changes)
    for seq in range(dice.randint(1, last - 1), last):
        tables.put_change(seq, altered(tables.change(seq + 1), {"seq": seq}))
    tables.delete(keys.CHANGES, keys.pack_u64(last))
    if dice.random() < 0.5:
        tables.link_anew()


def swap_changes(tables: RawTables, dice: random.Random) -> None:
    one, other = dice.sample(range(1, len(tables.changes) + 1), 2)
    records = tables.change(one), tables.change(other)
    tables.put_change(one, altered(records[1], {"seq": one}))
    tables.put_change(other, altered(records[0], {"seq": other}))
    if dice.random() < 0.5:
        tables.link_anew()


def cut_the_end(tables: RawTables, dice: random.Random) -> None:
    last = len(tables.changes)
    for seq in range(last - dice.randrange(5), last + 1):
        tables.delete(keys.CHANGES, keys.pack_u64(seq))


def add_a_change(tables: RawTables, dice: random.Random) -> None:
    seq = dice.randint(1, len(tables.changes))
    last = len(tables.changes)
    for at in range(last, seq - 1, -1):
        tables.put_change(at + 1, altered(tables.change(at), {"seq": at + 1}))
    tables.link_anew()


def edit_an_entry(tables: RawTables, dice: random.Random) -> None:
    key, data = dice.choice(list(tables.rows(keys.ENTRIES).items()))
    record = pb.EntryRecord.FromString(data)
    field = dice.choice(["note", "source", "source_id", "labels", "actor"])
    if field == "labels":
        record.labels.append("more")
    elif field == "actor":
        record.added.actor = "mallory"
    else:
        setattr(record, field, "altered")
    tables.put(keys.ENTRIES, key, record.SerializeToString())


def edit_a_fingerprint(tables: RawTables, dice: random.Random) -> None:
    """Another hash in place of the one that was banned."""
    key, data = dice.choice(list(tables.rows(keys.FINGERPRINTS).items()))
    record = pb.FingerprintRecord.FromString(data)
    if record.bits:
        record.bits[0].rows = bytes(32)
    elif record.digests:
        record.digests[0].value = bytes(32)
    else:
        rows = record.vectors[0].rows
        record.vectors[0].rows = bytes([rows[0] ^ 1]) + rows[1:]
    tables.put(keys.FINGERPRINTS, key, record.SerializeToString())


def end_or_revive_an_entry(tables: RawTables, dice: random.Random) -> None:
    key, data = dice.choice(list(tables.rows(keys.LIFETIMES).items()))
    lifetime = keys.unpack_lifetime(data, "x")
    ended = lifetime.retired != keys.NEVER
    after = lifetime._replace(retired=keys.NEVER if ended else lifetime.born + 1)
    tables.put(keys.LIFETIMES, key, keys.pack_lifetime(after))


def take_an_entry_out(tables: RawTables, dice: random.Random) -> None:
    key = dice.choice(list(tables.rows(keys.ENTRIES)))
    for table in (keys.ENTRIES, keys.LIFETIMES, keys.FINGERPRINTS):
        tables.delete(table, key)


def slip_an_entry_in(tables: RawTables, dice: random.Random) -> None:
    lifetime = dice.choice(list(tables.rows(keys.LIFETIMES).values()))
    tables.put(keys.LIFETIMES, keys.pack_u64(1_000 + dice.randrange(9)), lifetime)


def edit_a_policy(tables: RawTables, dice: random.Random) -> None:
    key, data = dice.choice(list(tables.rows(keys.BANKS).items()))
    record = pb.BankRecord.FromString(data)
    change = dice.randrange(3)
    if change == 0:
        record.description = "altered"
    elif change == 1:
        record.policy.two_descriptors = not record.policy.two_descriptors
    else:
        record.policy.hamming.add(signal=Signal.MINHASH, log=1)
    tables.put(keys.BANKS, key, record.SerializeToString())


TAMPERINGS: tuple[Tampering, ...] = (
    edit_a_change,
    flip_a_bit_of_a_change,
    edit_a_change_and_link_anew,
    take_a_change_out,
    swap_changes,
    cut_the_end,
    add_a_change,
    edit_an_entry,
    edit_a_fingerprint,
    end_or_revive_an_entry,
    take_an_entry_out,
    slip_an_entry_in,
    edit_a_policy,
)


@pytest.mark.parametrize("times", [4, pytest.param(77, marks=pytest.mark.slow)])
def test_every_tampering_is_found(untouched: Path, tmp_path: Path, times: int) -> None:
    """1,001 in the long form, against a head that was noted before."""
    noted = head(untouched)
    for number in range(times):
        for tampering in TAMPERINGS:
            path = shutil.copytree(untouched, tmp_path / f"{tampering.__name__}-{number}")
            with raw(path) as tables:
                tampering(tables, random.Random(number))
            assert audited(path, noted).faults, (tampering.__name__, number)
            shutil.rmtree(path)


def test_without_a_noted_head_an_end_that_was_cut_off_shows_by_its_entries(path: Path) -> None:
    """A retraction at the end, which no entry's record speaks of otherwise, shows by its life."""
    with raw(path) as tables:
        tables.delete(keys.CHANGES, keys.pack_u64(len(tables.changes)))
    assert audited(path).faults == ("entry 9 ended at 32 without a change that retracted it",)
