"""The wide sketch: what distance means, windows, scripts, and that rows never change."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.encode.text.minhash import minhash_of, shingles_of
from simsearch.encode.text.sketch import SKETCH_BITS, sketches
from simsearch.types import Bits

WORDS = [
    a + b + c for a in ("ba", "ko", "lin", "tru") for b in ("m", "sta", "ver") for c in "aeiou"
]


def _row(text: str) -> Bits:
    """That of the whole."""
    [rows] = sketches([text], windows=False)
    return rows[:1]


def _least(asked: str, banned: str) -> int:
    [asks] = sketches([asked], windows=True)
    [bans] = sketches([banned], windows=False)
    return int(np.bitwise_count(asks[:, None] ^ bans[None]).sum(axis=2, dtype=np.int64).min())


def test_the_head_is_the_short_sketch() -> None:
    """The first 256 bits are those of minhash_of, for a text in one window."""
    for text in ("the quick brown fox jumps over the lazy dog", "я ненавижу всё это каждый день"):
        assert _row(text)[0, :32].tobytes() == minhash_of([text])[0].tobytes()


def test_expected_distance_is_512_times_one_minus_jaccard() -> None:
    """Over many pairs of every similarity: no bias, and no more scatter than two bits of each of
    512 orders make."""
    rng = random.Random(7)
    deviations = []
    for _ in range(400):
        words = rng.choices(WORDS, k=12)
        kept = rng.randrange(12)
        left, right = " ".join(words), " ".join(words[:kept] + rng.choices(WORDS, k=12 - kept))
        a, b = shingles_of(left), shingles_of(right)
        apart = 1 - len(a & b) / len(a | b)
        if apart > 0:
            distance = int(np.bitwise_count(_row(left) ^ _row(right)).sum(dtype=np.int64))
            spread = np.sqrt(SKETCH_BITS / 2 * (1.5 * apart - apart**2))
            deviations.append((distance - SKETCH_BITS / 2 * apart) / spread)
    assert len(deviations) > 300
    assert abs(np.mean(deviations)) < 0.2
    assert 0.85 < np.std(deviations) < 1.15


@settings(deadline=None)
@given(st.lists(st.text("abcdefgh 我你们", max_size=400), max_size=8), st.booleans())
def test_a_row_does_not_depend_on_its_neighbours(texts: list[str], windows: bool) -> None:
    """The same alone and in any batch."""
    together = sketches(texts, windows=windows)
    assert len(together) == len(texts)
    for text, rows in zip(texts, together, strict=True):
        assert rows.dtype == np.uint8
        assert rows.shape[1:] == (128,)
        assert rows.tobytes() == sketches([text], windows=windows)[0].tobytes()


def test_a_long_text_of_one_letter_group_has_no_row() -> None:
    """Few distinct shingles say too little, however often they come, in every window."""
    assert len(sketches(["hahaha" * 500], windows=True)[0]) == 0
    assert len(sketches(["a b c d"], windows=True)[0]) == 0
    text = "hahaha" * 200 + "this is a sentence that somebody has banned"
    assert 1 <= len(sketches([text], windows=True)[0]) <= 10


def test_a_banned_text_has_rows_of_its_halves_and_of_its_consonants() -> None:
    """One of the whole, two of halves, one of consonants; a long one has windows instead."""
    words = random.Random(1).choices(WORDS, k=200)
    assert len(sketches([" ".join(words[:30])], windows=False)[0]) == 4
    assert len(sketches([" ".join(words)], windows=False)[0]) > 10


@pytest.mark.parametrize("left_out", ["aeiou", "aei", "ou"])
def test_dropped_and_starred_vowels_are_found(left_out: str) -> None:
    """All of them, and where only some are gone what is left of the letters."""
    banned = "this is a sentence that somebody has banned for being offensive to others"
    dropped = "".join(c for c in banned if c not in left_out)
    starred = "".join("*" if c in left_out else c for c in banned)
    assert _least(dropped, banned) <= 290
    assert _least(starred, banned) == _least(dropped, banned)


def test_repeated_letters_count_once() -> None:
    assert (
        _least(
            "thiis iss aa sentenncee thatt somebody bannned",
            "this is a sentence that somebody banned",
        )
        == 0
    )


@pytest.mark.parametrize("before", [0, 3, 17, 41, 70])
def test_a_short_text_is_found_inside_a_long_one(before: int) -> None:
    """Wherever it stands among 80 other words; others stay far."""
    rng = random.Random(before)
    noise = [
        "".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randrange(2, 8))) for _ in "x" * 80
    ]
    banned = "this is a sentence that somebody has banned"
    text = " ".join([*noise[:before], banned, *noise[before:]])
    assert _least(text, banned) <= 300
    assert _least(" ".join(noise), banned) >= 400


def test_a_half_of_a_banned_text_is_found() -> None:
    words = random.Random(4).sample(WORDS, 36)
    assert _least(" ".join(words[:18]), " ".join(words)) <= 300


@pytest.mark.parametrize("text", ["我恨这个地方的人", "私はこの場所が嫌い", "ฉันเกลียดที่นี่มาก"])
def test_a_short_text_without_spaces_has_a_row(text: str) -> None:
    assert len(sketches([text], windows=False)[0]) == 1
    assert _least(text, text) == 0
