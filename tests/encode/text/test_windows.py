"""Windows over a normal form, and the bounds of a text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.encode.text.forms.text_forms import forms_of
from simsearch.encode.text.windows import (
    WINDOW_STRIDE_WORDS,
    WINDOW_WORDS,
    WORD_CHARS_MAX,
    TextLimits,
    bounded_marks,
    windows_of,
)
from simsearch.errors import ContentTooLarge, EmptyContent

LIMITS = TextLimits()


def windows(text: str, limits: TextLimits) -> list[str]:
    return forms_of(text, limits).windows()


def _words(count: int) -> list[str]:
    return [f"word{chr(97 + i // 26 % 26)}{chr(97 + i % 26)}q" for i in range(count)]


@pytest.mark.parametrize("empty", ["", "  \n\t ", "\u200b\u2060", "\ufeff \u00ad", "\ud800"])
def test_text_without_a_visible_character_is_refused(empty: str) -> None:
    """There is nothing to compare in it, and "no match" would be misread."""
    with pytest.raises(EmptyContent, match="no visible character"):
        windows(empty, LIMITS)


@pytest.mark.parametrize("text", ["a" * 101, "ﷺ" * 6])
def test_text_beyond_the_limit_is_refused(text: str) -> None:
    """The limit holds as it comes and unfolded: ﷺ stands for 18 characters."""
    with pytest.raises(ContentTooLarge, match="100 at most: send it in parts"):
        windows(text, TextLimits(chars_max=100))


@pytest.mark.parametrize("count", [1, 31, WINDOW_WORDS])
def test_short_text_is_one_window(count: int) -> None:
    """Up to 32 words a text is compared whole."""
    text = " ".join(_words(count))
    assert windows(text, LIMITS) == [text]


@given(st.integers(WINDOW_WORDS + 1, 200))
def test_every_passage_lies_whole_in_a_window(count: int) -> None:
    """Wherever 16 words stand in a long text, some window holds them all in a row."""
    words = _words(count)
    found = windows_of(" ".join(words))
    assert all(len(window.split()) == WINDOW_WORDS for window in found)
    for begin in range(count - WINDOW_STRIDE_WORDS + 1):
        passage = " ".join(words[begin : begin + WINDOW_STRIDE_WORDS])
        assert any(passage in window for window in found)


def test_windows_begin_every_16_words_and_the_last_ends_with_the_text() -> None:
    """So the windows of a text are the same in every release of one normalisation."""
    words = _words(70)
    assert [words.index(window.split()[0]) for window in windows_of(" ".join(words))] == [
        0,
        16,
        32,
        38,
    ]


@given(st.text("ab 我恨ก\u093fक", max_size=400))
def test_windows_are_slices_that_cover_the_text(text: str) -> None:
    """Nothing is lost or changed: windows follow each other without a gap, from end to end."""
    normal = " ".join(text.split())
    covered = 0
    for window in windows_of(normal):
        at = normal.find(window, max(0, covered - len(window)))
        assert at >= 0
        assert normal[covered:at].strip() == ""
        covered = at + len(window)
    assert normal[covered:].strip() == ""


def test_long_words_and_unspaced_scripts_count_as_several_words() -> None:
    """No window is longer than 32 pieces, however few spaces a text has."""
    latin = windows_of("ab" * 1000)
    assert len(latin) > 1
    assert max(map(len, latin)) == WINDOW_WORDS * WORD_CHARS_MAX
    chinese = windows_of("我恨这个女" * 100)
    assert max(map(len, chinese)) == WINDOW_WORDS * 2


@pytest.mark.parametrize(
    "marks", ["\u0301" * 10_000 + "\u0316" * 9_990, "\u0316\u0301\u0334\u0327" * 4_990]
)
def test_floods_of_combining_marks_cost_no_more_than_other_text(marks: str) -> None:
    """Unicode sorts a run of marks by insertion, in quadratic time: runs are bounded first."""
    flood = "a" + marks
    assert max(len(run) for run in re.findall(r"[\u0300-\u036f]+", bounded_marks(flood))) == 30
    assert windows(flood, TextLimits()) == ["a"]


def test_marks_that_a_language_writes_are_kept() -> None:
    """Bounding runs changes no real text."""
    for text in ("Việt Nam", "हिन्दी में लिखा", "שָׁלוֹם", "ภาษาไทย"):
        assert bounded_marks(text) == text
