"""Strong form: a light form without what else disguises a word, for people to look at.

Accents, styled letters, "fancy text", leet, s p a c e d letters, looong letters, Braille, letters
turned upside down and the forms of Arabic letters are undone. Different words can become equal, so
an equal strong form asks for a person.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from simsearch.encode.text.forms.leet import undo_leet
from simsearch.encode.text.forms.light_form import light_form, may_change
from simsearch.encode.text.forms.lookalike_table import CONFUSABLES
from simsearch.encode.text.forms.lookalike_words import loosely_undone
from simsearch.encode.text.forms.visual_order import turned_upright

_ROUNDS_MAX: Final = 4


def strong_form(light: str) -> str:
    """The strong form of a text in light form; of a strong form it is the same. Linear time."""
    text = light
    for _ in range(_ROUNDS_MAX):
        before, text = text, _once(text)
        if text == before:
            return text
        if may_change(text):
            text = light_form(text)
    return _bare(text)


def _once(text: str) -> str:
    if not text.isascii():
        text = _undressed(text)
    text = _without_the_sign_between(text)
    if _SPACED_HINT.search(text):
        text = _SPACED.sub(_join, " ".join(map(_drawn, text.split(" "))))
    return " ".join(map(_strong_word, text.split(" "))).strip()


def _bare(text: str) -> str:
    """Where undoing one trick keeps uncovering the next (built, not written, texts): letters alone,
    in words of five, in which no trick is left to undo."""
    letters = unicodedata.normalize("NFD", text.translate(_STYLED)).lower()
    kept = "".join(c for c in letters if "a" <= c <= "z" or (c.isalpha() and not _is_styled(c)))
    runs = re.sub(r"(.)\1+", r"\1", kept)
    return " ".join(runs[i : i + 5] for i in range(0, len(runs), 5))


def _is_styled(char: str) -> bool:
    return unicodedata.name(char, "").startswith(_ALPHABETS)


# ---------------------------------------------------------------- whole texts

_BRAILLE = re.compile("[\u2801-\u283f]")
_BRAILLE_TABLE = str.maketrans(
    dict(zip("⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵", "abcdefghijklmnopqrstuvwxyz", strict=True))
    | {"⠀": " ", "⠠": "", "⠨": "", "⠂": ",", "⠲": ".", "⠦": "?", "⠖": "!", "⠤": "-", "⠄": "'"}
)

_MONEY_FONT = str.maketrans("₳฿₿₵đɇ₣₲ⱨł₭ⱡ₥₦ø₱ɽ₹₴₮ŧʉ₩ӿɏ¥ⱬ€£¢", "abbcdefghiklmnoprrsttuwxyyzelc")
_MONEY = re.compile("[₳฿₿₵₣₲₭₥₦₱₴₮₩]")
_MONEY_SIGN = re.compile(r"[₳฿₿₵₣₲₭₥₦₱₴₮₩][^\W\d_]|[^\W\d_][₳฿₿₵₣₲₭₥₦₱₴₮₩]|[₳₵₣₲₥₦₱₴₮]{2}")

_CJK = "\u3005-\u3007\u3040-\u30ff\u31a0-\u31bf\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CJK_GAP = re.compile(rf"(?<=[{_CJK}])[^\w@#]+(?=[{_CJK}])")
_CJK_SIGNS = str.maketrans({sign: " " for sign in "、。〃〈〉《》「」『』【】〔〕〖〗・〜…‥"})
_IN_CJK = re.compile(f"[{_CJK}]")


def _undressed(text: str) -> str:
    """What is decided for a text and not for a word."""
    if _BRAILLE.search(text):
        text = text.translate(_BRAILLE_TABLE)
    if _MONEY.search(text) and len(_MONEY_SIGN.findall(text)) > 1:
        text = text.translate(_MONEY_FONT)
    text = turned_upright(text)
    if _IN_CJK.search(text):
        text = _CJK_GAP.sub("", text.translate(_CJK_SIGNS))
    return " ".join(text.split())


# ---------------------------------------------------------------- spaced letters

_ITEM, _GAP = r"(?:[^\W_]|[@$!])", r"[ .,_*/\\~·•|:;+=-]"
# Three or more single characters: any one sign between two of them, or the same two or three
# signs between all of them.
_SPACED = re.compile(
    rf"(?<![^\W_])(?:{_ITEM}(?:{_GAP}{_ITEM}){{2,}}|{_ITEM}({_GAP}{{2,3}}){_ITEM}(?:\1{_ITEM})+)"
    r"(?![^\W_])"
)
_SPACED_HINT = re.compile(rf"(?<![^\W_]){_ITEM}{_GAP}{{1,3}}{_ITEM}{_GAP}{{1,3}}{_ITEM}(?![^\W_])")
_NO_ITEM = re.compile(rf"{_GAP}+")
_SIGN = re.compile(r"[^\w\s]")
_SIGN_SHARE, _SIGNS_MIN = 0.3, 4


def _without_the_sign_between(text: str) -> str:
    """A!l!l! !o!f! !i!t: a sign that is a third of the text is no part of it."""
    signs, least = _SIGN.findall(text), _SIGN_SHARE * len(text)
    if len(signs) < max(_SIGNS_MIN, least):
        return text
    [(sign, count)] = Counter(signs).most_common(1)
    if count < least:
        return text
    return " ".join(text.replace(sign, "").split())


def _join(spaced: re.Match[str]) -> str:
    """h e l l o, but not 1 2 3: at least two letters, and no fewer than other characters.
    h.e.l.l.o m.a.n is two words."""
    words = [_NO_ITEM.sub("", word) for word in spaced[0].split(" ")]
    items = "".join(words)
    letters = sum(map(str.isalpha, items))
    if letters < max(2, len(items) - letters):
        return spaced[0]
    return " ".join(words) if min(map(len, words)) >= 3 else items


# ---------------------------------------------------------------- words

_ALPHABETS = ("LATIN ", "GREEK ", "CYRILLIC ")
_SMALL_CAPITALS = ("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz")
_BARRED = ("øđłħŧƀɨɇɍɏɉȼⱥⱦƚɫıȷɑɡɐǝɔɟɥɯɹʇʌʍʎəɛƒɾʞʃþðŋ", "odlhtbieryjcatllijagaecfhmrtvwyeefjklpdn")
_DIGRAPHS = {"æ": "ae", "œ": "oe", "ß": "ss", "ς": "σ"}
_ARABIC = "اأإآٱٲٳ يىیې هةۀھہەۃ كک"
_STYLED = str.maketrans(
    {
        sign.lower(): group[0]
        for group in CONFUSABLES["latin"]
        for sign in group[1:]
        if len(sign.lower()) == 1
    }
    | dict(zip(*_SMALL_CAPITALS, strict=True))
    | dict(zip(*_BARRED, strict=True))
    | _DIGRAPHS
)
_ARABIC_FORMS = str.maketrans(
    {form: letters[0] for letters in _ARABIC.split() for form in letters[1:]}
)
"""Alef, yeh and heh as one, as Lucene's ArabicNormalizer has them."""


_AROUND = ".,;:?\"'()"


@lru_cache(maxsize=65_536)
def _strong_word(word: str) -> str:
    """Of what stands between two spaces."""
    core = word.strip(_AROUND)
    if core.isalpha() and core.isascii():
        return _shortened(word)
    if not word.isascii():
        word = _without_accents(loosely_undone(word))
    return _shortened(undo_leet(_drawn(word)))


def _without_accents(word: str) -> str:
    """Marks stay on letters of scripts in which they are substance."""
    kept: list[str] = []
    stays = False
    for char in unicodedata.normalize("NFD", word):
        if unicodedata.category(char)[0] != "M":
            stays = char.isalpha() and not unicodedata.name(char, "").startswith(_ALPHABETS)
        elif not stays:
            continue
        kept.append(char)
    bare = unicodedata.normalize("NFC", "".join(kept)).lower()
    digits = "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in bare)
    return digits.translate(_STYLED).translate(_ARABIC_FORMS)


# ---------------------------------------------------------------- letters drawn with signs

_DRAWN = {
    "|\\/|": "m", "/\\/\\": "m", "/v\\": "m", "[v]": "m", "]v[": "m", "\\/\\/": "w", "|/\\|": "w",
    "|-|": "h", "|+|": "h", "[-]": "h", "]-[": "h", "(-)": "h", "/-/": "h", "}{": "x", "><": "x",
    "|\\|": "n", "/\\/": "n", "[\\]": "n", "{\\}": "n", "|_|": "u", "(_)": "u", "\\_/": "u",
    "()": "o", "[]": "o", "<>": "o", "(0)": "o", "/\\": "a", "\\/": "v", "|)": "d", "[)": "d",
    "|3": "b", "|>": "p", "|*": "p", "|=": "f", "|#": "f", "|<": "k", "|{": "k", "|2": "r",
    "|_": "l", "_|": "j", "'/": "y", "`/": "y", "-|-": "t", "~|~": "t", "()_": "q", "(_,)": "q",
    "\\n": "w", "/2": "r",
}  # fmt: skip
_BESIDE_DRAWN = {
    "i2": "r", "i3": "b", "12": "r", "13": "b", "^^": "m", "vv": "w", "#": "h", "_": "u",
    "[": "c", "{": "c", "]": "j", "^": "a", "<": "c",
}  # fmt: skip
"""Signs that are letters where others of the word are drawn."""


def _any_of(signs: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(sign) for sign in sorted(signs, key=len, reverse=True)))


_DRAWN_SIGN, _ALL_DRAWN = _any_of(_DRAWN), _DRAWN | _BESIDE_DRAWN
_DRAWN_OR_BESIDE = _any_of(_ALL_DRAWN)
_PLAIN_SIGNS = re.compile(r"[\w.,;:!?\"'()-]*")
_HIDDEN_U = re.compile(r"(?<=[a-z0-9])_(?=[a-z0-9]|$)")
_HIDDEN_U_WORD_MAX = 7


def _drawn(word: str) -> str:
    """|-|4t3 as h4t3: signs in a row that draw a letter, in a word with another letter or more
    of them; f_ck with its u."""
    if _PLAIN_SIGNS.fullmatch(word):
        short = word.count("_") == 1 and len(word) <= _HIDDEN_U_WORD_MAX
        return _HIDDEN_U.sub("u", word) if short else word
    found = _DRAWN_SIGN.findall(word)
    if not found and len(_DRAWN_OR_BESIDE.findall(word)) > 2:
        found = [word]
    if not found or (len(found) < 2 and not any(map(str.isalnum, word))):
        return word
    if word.startswith(("[", "(", "<")) and word.endswith(("]", ")", ">")) and len(found) < 2:
        return word
    return _DRAWN_OR_BESIDE.sub(lambda sign: _ALL_DRAWN[sign[0]], word)


# ---------------------------------------------------------------- long runs

_LONG_RUN = re.compile(r"([^\d])\1{2,}")
_ROMAN = re.compile(r"m{0,3}(?:cm|cd|d?c{0,3})(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})")
_TWICE = frozenset("bcdefglmnoprstz")  # what English writes twice in a row
_RUN_OF_WORD_MAX = 3


def _shortened(word: str) -> str:
    """heyyyyy is hey, coooool is cool; iii, viii and xxx are numbers; a word of one letter keeps
    three of it, so that aaa is not aa."""
    if not _LONG_RUN.search(word) or _ROMAN.fullmatch(word.strip(".,:;!?()'\"")):
        return word
    if word == word[0] * len(word):
        return word[0] * _RUN_OF_WORD_MAX
    return _LONG_RUN.sub(_short_run, word)


def _short_run(run: re.Match[str]) -> str:
    char, text = run[1], run.string
    beside = text[run.start() - 1 : run.start()] + text[run.end() : run.end() + 1]
    single = "a" <= char <= "z" and char not in _TWICE and any(map(str.isalpha, beside))
    return char if single else 2 * char
