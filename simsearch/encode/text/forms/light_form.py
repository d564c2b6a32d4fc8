"""Light form: a text in plain letters and one case, in which no two different words are equal.

It undoes what changes the dress of letters alone: compatibility forms, escapes, invisible
characters, direction, flags that spell, and words in lookalikes. Accents, repeated letters and
signs stay, so that an equal light form may BLOCK.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from simsearch.encode.text.forms.escapes import without_escapes
from simsearch.encode.text.forms.lookalike_words import undisguised
from simsearch.encode.text.forms.visual_order import CONTROLS, in_visual_order
from simsearch.encode.text.windows import bounded_marks

_ROUNDS_MAX: Final = 8


def light_form(text: str) -> str:
    """The light form of any text; "" where nothing in it can be seen. Of a light form it is the
    same. Time is linear in the length."""
    if text.isascii() and "&" not in text and "%" not in text and text.isprintable():
        return " ".join(text.lower().split())
    for _ in range(_ROUNDS_MAX):
        before, text = text, _once(text)
        if text == before or not may_change(text):
            return text
    return " ".join(text.replace("&", " ").replace("%", " ").split())


def may_change(text: str) -> bool:
    """Whether one more round may change what came out of one: of signs, emoji and ASCII letters
    only escapes do."""
    return _MAY_CHANGE.search(text) is not None


_MAY_CHANGE = re.compile(r"[^\W\x00-\x7f]|[&%]")


def _once(text: str) -> str:
    text = without_escapes(text)
    if CONTROLS.search(text):
        text = in_visual_order(text)
    text = unicodedata.normalize("NFKC", bounded_marks(text))
    if _REGIONAL.search(text):
        text = _without_spelling_flags(text)
    if _DRESSED.search(text):
        text = unicodedata.normalize("NFC", text.translate(_DRESS))
    return unicodedata.normalize("NFC", undisguised(" ".join(text.split()))).lower()


# ---------------------------------------------------------------- characters

_VISIBLE_FORMATS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
# Invisible without being of category Cf: fillers, the grapheme joiner, variation selectors; and
# what only stretches a word.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufffc\u0640\u07fa") | {
    chr(c) for c in (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000))
}
_HAMZA_AND_MADDA = frozenset("\u0653\u0654\u0655")
_QUOTES = {"'": "’‘‛ʼ′", '"': "“”„‟", "-": "‐‑‒–—―−", "i": "İ"}
_PLAIN = {sign: plain for plain, signs in _QUOTES.items() for sign in signs} | {
    chr(first + i): chr(97 + i) for first in (0x1F150, 0x1F170) for i in range(26)
}


class _Dress(dict[int, str]):
    """What becomes of a character; filled as they come, as far as they are common."""

    def __missing__(self, code: int) -> str:
        value = _plain(chr(code))
        if len(self) < 65_536:
            self[code] = value
        return value


_DRESS = _Dress()
_DRESSED = re.compile(
    "[^ -~\xa1-\xac\xae-\u012f\u0131-\u02bb\u02bd-\u034e\u0370-\u0482\u048a-\u058f"
    "\u13a0-\u13ff\u1401-\u167f\u1e00-\u1eff\u3041-\u312f\u4e00-\u9fff\ua4d0-\ua4ff\uac00-\ud7a3]"
)
"""What may not be plain: letters of the commonest scripts are."""


def _plain(char: str) -> str:
    if char in _PLAIN:
        return _PLAIN[char]
    category = unicodedata.category(char)
    if char.isspace() or category[0] == "Z":
        return " "
    hidden = category in ("Cc", "Cs", "Me") or (category == "Cf" and char not in _VISIBLE_FORMATS)
    if hidden or char in _INVISIBLE or (category == "Mn" and _is_vowel_point(char)):
        return ""
    return char


def _is_vowel_point(char: str) -> bool:
    """Arabic and Hebrew are read without them, and mostly written so."""
    name = unicodedata.name(char, "")
    return name.startswith(("ARABIC ", "HEBREW ")) and char not in _HAMZA_AND_MADDA


# ---------------------------------------------------------------- regional indicators

_FIRST_REGIONAL = 0x1F1E6
_REGIONAL = re.compile("[\U0001f1e6-\U0001f1ff]")
_REGIONAL_RUN = re.compile("[\U0001f1e6-\U0001f1ff]+")
_COUNTRIES = frozenset(
    "acadaeafagaiamaoaqarasatauawaxazbabbbdbebfbgbhbibjblbmbnbobqbrbsbtbvbwbybzcacccdcfcgchcickclcm"
    "cncocpcrcucvcwcxcyczdedgdjdkdmdodzeaeceeegehereseteufifjfkfmfofrgagbgdgegfggghgiglgmgngpgqgrgs"
    "gtgugwgyhkhmhnhrhthuicidieiliminioiqirisitjejmjojpkekgkhkikmknkpkrkwkykzlalblclilklrlsltlulvly"
    "mamcmdmemfmgmhmkmlmmmnmompmqmrmsmtmumvmwmxmymznancnenfngninlnonpnrnunzompapepfpgphpkplpmpnprps"
    "ptpwpyqarerorsrurwsasbscsdsesgshsisjskslsmsnsosrssstsvsxsysztatctdtftgthtjtktltmtntotrtttvtwtz"
    "uaugumunusuyuzvavcvevgvivnvuwfwsxkyeytzazmzw"[i : i + 2]
    for i in range(0, 514, 2)
)


def _without_spelling_flags(text: str) -> str:
    """Regional indicators are letters unless all of them are flags of countries: 🇫🇷🇩🇪 stays."""
    runs = [_letters(run) for run in _REGIONAL_RUN.findall(text)]
    if all(run[i : i + 2] in _COUNTRIES for run in runs for i in range(0, len(run), 2)):
        return text
    return _REGIONAL.sub(lambda sign: _letters(sign[0]), text)


def _letters(signs: str) -> str:
    return "".join(chr(ord(sign) - _FIRST_REGIONAL + 97) for sign in signs)
