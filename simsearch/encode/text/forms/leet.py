"""English leetspeak undone (h4t3 to hate): signs that stand for letters, not numbers or prices."""

from __future__ import annotations

import re
from types import MappingProxyType

LEET = MappingProxyType(
    {ord(a): b for a, b in zip("03456789@$!+€£¢|", "oeasgtbgasitelci", strict=True)}
)
"""What stands for a letter inside a word; 1 and 2 depend on their neighbours."""

_SIGNS = re.escape("".join(map(chr, LEET)) + "12")
_LEETISH = re.compile(rf"(?<![a-z])[a-z]*+[{_SIGNS}][a-z{_SIGNS}]*")
_PARTS = re.compile(rf"([{_SIGNS}]*)([a-z](?:.*[a-z])?)([{_SIGNS}]*)")
_PRICE = re.compile(r"(?:us|au|ca|hk|nz|[acrs])?[$€£]\d+[a-z]?")
_UNITS = re.compile(r"st|nd|rd|th|am|pm|s|[kmg]?[bgmw]|[cm]m|hz|hrs?|mins?|x|v|k|d|ft|lbs?|y[or]s?")
_VOWELS = frozenset("aeiou")
_TRAILING = frozenset("013457")
_COMMON_WORDS = (
    "of to in it is so no on as at we me he be do go by or an if us my up the and are not but all "
    "was has his her him she you who why how can get got out one old our its too let say see ass "
    "this that they them then than these those just like will with what when have"
)
_COMMON = frozenset(_COMMON_WORDS.split())
# Where 1 is an l: only y and boil, bold and ill, able and evil ...
_ONE_AS_L = re.compile(
    r"(?<![^aeioubcfgp])1(?=[aeouy])|1(?=[iy])|(?<=[ou])1(?=[dfkv])"
    r"|(?<=l)1(?![aeou])|(?<=[aeiou])1(?=l)|1(?=e?$)"
)


def undo_leet(text: str) -> str:
    """`text` (casefolded) with every sign that stands for a letter as that letter."""
    return _LEETISH.sub(_unleet, text)


def _unleet(chunk: re.Match[str]) -> str:
    """h4t3 and $hit, but neither 2019, $20k, 2nd, mp3 nor covid19: signs inside a word are
    letters; before and after it they are so if they look like it, or if the inside had some."""
    word = chunk[0].rstrip("!+|")
    after = chunk[0][len(word) :]
    parts = _PARTS.fullmatch(word)
    if parts is None or _PRICE.fullmatch(word):
        return chunk[0]
    lead, core, trail = parts.groups()
    if (common := _letters(lead + core + trail)) in _COMMON:
        return common + after
    disguised = not core.isalpha() or _encloses(lead, core, trail)
    head = lead if _leads(lead, core, disguised) else ""
    tail = trail if _trails(core, trail, disguised or bool(head)) else ""
    return lead[len(head) :] + _letters(head + core + tail) + trail[len(tail) :] + after


def _encloses(lead: str, core: str, trail: str) -> bool:
    """4r53 is arse; 4x4 and 6ft2 are what they are."""
    return len(lead) == 1 and bool(trail) and not _UNITS.fullmatch(core)


def _leads(lead: str, core: str, disguised: bool) -> bool:
    if lead == "@":  # a mention, mostly
        return disguised or len(core) <= 3 or _VOWELS.isdisjoint(core[:2])
    if len(lead) != 1:
        return "@" in lead or "$" in lead or (disguised and len(lead) == 2)
    return lead != "2" and (disguised or (len(core) >= 2 and not _UNITS.fullmatch(core)))


def _trails(core: str, trail: str, disguised: bool) -> bool:
    if disguised or not trail.isdigit():
        return len(trail) <= 3
    if trail == "11":  # ki11, not win11
        return len(core) <= 3 and core[-1] in _VOWELS
    return trail in _TRAILING and len(core) >= 3 and not _VOWELS.isdisjoint(core)


def _letters(word: str) -> str:
    """1 is an l or an i, as its neighbours have it; 2 is a z, but not in b2b."""
    word = word.translate(LEET)
    if len(word) > 3:
        word = word.replace("2", "z")
    return _ONE_AS_L.sub("l", word.replace("11", "ll")).replace("1", "i")
