"""Lookalike words: words in letters of other scripts that are drawn like Latin ones, undone.

The rule is for words (UTS #39, section 4): a word that mixes scripts is suspect if all of its
letters have a Latin twin; a word of one script is, if all of them have a close twin and nothing in
the text speaks for the script. Real text of every script has letters without a twin.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from simsearch.encode.text.forms.lookalike_table import CONFUSABLES

# ---------------------------------------------------------------- tables

_CLOSE: Final = {
    "greek": "aαΑ bβΒ eεΕ hΗ iιΙ kκΚ mΜ nνηΝ oοΟ pρΡ tτΤ uυ xχΧ yγΥ zΖ",
    "cyrillic": "aаА bвьВЬ cсС dԁ eеЕҽҼ gԍԌ hһнҺН iіІ jјЈ kкК lӏӀ mмМ oоО pрР qԛԚ sѕЅ tтТ vѵѴ "
    "wԝԜ xхХ yуүУҮ",
    "armenian": "gց hհ nո oօՕ uսՍ",
    "cherokee": "aꭺᎪ bᏴᏼ cᏟꮯ dᎠꭰ eᎬꭼ gᏀᏳꮐᏻᎶꮆ hᎻᏂꮋꮒ iᎥᏆꭵꮖ jᎫꭻ kᏦꮶ lᏞꮮ mᎷꮇ oᎾꮎᎤꭴᏫ pᏢꮲ rᎡᏒꭱꮢ "
    "sᏚᏕᏪꮪꮥ tᎢꭲ uᏌꮜ vᏙꮩ wᎳᎺꮃᏔꮤ yᎽᎩꮍꭹ zᏃꮓ",
    "lisu": "aꓮ bꓐ cꓚ dꓓ eꓰ fꓝ gꓖ hꓧ iꓲ jꓙ kꓗ lꓡ mꓟ nꓠ oꓳ pꓑ rꓣ sꓢ tꓔ uꓴ vꓦ wꓪ xꓫ yꓬ zꓜ",
    "canadian": "aᗩᗅ bᗷᑲ cᑕ dᗪᗞᑯ eᗴᘿ fᖴ gᘜ hᕼ iᓮ jᒍᒎ kᛕ lᒪ mᗰᘻ nᑎ pᑭ qᑫ rᖇ sᔕ tᖶ uᑌ vᐯ wᗯᘺ "
    "xᕽ yᖻ zᘔ",
    "coptic": "aⲀⲁ bⲂⲃ cⲤⲥ eⲈⲉ hⲎⲏ iⲒⲓ kⲔⲕ mⲘⲙ nⲚⲛ oⲞⲟ pⲢⲣ tⲦⲧ uⲨ xⲬⲭ yⲩ",
    "tifinagh": "eⴹ iⵏ oⵔⵁ qⵕ xⵝ vⴸ",
    "cjk": "a卂 b乃 c匚 d刀 e乇 f千 g厶 h卄 i工丨 j丁亅 k长 l乚ㄥ m爪 n几 oㄖ口 p尸卩 q㔿 r尺 s丂 "
    "tㄒ丅 uㄩ凵 w山 x乂 yㄚ丫 z乙",
}
"""By script: a letter, then what passes for it at a glance in a word of that script alone."""

_LOOSE: Final = (
    "aдλδΔΛ∆∀Ꭿ bъßБђЂ cς eэєзξΣΞё fғ hнћჩ iї kҝҜ m♏ nийпπηДИПЙח oσфθΘӨөΩΦ rяЯгѓᚱ tᏏᎿדҭ uцμџЦ "
    "wшщωШЩψ xжЖ yчφЧ d∂ e∑ v√ n∩ u∪ lℓ s§ t†"
)
"""What "fancy text" makes of letters, in words that mix scripts anyhow."""

_NATIVE: Final = {
    "cyrillic": str.maketrans("aceopxykmtbhABCEHKMOPTXYi", "асеорхукмтвнАВСЕНКМОРТХУі"),
    "greek": str.maketrans("aopvxutkABEZHIKMNOPTYX", "αορνχυτκΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"),
}
"""The other way: Latin letters in words of those scripts."""

_SYMBOLS: Final = {
    "greek": "gGγ",
    "cyrillic": "cCж",
    "armenian": "aAա",
    "cherokee": "hHᎣ",
    "lisu": "sSꓕ",
    "canadian": "uUᐊ",
    "coptic": "pPϣ",
    "tifinagh": "tTⵣ",
    "cjk": "kKㄅ",
}
"""How a letter of a script is written in the outline of a word: with a close twin, with another,
with none."""

_LATIN, _NEUTRAL, _OUTSIDE, _OTHER = "l", "1", ".", "xXฮ"
_CJK_NAMES = frozenset({"cjk", "bopomofo", "hiragana", "katakana", "hangul", "katakana-hiragana"})
_LETTERS_MIN: Final = defaultdict(
    lambda: 8, greek=20, cyrillic=14, coptic=24, armenian=12, cherokee=8, cjk=6
)
"""Letters that a text wholly in close twins needs to be one in disguise: two thirds of the letters
of Russian have such a twin and three quarters of those of Greek, so shorter ones can be real."""

_REAL_SHARE: Final = 12  # one letter without a close twin in so many: real text has four or more
_MANY_LETTERS: Final = 30  # fewer can have few such letters by chance
_MIXED_MIN: Final = 2
_LEFT_SHARE: Final = 4  # of a word with Latin letters one in so many may stay as it is


class _Table(dict[int, str]):
    """Filled as characters come, as far as they are common."""

    _KEPT_MAX = 65_536

    def __missing__(self, code: int) -> str:
        value = self.of(chr(code))
        if len(self) < self._KEPT_MAX:
            self[code] = value
        return value

    def of(self, char: str) -> str:
        raise NotImplementedError


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    return ((sign, part[0]) for part in text.split() for sign in part[1:])


def _script_of(char: str) -> str:
    first = unicodedata.name(char, "OTHER").split(" ", 1)[0].lower()
    return "cjk" if first in _CJK_NAMES else first


_CLOSE_TWINS = {sign: letter for text in _CLOSE.values() for sign, letter in _pairs(text)}
_NEAR_TWINS = {
    sign: letter
    for script, groups in CONFUSABLES.items()
    if script not in ("latin", "sign")
    for group in groups
    for sign, letter in _pairs(group)
    if sign not in "θΘσӨө"  # signs of mathematics, and of a case that has no twin
} | _CLOSE_TWINS
_SIGNS = {sign: letter for group in CONFUSABLES["sign"] for sign, letter in _pairs(group)}
_LOOSE_SIGNS = _SIGNS | _NEAR_TWINS | dict(_pairs(_LOOSE)) | _CLOSE_TWINS
_LOOSE_TWINS = str.maketrans(
    {s.lower(): letter for s, letter in _LOOSE_SIGNS.items() if len(s.lower()) == 1} | _LOOSE_SIGNS
)


class _Twins(_Table):
    def of(self, char: str) -> str:
        return _NEAR_TWINS.get(char, char)


class _Outline(_Table):
    def of(self, char: str) -> str:
        if char == " ":
            return char
        if not char.isalpha():
            return "X" if ord(char) in _LOOSE_TWINS else _sign(char)
        script = _script_of(char)
        if script == "latin":
            return _LATIN
        symbols = _SYMBOLS.get(script, _OTHER)
        if char in _CLOSE_TWINS:
            return symbols[0]
        return symbols[1] if char in _NEAR_TWINS else symbols[2]


def _sign(char: str) -> str:
    inside = char.isdigit() or char == "'" or unicodedata.category(char)[0] == "M"
    return _NEUTRAL if inside else _OUTSIDE


_TWINS, _OUTLINE = _Twins(), _Outline()
_SCRIPT_OF_SYMBOL = {s: script for script, symbols in _SYMBOLS.items() for s in symbols}
_FOREIGN = re.compile(f"[{''.join(_SCRIPT_OF_SYMBOL)}xX]")
_FOREIGN_WORD = re.compile("(?<![^ ])[!-\u024f\u1e00-\u1eff]*+[^ -\u024f\u1e00-\u1eff][^ ]*")
# Chinese beside Latin, other scripts, and words between signs are looked at closely.
_NOT_SIMPLY = re.compile(r"[kKxX]|[^.]\.+[^.]")
_NOT_LATIN = re.compile(f"[^{_LATIN}{_NEUTRAL}{_OUTSIDE}]")


# ---------------------------------------------------------------- the rule


@dataclass
class _Evidence:
    """Of one script in a text: its words that could be Latin ones, by place; all of its letters,
    those without any twin and those without a close one."""

    close: dict[tuple[int, int], str] = field(default_factory=dict)
    near: dict[tuple[int, int], str] = field(default_factory=dict)
    letters: int = 0
    twinless: int = 0
    not_close: int = 0
    longest: int = 0

    def add(self, at: tuple[int, int], shape: str, latin: str) -> None:
        """One word."""
        letters = shape.replace(_NEUTRAL, "").replace(_OUTSIDE, "")
        twinless, near = _unlike(letters)
        self.letters += len(letters)
        self.twinless += twinless
        self.not_close += twinless + near
        if not twinless:
            (self.near if near else self.close)[at] = latin
            self.longest = max(self.longest, len(letters))

    def disguised(self, script: str, latin: int, mixed: int) -> dict[tuple[int, int], str]:
        """The words to undo, in a text of so many other Latin letters and words of mixed scripts
        that were undone."""
        if self.longest < 2 and not mixed:
            return {}
        if mixed >= _MIXED_MIN and not self.twinless:
            return self.close | self.near
        if self.not_close:
            rare = self.not_close * _REAL_SHARE <= self.letters
            return self.close if rare and self.letters >= _MANY_LETTERS else {}
        enough = self.letters >= _LETTERS_MIN[script]
        return self.close if enough or (script != "cjk" and latin >= self.letters) else {}


@lru_cache(maxsize=8192)
def _unlike(letters: str) -> tuple[int, int]:
    """How many have no twin, and how many no close one."""
    near = sum(map(str.isupper, letters))
    twinless = sum(not symbol.isascii() for symbol in letters)
    return twinless, near


def undisguised(text: str) -> str:
    """`text` (words between single spaces) with the words in lookalikes as Latin ones, and Latin
    letters in Russian or Greek words as those of the word."""
    if text.isascii():
        return text
    evidence: dict[str, _Evidence] = defaultdict(_Evidence)
    undone: dict[tuple[int, int], str] = {}
    foreign = 0
    for word in _FOREIGN_WORD.finditer(text):
        verdict, latin_word = _judged(word[0])
        at = word.span()
        if verdict is _MIXED:
            undone[at] = latin_word
        elif verdict:
            evidence[verdict].add(at, _shape(word[0]), latin_word)
            foreign += len(latin_word)
    latin, mixed = len(text) - foreign, len(undone)
    for script, found in evidence.items():
        undone |= found.disguised(script, latin, mixed)
    return _replaced(text, undone) if undone else text


def _replaced(text: str, undone: Mapping[tuple[int, int], str]) -> str:
    pieces, done = [], 0
    for (begin, end), word in sorted(undone.items()):
        pieces += [text[done:begin], word]
        done = end
    return "".join([*pieces, text[done:]])


_MIXED: Final = "mixed"


@lru_cache(maxsize=32_768)
def _judged(word: str) -> tuple[str, str]:
    """MIXED and the word undone; or the script that it is of, and what it would be in Latin
    letters; or "" for a word that is none of them."""
    shape = word.translate(_OUTLINE)
    if not _FOREIGN.search(shape):
        return "", word
    if _LATIN in shape and shape.isascii() and not _NOT_SIMPLY.search(shape):
        return _MIXED, word.translate(_TWINS)
    if (verdict := _verdict(shape)) is not _MIXED:
        return verdict, word.translate(_TWINS)
    undone = _mixed_undone(word, shape)
    return (_MIXED, undone) if undone != word else ("", word)


@lru_cache(maxsize=32_768)
def _shape(word: str) -> str:
    return word.translate(_OUTLINE)


@lru_cache(maxsize=8192)
def _verdict(shape: str) -> str:
    """MIXED: several scripts, to be looked at closely; else the one script that it is of."""
    scripts = {_SCRIPT_OF_SYMBOL.get(s, s) for s in shape} - {_NEUTRAL, _OUTSIDE}
    return next(iter(scripts)) if len(scripts) == 1 and scripts.isdisjoint("xX") else _MIXED


def _mixed_undone(word: str, shape: str) -> str:
    """A word of several scripts, or several such between signs (USB-кабель)."""
    if _OUTSIDE not in shape:
        return _mixed_word(word)
    out, begin = [], 0
    for part in re.split(r"(\.+)", shape):
        piece = word[begin : begin + len(part)]
        begin += len(part)
        out.append(_mixed_word(piece) if part and _verdict(part) is _MIXED else piece)
    return "".join(out)


@lru_cache(maxsize=8192)
def _mixed_word(word: str) -> str:
    shape = word.translate(_OUTLINE)
    foreign = {_SCRIPT_OF_SYMBOL[s] for s in shape if s in _SCRIPT_OF_SYMBOL}
    if _LATIN in shape and foreign == {"cjk"}:
        return word  # Chinese and Japanese put no space beside Latin words
    if len(foreign) == 1 and (native := _in_its_script(word, shape, next(iter(foreign)))):
        return native
    for table in (_TWINS, _LOOSE_TWINS) if len(foreign) > 1 else (_TWINS,):
        latin = word.translate(table)
        if not _NOT_LATIN.search(latin.translate(_OUTLINE)):
            return latin
    return word


def _in_its_script(word: str, shape: str, script: str) -> str:
    """A Russian or Greek word with Latin letters among its own, which outnumber them and of which
    one has no twin; "" where it is none."""
    native = _NATIVE.get(script)
    letters = shape.replace(_NEUTRAL, "")
    own = letters.replace(_LATIN, "")
    if native is None or 2 * len(own) <= len(letters) or not _unlike(own)[0]:
        return ""
    turned = word.translate(native)
    return "" if _LATIN in turned.translate(_OUTLINE) else turned


@lru_cache(maxsize=8192)
def loosely_undone(word: str) -> str:
    """A word that mixes scripts, or letters with signs, by every likeness that "fancy text" uses;
    any other word is returned as it is."""
    shape = word.translate(_OUTLINE)
    scripts = {_SCRIPT_OF_SYMBOL.get(s, s) for s in shape} - {_NEUTRAL, _OUTSIDE}
    if len(scripts) < 2 or scripts == {_LATIN, "cjk"}:
        return word
    latin = word.translate(_LOOSE_TWINS)
    left = len(_NOT_LATIN.findall(latin.translate(_OUTLINE)))
    return latin if left * _LEFT_SHARE <= (len(word) if _LATIN in scripts else 0) else word
