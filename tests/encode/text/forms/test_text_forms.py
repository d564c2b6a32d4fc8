"""The light and the strong form of texts: what each undoes, and what it leaves alone."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.encode.text.forms import light_form as light_module
from simsearch.encode.text.forms.light_form import light_form
from simsearch.encode.text.forms.strong_form import strong_form
from simsearch.encode.text.forms.text_forms import forms_of
from simsearch.encode.text.windows import TextLimits
from tests.encode.text.forms.written_texts import SENTENCES

LIMITS = TextLimits()

LATIN = ("english", "german", "french", "polish", "turkish", "vietnamese")

TRICKY = (
    "aabehlo  ..--__@$!+|011234579аеожпсαηΗАЕ恨哈が\u0301\u093f\u200bक1"
    "aA İßﬁ½🅰각가\u1100\u1161\ud800&;#%25amplt"
    "\u202e\u2067\u2069\u202cɥʇǝ⠓₳₵łᗩᎪꓮ乃卂🇺🇸ῼ\u0640\u064eأ"
)

TALK = "Double your coins today: send any amount to the wallet below"


def light(text: str) -> str:
    return forms_of(text, LIMITS).light


def strong(text: str) -> str:
    return forms_of(text, LIMITS).strong


# ---------------------------------------------------------------- what is undone


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Ｈｅｌｌｏ 𝓱𝓪𝓽𝓮 ⓗⓐⓣⓔ 🅷🅰🆃🅴 🄷🄰🅃🄴", "hello hate hate hate hate"),
        ("h\u200ba\u00adt\u2060e", "hate"),
        ("hate \u202enemow\u202c now", "hate women now"),
        ("\u202d\u202eetah\u202c \u202euoy\u202c", "hate you"),
        ("\u2067\u2066e\u2069\u2066t\u2069\u2066a\u2069\u2066h\u2069\u2069", "hate"),
        ("🇭🇦🇹🇪 🇾🇴🇺", "hate you"),
        ("&#104;&#x61;te &amp;lt;3 caf&eacute;", "hate <3 café"),
        ("&" + "amp;" * 20 + "lt;", "<"),
        ("%68%61%74%65 you", "hate you"),
        ("%2525252568%61te", "hate"),
        ("hаtе wоmеn", "hate women"),
        ("don’t “say” that", 'don\'t "say" that'),
        ("CМИ пишут", "сми пишут"),
        ("أرســل المـــال", "أرسل المال"),
        ("أَرْسِلِ المَالَ", "أرسل المال"),
        ("שָׁלוֹם", "שלום"),
        ("  so\tmuch \n space ", "so much space"),
    ],
)
def test_the_light_form_undoes_another_dress(written: str, meant: str) -> None:
    """The same letters, drawn or ordered in another way, are the same text."""
    assert light(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Z̷̛a̶l̵g̸o héllo naïve Øre", "zalgo hello naive ore"),
        ("h4t3 w0m3n", "hate women"),
        ("$hit @ss b1tch sh!t a$$hole ni99le", "shit ass bitch shit asshole niggle"),
        ("7h353 4r3 ju$7 wh1t3", "these are just white"),
        ("|-|ate /\\/ice", "hate nice"),
        ("h e l l o", "hello"),
        ("h. e. l. l. o", "hello"),
        ("h|e|l|l|o", "hello"),
        ("h.e.l.l.o m.a.n", "hello man"),
        ("h\ne\nl\nl\no", "hello"),
        ("h 4 t 3 them", "hate them"),
        ("heyyyyyy cooooool haaaate", "hey cool hate"),
        ("ᴛʜɪs ɪs sᴍᴀʟʟ", "this is small"),
        ("⠓⠁⠞⠑ ⠽⠕⠥", "hate you"),
        ("ɥʇɹɐǝ uo ǝldoǝd llɐ ǝʇɐɥ ı", "i hate all people on earth"),
        ("₳₦Ɏ ₩₳ⱠⱠɆ₮ ł₦", "any wallet in"),
        ("我，恨，你们、这 些 人", "我恨你们这些人"),
        ("ارسل المال الي الان", "ارسل المال الي الان"),
        ("أرسل المال إلى الآن", "ارسل المال الي الان"),
        ("كتاب کتاب", "كتاب كتاب"),
        ("уσυя ωαllετ", "your wallet"),
    ],
)
def test_the_strong_form_undoes_what_disguises_a_word(written: str, meant: str) -> None:
    """A word in disguise has the strong form of the word."""
    assert strong(written) == meant


ALPHABETS = {
    "cyrillic": ("abcdegehijklmnopqrstuvwxyz", "аьсԁеgеһіјкӏмnорԛrѕтuѵԝхуz"),
    "greek": ("abeiknoprtuxydcgshlmw", "αβεικηορrτυχγdcgshlmw"),
    "lisu": ("abcdefghijklmnoprstuvwxyz", "ꓮꓐꓚꓓꓰꓝꓖꓧꓲꓙꓗꓡꓟꓠꓳꓑꓣꓢꓔꓴꓦꓪꓫꓬꓜ"),
    "cherokee": ("abcdeghijklmoprstvwyz", "ᎪᏴᏟᎠᎬᏀᎻᎥᎫᏦᏞᎷᎾᏢᎡᏕᎢᏙᎳᎽᏃ"),
    "canadian": ("abcdehlmnprsuvw", "ᗩᗷᑕᗪEᕼᒪᗰᑎᑭᖇᔕᑌᐯᗯ"),
    "cjk": ("abcdefghijlmnoprstuwxyz", "卂乃匚刀乇千厶卄丨丁ㄥ爪几ㄖ尸尺丂ㄒㄩ山乂ㄚ乙"),
}


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_a_whole_text_in_lookalikes_is_undone(alphabet: str) -> None:
    """A text that is disguised as far as possible is found as one that is disguised by half."""
    plain, drawn = ALPHABETS[alphabet]
    disguised = TALK.lower().translate(str.maketrans(plain, drawn))
    assert light(disguised) == light(TALK)
    half = " ".join(
        word if n % 2 else word.translate(str.maketrans(plain, drawn))
        for n, word in enumerate(TALK.lower().split())
    )
    assert light(half) == light(TALK)


# ---------------------------------------------------------------- what is left alone


@pytest.mark.parametrize("language", SENTENCES)
def test_real_text_stays_itself(language: str) -> None:
    """In 46 languages of 35 scripts the light form changes case and compatibility forms alone, and
    the strong form makes no Latin letters of others."""
    for text in (*SENTENCES[language], " ".join(SENTENCES[language])):
        plain = unicodedata.normalize("NFKC", text).replace("İ", "i").lower()
        assert light(text) == plain.replace("\u200c", "").replace("\u200d", "")
        if language not in LATIN:
            assert not any("a" <= char <= "z" for char in strong(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sikildim artik bu isten cok sikildim", "sıkıldım artık bu işten çok sıkıldım"),
        ("World War III and you", "World War II and you"),
        ("Mẹ tôi bán bò ở chợ", "Mẹ tôi bán bơ ở chợ"),
        ("Tengo veinte anos", "Tengo veinte años"),
        ("Er nennt die Masse", "Er nennt die Maße"),
        ("the a value", "the α value"),
        ("5 um wide", "5 μm wide"),
        ("I love us", "I love 🇺🇸"),
        ("rated AAA", "rated AA"),
        ("сом", "com"),
        ("for free", "four free"),
        ("4 you", "a you"),
        ("Grad VIII", "Grad VII"),
    ],
)
def test_different_words_keep_different_light_forms(one: str, other: str) -> None:
    """An equal light form may BLOCK, so it never makes two different words one."""
    assert light(one) != light(other)


@pytest.mark.parametrize(
    "number", ["iii", "viii", "xiii", "xxx", "mmm", "ccc", "Grad III, Typ VIII"]
)
def test_roman_numerals_are_not_shortened(number: str) -> None:
    """III is not II, in the strong form neither."""
    assert strong(number) == number.lower()


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
        "at&t and r&d; 50%20 of it, 100%",
        "5000₩ ₦2000 €20 ₹500",
        "[x] (y) <z>",
        "🇫🇷🇩🇪 flags",
    ],
)
def test_ordinary_text_stays(plain: str) -> None:
    """Numbers, prices, dates, mentions, flags and short runs of single letters are not leet."""
    assert strong(plain) == plain


# ---------------------------------------------------------------- any text


def _is_stable(text: str) -> None:
    once = light_form(text)
    assert light_form(once) == once
    twice = strong_form(once)
    assert light_form(twice) == twice
    assert strong_form(twice) == twice
    assert twice == " ".join(twice.split())


@given(st.one_of(st.text(), st.text(TRICKY, max_size=60)))
def test_the_form_of_a_form_is_itself(text: str) -> None:
    """So that rows of a form and the form of what was a form already are comparable."""
    _is_stable(text)


@given(st.characters(), st.sampled_from(["{}", "a{}b", "ж{}", "क{}", "1{}", "a {} b", "α{}ο"]))
def test_every_character_has_both_forms(char: str, around: str) -> None:
    """No single character, alone or among letters, fails or needs a second pass."""
    _is_stable(around.format(char))


def test_case_and_accents_of_an_ascii_text_do_not_depend_on_the_path() -> None:
    """The short way for ASCII text gives what the long way gives."""
    text = "Hello THERE, 24/7!"
    assert forms_of(text, LIMITS) == forms_of(text + "\u200b", LIMITS)


def test_what_is_passed_over_for_speed_is_plain() -> None:
    """The characters that are not looked at one by one are those that stay as they are."""
    passed = [chr(c) for c in range(0x20, 0x20000) if not light_module._DRESSED.match(chr(c))]
    assert len(passed) > 20_000
    assert [char for char in passed if light_module._plain(char) != char] == []


HOSTILE = {
    "nested entities": "&" + "amp;" * 25_000 + "lt;",
    "nested percents": "%" + "25" * 50_000 + "41",
    "entities that make entities": "&am&#112;" * 10_000 + ";",
    "marks alone": "\u0301" * 100_000,
    "marks in disorder": "a" + "\u0316\u0301\u0334\u0327" * 25_000,
    "surrogates": "\ud83d" * 100_000,
    "surrogates among letters": "a\ud83db" * 30_000,
    "overrides": "\u202ea" * 50_000,
    "isolates": "\u2067\u2066a\u2069" * 25_000,
    "open isolates": "\u2067" * 50_000 + "a" * 50_000,
    "flags": "🇺" * 100_000,
    "spaced": "a " * 50_000,
    "gaps": "a . " * 25_000,
    "leet": "1a" * 50_000,
    "prices": "$1a" * 30_000,
    "sign": "@" * 100_000,
    "bang": ("a" + "!" * 999 + "1") * 100,
    "drawn": "|\\/" * 30_000,
    "turned": "ɥʇ " * 30_000,
    "lookalikes": "ж аb1 " * 20_000,
    "twins": "ас " * 30_000,
    "one word": "аb" * 50_000,
    "signs in a word": "а-b" * 30_000,
    "chinese": "我，" * 50_000,
    "braille": "⠓" * 100_000,
    "money": "₳₵" * 50_000,
    "unfolding": "ﷺ" * 10_000,
    "run": "x" * 100_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_takes_linear_time(kind: str) -> None:
    """100,000 characters of any pattern take a moment; a quadratic step would take minutes."""
    begun = time.process_time()
    _ = strong_form(light_form(HOSTILE[kind]))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("form", [light_form, lambda text: strong_form(light_form(text))])
def test_a_form_is_made_of_anything(form: Callable[[str], str]) -> None:
    """Nothing is refused by the forms: the bounds are those of `forms_of`."""
    assert form("") == ""
    assert form("\u200b\u2060") == ""
    assert form("\ud800") == ""
