"""Heads that are kept elsewhere: what was written is read, and what was altered is told."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from simsearch.bank.signed_heads import (
    LINE_BYTES_MAX,
    Head,
    RecordedHead,
    private_key,
    public_key,
    read_heads,
    record_head,
    signature_faults,
)
from simsearch.errors import BadConfig, BadRequest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HEAD = Head("5f3c", 7, bytes(range(32)))


def write_key(
    path: Path,
    key: Ed25519PrivateKey | X25519PrivateKey = KEY,
    encryption: KeySerializationEncryption | None = None,
) -> Path:
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    )
    return path


def write_public_key(path: Path, key: Ed25519PrivateKey | X25519PrivateKey = KEY) -> Path:
    public = key.public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.mark.parametrize("key", [None, KEY])
def test_what_was_written_is_read(tmp_path: Path, key: Ed25519PrivateKey | None) -> None:
    """Line by line, signed or not; empty lines are passed over."""
    noted = [record_head(replace(HEAD, seq=n), key) for n in range(3)]
    path = tmp_path / "heads"
    path.write_text("\n".join(each.line() for each in noted))
    assert read_heads(path) == noted
    assert bool(noted[0].signature) is (key is not None)


def test_the_signature_is_ed25519_over_these_lines() -> None:
    """For ever: files of heads outlive releases, and others may verify them."""
    noted = replace(record_head(HEAD, KEY), time="2027-01-31T18:00:00+00:00")
    assert noted.signed_bytes() == (
        b"simsearch head\n5f3c\n7\n" + bytes(range(32)).hex().encode() + b"\n"
        b"2027-01-31T18:00:00+00:00"
    )
    signed = record_head(HEAD, KEY)
    KEY.public_key().verify(signed.signature, signed.signed_bytes())


def test_each_altered_value_is_told(tmp_path: Path) -> None:
    """And a head without a signature, and one signed by another."""
    public = public_key(write_public_key(tmp_path / "head.pub"))
    good = record_head(HEAD, KEY)
    altered = [
        replace(good, head=replace(HEAD, store_id="other")),
        replace(good, head=replace(HEAD, seq=8)),
        replace(good, head=replace(HEAD, link=bytes(32))),
        replace(good, time="2027-01-31T18:00:00+00:00"),
        replace(good, signature=bytes(64)),
        record_head(HEAD, Ed25519PrivateKey.generate()),
    ]
    assert signature_faults([good], public) == []
    faults = signature_faults(altered, public)
    assert len(faults) == len(altered)
    assert all("is wrong" in fault for fault in faults)
    [unsigned] = signature_faults([record_head(HEAD)], public)
    assert "not signed" in unsigned


GOOD = json.loads(record_head(HEAD).line())


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "7",
        "{",
        "\xff",
        json.dumps(GOOD | {"seq": "7"}),
        json.dumps(GOOD | {"seq": True}),
        json.dumps(GOOD | {"seq": -1}),
        json.dumps(GOOD | {"link": "00"}),
        json.dumps(GOOD | {"link": 7}),
        json.dumps(GOOD | {"store_id": None}),
        json.dumps(GOOD | {"time": 7}),
        json.dumps({**GOOD, "signature": "xy"}),
        json.dumps({"seq": 7}),
        json.dumps(GOOD) + " " * LINE_BYTES_MAX + "x",
    ],
)
def test_a_line_that_is_no_head_is_refused(tmp_path: Path, line: str) -> None:
    """By its number."""
    path = tmp_path / "heads"
    path.write_text(record_head(HEAD).line() + line + "\n", encoding="latin-1")
    with pytest.raises(BadRequest, match="line 2 of"):
        read_heads(path)


def test_a_file_of_heads_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simsearch.bank.signed_heads.HEADS_MAX", 2)
    path = tmp_path / "heads"
    path.write_text(record_head(HEAD).line() * 3)
    with pytest.raises(BadRequest, match="more than 2 lines"):
        read_heads(path)


def test_keys_are_read_or_refused_by_name(tmp_path: Path) -> None:
    """The refusal says how to make one."""
    signed = record_head(HEAD, private_key(write_key(tmp_path / "head.key")))
    assert signature_faults([signed], public_key(write_public_key(tmp_path / "head.pub"))) == []
    other = X25519PrivateKey.generate()
    locked = write_key(tmp_path / "locked", encryption=BestAvailableEncryption(b"secret"))
    for path in (locked, write_key(tmp_path / "other", other), tmp_path / "head.pub"):
        with pytest.raises(BadRequest, match="openssl genpkey -algorithm ed25519"):
            private_key(path)
    for path in (write_public_key(tmp_path / "other.pub", other), tmp_path / "head.key"):
        with pytest.raises(BadRequest, match="openssl pkey"):
            public_key(path)
    for read in (private_key, public_key, read_heads):
        with pytest.raises(BadRequest, match="cannot read"):
            read(tmp_path / "absent")


def test_without_the_package_signatures_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And heads without them are written and read all the same."""
    key, pub = write_key(tmp_path / "head.key"), write_public_key(tmp_path / "head.pub")
    for name in [n for n in sys.modules if n.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    for read, path in ((private_key, key), (public_key, pub)):
        with pytest.raises(BadConfig, match="'cryptography'"):
            read(path)
    (tmp_path / "heads").write_text(RecordedHead(HEAD, "now").line())
    assert read_heads(tmp_path / "heads") == [RecordedHead(HEAD, "now")]
