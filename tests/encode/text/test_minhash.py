"""MinHash rows: what distance means, and that they are the same everywhere and for ever."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.encode.text.minhash import SHINGLES_MIN, minhash_of, shingles_of
from simsearch.types import BITS

WORDS = [
    a + b + c for a in ("ba", "ko", "lin", "tru") for b in ("m", "sta", "ver") for c in "aeiou"
]


def _hamming(left: str, right: str) -> int:
    rows = minhash_of([left, right])
    return int(np.unpackbits(rows[0] ^ rows[1]).sum())


def _jaccard(left: str, right: str) -> float:
    a, b = shingles_of(left), shingles_of(right)
    return len(a & b) / len(a | b)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        (
            "the quick brown fox jumps over the lazy dog",
            "4449c21694d6c432469182032adbf0df408d96413973ed83127420d85815d9fa",
        ),
        (
            "я ненавижу всё это каждый день",
            "a0d8ea29fd4db095e18e4289ffb3d87952eabcb9699734f803e32b5ef8c7caf6",
        ),
        (
            "我恨这个地方因为这里的人都不好",
            "41f21949c47fa26b9634755eae7f637eddbe0c885b49df9a4ddd04d458f5cbf1",
        ),
    ],
)
def test_golden_rows(text: str, row: str) -> None:
    """Stored rows are compared with those made years later: they never change."""
    assert minhash_of([text]).tobytes().hex() == row


def test_expected_distance_is_128_times_one_minus_jaccard() -> None:
    """Over many pairs of every similarity, distances scatter around 128 (1 - J) as tosses of 256
    coins would: no bias, no bits that go together."""
    rng = random.Random(7)
    deviations = []
    for _ in range(400):
        words = rng.choices(WORDS, k=12)
        kept = rng.randrange(12)
        left, right = " ".join(words), " ".join(words[:kept] + rng.choices(WORDS, k=12 - kept))
        share = (1 - _jaccard(left, right)) / 2
        if share > 0:
            spread = np.sqrt(BITS * share * (1 - share))
            deviations.append((_hamming(left, right) - BITS * share) / spread)
    assert len(deviations) > 300
    assert abs(np.mean(deviations)) < 0.2
    assert 0.85 < np.std(deviations) < 1.15


@given(st.lists(st.text("abcdefgh 我", max_size=40), max_size=12))
def test_a_row_does_not_depend_on_its_neighbours(windows: list[str]) -> None:
    """One row per window with enough shingles, in order, the same alone and in any batch."""
    alone = [minhash_of([window]) for window in windows]
    together = minhash_of(windows)
    assert together.dtype == np.uint8
    assert together.shape == (sum(map(len, alone)), 32)
    assert together.tobytes() == b"".join(rows.tobytes() for rows in alone)


@given(st.text("abcdefghij ", max_size=30))
def test_a_window_of_few_shingles_has_no_row(window: str) -> None:
    """Fewer than 8 distinct shingles say too little; 8 are enough."""
    assert len(minhash_of([window])) == (len(shingles_of(window)) >= SHINGLES_MIN)


def test_windows_behind_each_other_share_no_shingle() -> None:
    """The end of one window and the beginning of the next make no shingle together."""
    assert len(minhash_of(["abcdefg", "hijklmn"])) == 0


def test_spaces_and_signs_do_not_count() -> None:
    """Taking spaces out, putting some in or adding signs leaves the row as it is."""
    text = "nobody here should have to read this"
    for other in (text.replace(" ", ""), text.replace("o", "o "), text.replace(" ", " - ") + "!!"):
        assert _hamming(text, other) == 0


def test_many_shingles_take_several_passes() -> None:
    """A window longer than one pass, and passes that end between windows, change nothing."""
    rng = random.Random(3)
    windows = [" ".join(rng.choices(WORDS, k=k)) for k in (900, 3, 40, 900, 5)]
    windows += ["".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(5000))]
    alone = np.concatenate([minhash_of([window]) for window in windows])
    assert minhash_of(windows).tobytes() == alone.tobytes()


def test_unequal_texts_are_far_apart() -> None:
    """Texts that share nothing lie about 128 bits apart, a typo within 48."""
    text = "this is a sentence that somebody has banned"
    assert _hamming(text, "pourquoi ne viendrait il jamais demain") > 96
    assert _hamming(text, "this is a sentense that somebody has banned") <= 48
