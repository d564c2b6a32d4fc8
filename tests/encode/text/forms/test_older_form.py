"""The older form: rows of before are of it, so that none of its results may change."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.encode.text.forms import older_form as text_module
from simsearch.encode.text.forms.older_form import older_form

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
    assert older_form(written) == meant


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
    assert older_form(plain) == plain


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
    assert older_form(plain) == unicodedata.normalize("NFKC", plain)


def test_lookalikes_become_latin_only_in_latin_words_and_texts() -> None:
    """Cyrillic and Greek letters drawn like Latin ones are read as Latin among Latin letters."""
    assert older_form("і hаtе wоmеn, а ΗΑΤΕ") == "i hate women, a hate"
    assert older_form("Ηate") == "hate"
    assert older_form("сок") == "сок"


@given(st.one_of(st.text(), st.text(TRICKY, max_size=60)))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    """The normal form of a normal form is itself, for any text, and it has no odd spaces."""
    once = older_form(text)
    assert older_form(once) == once
    assert once == " ".join(once.split())


@given(st.text(TRICKY, max_size=60))
def test_the_last_resort_is_a_normal_form(text: str) -> None:
    """Where rounds run out, what is left holds no trick: one more round changes nothing."""
    plain = text_module._plain(text_module._once(text_module._once(text)))
    assert text_module._once(plain) == plain


@given(st.characters(), st.sampled_from(["{}", "a{}b", "ж{}", "क{}", "1{}", "a {} b"]))
def test_every_character_has_a_normal_form(char: str, around: str) -> None:
    """No single character, alone or among letters, fails or needs a second pass."""
    once = older_form(around.format(char))
    assert older_form(once) == once


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
    older_form(text)
    older_form(unit + text[1:] + "x")
    assert time.process_time() - begun < 10


def test_case_and_accents_of_an_ascii_text_do_not_depend_on_the_path() -> None:
    """The short way for ASCII text gives what the long way gives."""
    text = "Hello THERE, 24/7!"
    assert older_form(text) == older_form(text + "\u200b")
