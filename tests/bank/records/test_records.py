"""Records: what goes in comes out, and what does not hold together is Corrupt by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.bank.records import entries, keys
from simsearch.bank.records.fingerprints import fingerprint_from_bytes, fingerprint_to_bytes
from simsearch.errors import Corrupt
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import (
    Band,
    Bank,
    Change,
    ChangeKind,
    CosineRule,
    DigestRule,
    Entry,
    EntryState,
    Fingerprint,
    HammingRule,
    Modality,
    Policy,
    Signal,
)
from tests.bank.worlds import OTHER_SPACE, POLICY, SPACE, as_stored, full_draft, same, unit

BANK = Bank(3, "spam", "Known späm", POLICY, 1_700_000_000_000_000, 4, 12)
ADDED = Change(8, ChangeKind.ENTRY_ADDED, 3, 5, "ann", "case 7", 1_700_000_000_000_001)
RETRACTED = Change(9, ChangeKind.ENTRY_RETRACTED, 3, 5, "bob", "wrong", 1_700_000_000_000_002)
ENTRY = Entry(
    5,
    3,
    EntryState.RETRACTED,
    ("a", "b"),
    "source",
    "id",
    "note",
    {"sha256": 2, SPACE: 1},
    ADDED,
    RETRACTED,
)

optional_cosine = st.none() | st.floats(-1, 1)
optional_bits = st.none() | st.integers(0, 256)
policies = st.builds(
    Policy,
    cosine=st.lists(
        st.builds(
            CosineRule,
            space=st.text(max_size=5),
            query=st.sampled_from(Modality),
            block=optional_cosine,
            review=optional_cosine,
            log=optional_cosine,
        ),
        max_size=2,
    ).map(tuple),
    hamming=st.lists(
        st.builds(
            HammingRule,
            signal=st.sampled_from(Signal),
            block=optional_bits,
            review=optional_bits,
            log=optional_bits,
        ),
        max_size=2,
    ).map(tuple),
    digests=st.lists(
        st.builds(DigestRule, signal=st.sampled_from(Signal), band=st.sampled_from(Band)),
        max_size=2,
    ).map(tuple),
    two_descriptors=st.booleans(),
)


@given(policies)
def test_every_policy_comes_back(policy: Policy) -> None:
    """A threshold of 0 and a threshold that is not set stay two things."""
    bank = replace(BANK, policy=policy)
    assert entries.bank_from_bytes(3, entries.bank_to_bytes(bank)) == bank


@pytest.mark.parametrize("kind", ChangeKind)
def test_every_change_comes_back(kind: ChangeKind) -> None:
    """A change keeps its number, kind, bank, entry, actor, reason and time."""
    change = replace(ADDED, kind=kind)
    assert entries.change_from_bytes(8, entries.change_to_bytes(change, b"")) == change


@pytest.mark.parametrize(
    "entry", [ENTRY, replace(ENTRY, state=EntryState.ACTIVE, retracted=None, labels=())]
)
def test_an_entry_comes_back(entry: Entry) -> None:
    """An entry keeps every field, retracted or not."""
    assert entries.entry_from_bytes(5, entries.entry_to_bytes(entry)) == entry


@pytest.mark.parametrize("seed", range(5))
def test_a_fingerprint_comes_back_as_float32_of_float16_rows(seed: int) -> None:
    """Digests and bits are exact; vectors are what float16 made of them, as float32."""
    fingerprint = full_draft(seed).fingerprint
    read = fingerprint_from_bytes(5, fingerprint_to_bytes(fingerprint))
    assert same(read, as_stored(fingerprint))
    assert not read.vectors[SPACE].flags.writeable
    assert not read.bits[Signal.PDQ].flags.writeable


def test_vectors_lie_on_disk_as_little_endian_float16() -> None:
    """The layout is for ever: 1.0 is 00 3c."""
    vector = np.array([[1, 0]], np.float32)
    record = pb.FingerprintRecord.FromString(
        fingerprint_to_bytes(Fingerprint(vectors={"s": vector}))
    )
    assert record.vectors[0].rows == b"\x00\x3c\x00\x00"
    assert record.vectors[0].dim == 2


def test_signals_without_rows_are_left_out() -> None:
    """No rows of a signal is the same as no such signal."""
    fingerprint = Fingerprint(
        digests={Signal.MD5: ()},
        bits={Signal.PDQ: np.zeros((0, 32), np.uint8)},
        vectors={SPACE: unit(1, 4, 0), OTHER_SPACE: np.zeros((0, 6), np.float32)},
    )
    assert fingerprint_from_bytes(5, fingerprint_to_bytes(fingerprint)).rows() == {SPACE: 1}


def _vectors(dim: int, rows: bytes) -> pb.FingerprintRecord:
    return pb.FingerprintRecord(vectors=[pb.VectorsRecord(space="s", dim=dim, rows=rows)])


def _bits(signal: str, rows: bytes) -> pb.FingerprintRecord:
    return pb.FingerprintRecord(bits=[pb.BitsRecord(signal=signal, rows=rows)])


def _digest(signal: str, value: bytes) -> pb.FingerprintRecord:
    return pb.FingerprintRecord(digests=[pb.DigestRecord(signal=signal, value=value)])


ONE = np.float16(1).tobytes()
BROKEN = {
    "empty": pb.FingerprintRecord(),
    "odd row width": _vectors(4, ONE * 5),
    "no rows": _vectors(4, b""),
    "dim 0": _vectors(0, ONE),
    "dim too large": _vectors(8193, (ONE + b"\0\0" * 8192)),
    "not unit": _vectors(2, ONE + ONE),
    "slightly too long": _vectors(1, np.float16(1.01).tobytes()),
    "NaN": _vectors(1, np.float16("nan").tobytes()),
    "infinite": _vectors(1, np.float16("inf").tobytes()),
    "short bits": _bits("pdq", b"\0" * 33),
    "no bits": _bits("pdq", b""),
    "bits of a digest": _bits("sha256", b"\0" * 32),
    "bits of an unknown signal": _bits("phash", b"\0" * 32),
    "short digest": _digest("md5", b"\0" * 32),
    "digest of bits": _digest("pdq", b"\0" * 32),
    "unknown digest": _digest("crc", b"\0" * 4),
    "one space twice": pb.FingerprintRecord(
        vectors=[pb.VectorsRecord(space="s", dim=1, rows=ONE)] * 2
    ),
}


@pytest.mark.parametrize("record", BROKEN.values(), ids=BROKEN.keys())
def test_a_fingerprint_that_breaks_a_rule_is_corrupt(record: pb.FingerprintRecord) -> None:
    """Widths, dims and lengths are checked when reading, and the message names the key."""
    with pytest.raises(Corrupt, match="fingerprint 41 "):
        fingerprint_from_bytes(41, record.SerializeToString())


def _entry_record(change: Callable[[pb.EntryRecord], None]) -> bytes:
    record = pb.EntryRecord.FromString(entries.entry_to_bytes(ENTRY))
    change(record)
    return record.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_entry_record(lambda r: setattr(r, "key", 6)), id="another key"),
        pytest.param(_entry_record(lambda r: setattr(r, "state", 9)), id="unknown state"),
        pytest.param(_entry_record(lambda r: setattr(r, "state", 1)), id="active and retracted"),
        pytest.param(_entry_record(lambda r: r.ClearField("retracted")), id="no retraction"),
        pytest.param(_entry_record(lambda r: r.ClearField("added")), id="never added"),
        pytest.param(_entry_record(lambda r: setattr(r.added, "kind", 99)), id="unknown change"),
        pytest.param(b"\xff\xff\xff", id="garbage"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_an_entry_record_that_contradicts_itself_is_corrupt(data: bytes) -> None:
    """Key, state and changes of an entry must agree, and the message names the key."""
    with pytest.raises(Corrupt, match="entry 5 "):
        entries.entry_from_bytes(5, data)


def test_bank_and_change_records_must_carry_their_key() -> None:
    """A record under another key than its own is Corrupt."""
    with pytest.raises(Corrupt, match=r"bank 4 .*id 3"):
        entries.bank_from_bytes(4, entries.bank_to_bytes(BANK))
    with pytest.raises(Corrupt, match=r"change 7 .*seq 8"):
        entries.change_from_bytes(7, entries.change_to_bytes(ADDED, b""))


def test_unknown_names_in_a_policy_are_corrupt() -> None:
    """A signal that this release does not know is refused, not dropped from the policy."""
    record = pb.BankRecord.FromString(entries.bank_to_bytes(BANK))
    record.policy.hamming[0].signal = "phash"
    with pytest.raises(Corrupt, match=r"bank 3 .*phash"):
        entries.bank_from_bytes(3, record.SerializeToString())


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 10_000))
def test_a_seal_finds_every_flipped_bit(key: bytes, body: bytes, at: int) -> None:
    """A flipped bit anywhere in a value, and a value under another key, are Corrupt."""
    sealed = keys.seal(key, body)
    assert keys.unseal(key, sealed, "x") == body
    bit = at % (8 * len(sealed))
    flipped = bytearray(sealed)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Corrupt, match="x in the bank store fails its checksum"):
        keys.unseal(key, bytes(flipped), "x")
    with pytest.raises(Corrupt):
        keys.unseal(key + b"!", sealed, "x")


def test_lives_and_numbers_of_a_wrong_length_are_corrupt() -> None:
    """Fixed layouts are checked for their length."""
    lifetime = keys.Lifetime(1, 2)
    assert keys.unpack_lifetime(keys.pack_lifetime(lifetime), "x") == lifetime
    for read in (keys.unpack_lifetime, keys.unpack_u32, keys.unpack_u64):
        with pytest.raises(Corrupt, match="has 3 bytes"):
            cast(Callable[[bytes, str], object], read)(b"abc", "x")


def test_the_layout_on_disk_is_as_it_was() -> None:
    """Names, kinds and packings may not move without a new FORMAT."""
    assert keys.FORMAT == 3
    assert keys.extension_key(1, 2) == bytes.fromhex("00000000000000010000000000000002")
    assert keys.bank_entry_key(1, 2) == bytes.fromhex("000000010000000000000002")
    assert keys.digest_prefix(Signal.MD5, b"d") == b"\x02d"
    assert keys.pack_lifetime(keys.Lifetime(1, 2)).hex() == "00000001" + "0" * 15 + "2" + "f" * 16
    assert keys.seal(b"123", b"456789").hex() == "cbf43926" + b"456789".hex()
    assert dict(keys.DIGEST_KINDS) == {
        Signal.SHA256: b"\x01",
        Signal.MD5: b"\x02",
        Signal.TEXT_SHA256: b"\x03",
        Signal.TEXT_LIGHT_SHA256: b"\x04",
        Signal.TEXT_STRONG_SHA256: b"\x05",
    }
