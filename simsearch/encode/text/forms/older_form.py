"""Older form: the normal form `strong1`, frozen, for rows of banks that have rules for it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from enum import Enum
from functools import lru_cache
from typing import Final

from simsearch.encode.text.forms.confusables import DOUBLED, LOOKALIKES, STYLED
from simsearch.encode.text.forms.leet import undo_leet
from simsearch.encode.text.windows import TextLimits, bounded_marks
from simsearch.errors import EmptyContent

OLDER_NORMALISATION_ID: Final = "strong1"
"""Names what `older_form` does: hashes and vectors of before `text_forms` are of it alone."""

_ROUNDS_MAX: Final = 8


def older_checked(text: str, limits: TextLimits) -> str:
    """The older form of the text. Raises EmptyContent, ContentTooLarge."""
    limits.check(text)
    normal = older_form(text)
    if not normal:
        raise EmptyContent("the text has no visible character: send some text")
    return normal


# ---------------------------------------------------------------- normal form


def older_form(text: str) -> str:
    """The form in which texts were hashed, embedded and compared.

    Unicode compatibility forms, case, invisible characters, accents, lookalike letters, leet,
    s p a c e d letters, looong letters and white space are levelled. Normalising twice is
    normalising once; time is linear in the length; nothing is refused.
    """
    for _ in range(_ROUNDS_MAX):
        before, text = text, _once(text)
        if text == before:
            return text
    return _plain(text)


def _once(text: str) -> str:
    text = _fold(bounded_marks(text))
    text = _join_spaced(text)
    text = undo_leet(text)
    text = _LONG_RUN.sub(_shorten, text)
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Where undoing one trick keeps uncovering the next (built, not written, texts): letters and
    spaces alone, in which no trick is left to undo."""
    text = text.translate(LOOKALIKES)
    text = "".join(c if c.isalpha() else " " for c in text)
    text = _join_spaced(" ".join(text.split()))
    return _LONG_RUN.sub(_shorten, unicodedata.normalize("NFC", text))


# ---------------------------------------------------------------- characters


class _Kind(Enum):
    LATIN = 1
    LOOKALIKE = 2
    OTHER_LETTER = 3  # Greek or Cyrillic, not drawn like a Latin letter
    FOREIGN_LETTER = 4  # of a script whose marks are substance
    MARK = 5
    SPACE = 6
    INVISIBLE = 7
    PLAIN = 8


# Invisible without being of category Cf: fillers, the grapheme joiner, variation selectors.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufffc") | {
    chr(c) for c in (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
_ALPHABETS = ("LATIN ", "GREEK ", "CYRILLIC ")


@lru_cache(maxsize=16_384)
def _kind(char: str) -> _Kind:
    if char.isspace():
        return _Kind.SPACE
    category = unicodedata.category(char)
    if category in ("Cc", "Cf", "Cs") or char in _INVISIBLE:
        return _Kind.INVISIBLE
    if category[0] == "M":
        return _Kind.MARK
    return _letter_kind(char) if char.isalpha() else _Kind.PLAIN


def _letter_kind(char: str) -> _Kind:
    if ord(char) in LOOKALIKES:
        return _Kind.LOOKALIKE
    name = unicodedata.name(char, "")
    if name.startswith("LATIN "):
        return _Kind.LATIN
    return _Kind.OTHER_LETTER if name.startswith(_ALPHABETS) else _Kind.FOREIGN_LETTER


def _fold(text: str) -> str:
    """Compatibility forms, invisible characters, accents, disguised letters and case."""
    if text.isascii() and text.isprintable():
        return text.lower()
    bare = _strip(unicodedata.normalize("NFKD", text)).translate(STYLED)
    return unicodedata.normalize("NFC", _undisguise(bare).casefold())


def _strip(decomposed: str) -> str:
    """Without invisible characters, and without marks but on letters they are substance of."""
    kept: list[str] = []
    marks_stay = False
    for char in decomposed:
        kind = _kind(char)
        if kind is _Kind.INVISIBLE or (kind is _Kind.MARK and not marks_stay):
            continue
        if kind is not _Kind.MARK:
            marks_stay = kind is _Kind.FOREIGN_LETTER
        kept.append(" " if kind is _Kind.SPACE else char)
    return "".join(kept)


# ---------------------------------------------------------------- lookalikes

_WORD = re.compile(r"\w+")


def _undisguise(text: str) -> str:
    """Lookalikes become Latin in words that are Latin, and in all words of a text that is; so
    Russian and Greek stay what they are."""
    if text.isascii():
        return text
    text = _WORD.sub(_undisguise_latin_word, text)
    kinds = _census(text)
    latin = kinds[_Kind.LATIN]
    if latin < kinds[_Kind.LOOKALIKE] or latin <= 2 * _unlike(kinds):
        return text
    return _WORD.sub(_undisguise_lookalike_word, text)


def _census(text: str) -> Counter[_Kind]:
    return Counter(map(_kind, text))


def _unlike(kinds: Counter[_Kind]) -> int:
    return kinds[_Kind.OTHER_LETTER] + kinds[_Kind.FOREIGN_LETTER]


def _undisguise_latin_word(word: re.Match[str]) -> str:
    if word[0].isascii():
        return word[0]
    kinds = _census(word[0])
    latin = kinds[_Kind.LATIN]
    if latin > _unlike(kinds) and latin >= kinds[_Kind.LOOKALIKE]:
        return word[0].translate(LOOKALIKES)
    return word[0]


def _undisguise_lookalike_word(word: re.Match[str]) -> str:
    if word[0].isascii() or _unlike(_census(word[0])):
        return word[0]
    return word[0].translate(LOOKALIKES)


# ---------------------------------------------------------------- spaced letters

_ITEM, _GAP = r"(?:[^\W_]|[@$!])", r"[ .,_*/\\~·•-]"
# Three or more single characters: any one sign between two of them, or the same two or three
# signs between all of them.
_SPACED = re.compile(
    rf"(?<![^\W_])(?:{_ITEM}(?:{_GAP}{_ITEM}){{2,}}|{_ITEM}({_GAP}{{2,3}}){_ITEM}(?:\1{_ITEM})+)"
    r"(?![^\W_])"
)
_NO_ITEM = re.compile(rf"{_GAP}+")


def _join_spaced(text: str) -> str:
    return _SPACED.sub(_join, text)


def _join(spaced: re.Match[str]) -> str:
    """h e l l o, but not 1 2 3: at least two letters, and no fewer than other characters.
    h.e.l.l.o m.a.n is two words."""
    words = [_NO_ITEM.sub("", word) for word in spaced[0].split(" ")]
    items = "".join(words)
    letters = sum(map(str.isalpha, items))
    if letters < max(2, len(items) - letters):
        return spaced[0]
    return " ".join(words) if min(map(len, words)) >= 3 else items


# ---------------------------------------------------------------- long runs

_LONG_RUN = re.compile(r"([^\s\d])\1{2,}")


def _shorten(run: re.Match[str]) -> str:
    """heyyyyy is hey, coooool is cool; aaaa by itself, emoji and other scripts keep two."""
    char, text = run[1], run.string
    beside = text[run.start() - 1 : run.start()] + text[run.end() : run.end() + 1]
    single = "a" <= char <= "z" and char not in DOUBLED and any(map(str.isalpha, beside))
    return char if single else 2 * char
