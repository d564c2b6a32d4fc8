"""The normal form of texts, and the windows over it."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.encode.text import normalise as text_module
from simsearch.encode.text.normalise import (
    WINDOW_STRIDE_WORDS,
    WINDOW_WORDS,
    WORD_CHARS_MAX,
    TextLimits,
    bounded_marks,
    normalise,
    windows,
    windows_of,
)
from simsearch.errors import ContentTooLarge, EmptyContent

LIMITS = TextLimits()

TRICKY = (
    "aabehlo  ..--__@$!+|011234579аеожпсαηΗАЕ恨哈が\u0301\u093f\u200bक1"
    "aA İßﬁ½🅰각가\u1100\u1161\ud800"
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Ｈｅｌｌｏ 𝓱𝓪𝓽𝓮 ⓗⓐⓣⓔ 🅷🅰🆃🅴", "hello hate hate hate"),
        ("h\u200ba\u00adt\u2060e \u202ewomen\u202c", "hate women"),
        ("Z̷̛a̶l̵g̸o héllo naïve Øre", "zalgo hello naive ore"),
        ("h4t3 w0m3n", "hate women"),
        ("$hit @ss b1tch sh!t a$$hole ni99le", "shit ass bitch shit asshole niggle"),
        ("7h353 4r3 ju$7 wh1t3", "these are just white"),
        ("ki11 a11 1ike be1ieve app1y cou1d", "kill all like believe apply could"),
        ("h e l l o", "hello"),
        ("h.e.l.l.o", "hello"),
        ("h-e-l-l-o", "hello"),
        ("h. e. l. l. o", "hello"),
        ("h.e.l.l.o m.a.n", "hello man"),
        ("i  h a t e  y o u", "i hate you"),
        ("h 4 t 3 them", "hate them"),
        ("heyyyyyy cooooool haaaate", "hey cool hate"),
        ("  so\tmuch \n space ", "so much space"),
    ],
)
def test_tricks_are_undone(written: str, meant: str) -> None:
    """A word in disguise has the normal form of the word."""
    assert normalise(written) == meant


@pytest.mark.parametrize(
    "plain",
    [
        "covid19 2nd mp3 win11 2019 $20 $20k us$5 1,000 5pm 1st 24/7 b2b 4x4 6ft2 1980s",
        "wow!! really? +1",
        "a b",
        "e.g. this",
        "1 2 3 4",
        "1000000 reasons",
        "@mayasolovely said so",
    ],
)
def test_ordinary_text_stays(plain: str) -> None:
    """Numbers, prices, dates, mentions and short runs of single letters are not leet."""
    assert normalise(plain) == plain


@pytest.mark.parametrize(
    "plain",
    [
        "я ненавижу это, а он кто",
        "я купил iphone, он хорош",
        "καλημερα κοσμε",
        "मैं औरतों से नफरत करता हूँ",
        "انا بكره النِّساء",
        "ผู้หญิง",
        "我恨这个",
        "가나다 がぎ",
    ],
)
def test_other_scripts_stay(plain: str) -> None:
    """Text of another script keeps its letters, and the marks that are their substance."""
    assert normalise(plain) == unicodedata.normalize("NFKC", plain)


def test_lookalikes_become_latin_only_in_latin_words_and_texts() -> None:
    """Cyrillic and Greek letters drawn like Latin ones are read as Latin among Latin letters."""
    assert normalise("і hаtе wоmеn, а ΗΑΤΕ") == "i hate women, a hate"
    assert normalise("Ηate") == "hate"
    assert normalise("сок") == "сок"


@given(st.one_of(st.text(), st.text(TRICKY, max_size=60)))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    """The normal form of a normal form is itself, for any text, and it has no odd spaces."""
    once = normalise(text)
    assert normalise(once) == once
    assert once == " ".join(once.split())


@given(st.text(TRICKY, max_size=60))
def test_the_last_resort_is_a_normal_form(text: str) -> None:
    """Where rounds run out, what is left holds no trick: one more round changes nothing."""
    plain = text_module._plain(text_module._once(text_module._once(text)))
    assert text_module._once(plain) == plain


@given(st.characters(), st.sampled_from(["{}", "a{}b", "ж{}", "क{}", "1{}", "a {} b"]))
def test_every_character_has_a_normal_form(char: str, around: str) -> None:
    """No single character, alone or among letters, fails or needs a second pass."""
    once = normalise(around.format(char))
    assert normalise(once) == once


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a ",
        "1a",
        "@",
        "a\u0301",
        "a . ",
        "ж",
        "аb1 ",
        "a  b c",
        "a" + "!" * 999 + "1",
        "$1a",
        "_",
    ],
)
def test_time_is_linear(unit: str) -> None:
    """100,000 characters of any pattern take a moment; a quadratic step would take minutes."""
    text = (unit * 100_000)[:100_000]
    begun = time.process_time()
    normalise(text)
    normalise(unit + text[1:] + "x")
    assert time.process_time() - begun < 10


def test_case_and_accents_of_an_ascii_text_do_not_depend_on_the_path() -> None:
    """The short way for ASCII text gives what the long way gives."""
    text = "Hello THERE, 24/7!"
    assert normalise(text) == normalise(text + "\u200b")


# ---------------------------------------------------------------- windows


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
    normal = normalise(text)
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
