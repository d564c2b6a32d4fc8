"""Exact signals, and hashes as callers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.encode import digests
from simsearch.errors import BadHash
from simsearch.types import DIGESTS, Signal


def test_published_digests() -> None:
    """The digests are those of FIPS 180-4 and RFC 1321 for "abc"."""
    assert digests.sha256(b"abc").hex() == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert digests.md5(b"abc").hex() == "900150983cd24fb0d6963f7d28e17f72"


def test_text_digest_is_that_of_its_utf8() -> None:
    """A normalised text has the digest of its UTF-8 bytes."""
    assert digests.text_sha256("ß我") == digests.sha256("ß我".encode())


@pytest.mark.parametrize("signal", list(Signal))
@given(data=st.data())
def test_hexadecimal_is_read_back(signal: Signal, data: st.DataObject) -> None:
    """What `hex` writes, in either case and with spaces around, is read as the same bytes."""
    length = digests.hash_bytes(signal)
    value = data.draw(st.binary(min_size=length, max_size=length))
    assert digests.parse_hash(signal, f" {value.hex().upper()}\n") == value
    assert digests.check_hash(signal, value) == value


def test_lengths() -> None:
    """Binary signals have 32 bytes; digests have their own."""
    assert {s: digests.hash_bytes(s) for s in DIGESTS} == dict(DIGESTS)
    assert digests.hash_bytes(Signal.PDQ) == digests.hash_bytes(Signal.MINHASH) == 32


def test_a_wrong_length_is_refused_by_name() -> None:
    """The refusal says which signal, how long it has to be, and how long it was."""
    with pytest.raises(BadHash, match="a md5 hash has 32 hexadecimal digits, not 31"):
        digests.parse_hash(Signal.MD5, "a" * 31)
    with pytest.raises(BadHash, match="a pdq hash has 32 bytes, not 16"):
        digests.check_hash(Signal.PDQ, bytes(16))


@pytest.mark.parametrize("wrong", ["g", " ", "٣", "é"])
def test_a_wrong_character_is_refused_with_its_place(wrong: str) -> None:
    """Only 0-9 and a-f are digits here, whatever Unicode or Python allow elsewhere."""
    with pytest.raises(BadHash, match="character 3 of the md5 hash"):
        digests.parse_hash(Signal.MD5, "ab" + wrong + "0" * 29)
