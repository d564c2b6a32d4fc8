"""Plain lists of hashes and texts."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.errors import BadContent, BadRequest
from simsearch.lists import About, Format, HashChunk, Limits, ReadOptions, read_list
from simsearch.types import Signal, TextContent
from tests.lists.samples import hashed, md5, pdq, read


def test_every_line_is_a_hash_in_bulk() -> None:
    """A clean list comes as arrays: values, line numbers, and what is said of all of them."""
    text = "".join(f"{pdq(n)}\n" for n in range(17_000))
    about = About(labels=("scam",), source="partner")
    reading = read_list(io.BytesIO(text.encode()), ReadOptions(signal=Signal.PDQ, about=about))
    chunks = [item for item in reading.batches() if isinstance(item, HashChunk)]
    values = np.concatenate([chunk.values for chunk in chunks])
    assert values.tobytes().hex() == text.replace("\n", "")
    assert np.concatenate([c.numbers for c in chunks]).tolist() == list(range(1, 17_001))
    assert {(c.signal, c.abouts, c.about_of.max()) for c in chunks} == {(Signal.PDQ, (about,), 0)}
    assert max(map(len, chunks)) <= 16_384


@pytest.mark.parametrize("ending", ["\n", "\r\n", " \t\n"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", ["", "\n\n"])
def test_line_ends_marks_and_case_do_not_matter(ending: str, begin: bytes, last: str) -> None:
    """Byte-order mark, CRLF, trailing blanks, upper case, comments and blank lines."""
    lines = [pdq(1), "# a comment", pdq(2).upper(), "", pdq(3)]
    got = read(begin + (ending.join(lines) + last).encode(), signal=Signal.PDQ)
    assert got.hexes() == [pdq(1), pdq(2), pdq(3)]
    assert [row.number for row in got.rows] == [1, 3, 5]
    assert got.counts.skipped["comment"] == 1
    assert got.counts.skipped["blank"] == 1 + (last == "\n\n")


def test_a_line_at_fault_is_refused_alone() -> None:
    """Wrong lengths, no hex, blanks inside a hash: each by name, the others are read."""
    spaced = pdq(4)[:30] + "    " + pdq(4)[34:]
    lines = [pdq(1), pdq(2)[:-1], "g" * 64, spaced, md5(1), "é" * 32, pdq(5)]
    got = read("\n".join(lines), signal=Signal.PDQ)
    assert got.hexes() == [pdq(1), pdq(5)]
    assert [(bad.number, bad.reason) for bad in got.bad] == [
        *((n, "BAD_HASH") for n in (2, 3)),
        (4, "NO_SIGNAL"),
        *((n, "BAD_HASH") for n in (5, 6)),
    ]
    assert [bad.record for bad in got.bad] == [line.encode() for line in lines[1:6]]


def test_64_digits_need_a_signal() -> None:
    """A PDQ and a SHA-256 look the same; an MD5 does not."""
    got = read(f"{md5(1)}\n{pdq(1)}\nsha256 {pdq(2)}\nPDQ:{pdq(3)}\n")
    assert [row.contents[0] for row in got.rows] == [
        hashed(Signal.MD5, md5(1)),
        hashed(Signal.SHA256, pdq(2)),
        hashed(Signal.PDQ, pdq(3)),
    ]
    assert [(bad.number, bad.reason) for bad in got.bad] == [(2, "BAD_HASH")]
    assert "say which signal" in got.bad[0].words


def test_a_line_that_is_too_long_is_refused_and_passed_over() -> None:
    """Wherever it lies in the chunks, and the numbers after it are right."""
    limits = Limits(line_bytes_max=100)
    for length in (101, 70_000, 2_000_000):
        got = read(f"{md5(1)}\n{'a' * length}\n{md5(2)}\n", limits=limits)
        assert got.hexes() == [md5(1), md5(2)]
        assert [row.number for row in got.rows] == [1, 3]
        assert [(b.number, b.reason, b.record) for b in got.bad] == [(2, "LIMIT_EXCEEDED", None)]


def test_utf_16_is_refused_by_name() -> None:
    with pytest.raises(BadContent, match="UTF-8"):
        read(md5(1).encode("utf-16"), format=Format.HASHES)


def test_texts_are_one_a_line() -> None:
    """A hashtag is a text; so is a hash. Bytes that are no UTF-8 are refused."""
    got = read(b"one \r\n#two\n\n\xff\xfe\n" + md5(1).encode(), format=Format.TEXTS)
    texts = [content for row in got.rows for content in row.contents]
    assert texts == [TextContent("one"), TextContent("#two"), TextContent(md5(1))]
    assert [(bad.number, bad.reason) for bad in got.bad] == [(4, "BAD_REQUEST")]


def test_texts_are_never_guessed() -> None:
    """A file of anything would be one of texts: it must be asked for, and the formats are named."""
    with pytest.raises(BadRequest, match=r"hashes, csv, jsonl.*texts, images"):
        read("buy now\n")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["", "# c", md5(1), md5(2).upper(), "zz", f" {md5(3)}\r"])))
def test_bulk_and_line_by_line_agree(lines: list[str]) -> None:
    """However good and bad lines are mixed, each is judged as it is alone."""
    got = read("".join(f"{line}\n" for line in lines), format=Format.HASHES)
    alone = [read(f"{line}\n", format=Format.HASHES) for line in lines]
    assert got.hexes() == [digits for one in alone for digits in one.hexes()]
    assert [bad.number for bad in got.bad] == [n for n, a in enumerate(alone, 1) if a.bad]
