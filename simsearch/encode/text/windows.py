"""Windows of a normal form: pieces short enough to compare; and the bounds of a text."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from simsearch.errors import ContentTooLarge

WINDOW_WORDS: Final = 32
WINDOW_STRIDE_WORDS: Final = 16
WORD_CHARS_MAX: Final = 24
MARKS_MAX: Final = 30
_UNFOLDED_MAX: Final = 18  # characters that one stands for, at most

UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Scripts written without spaces, where two characters count as a word."""

_UNIT = re.compile(rf"[{UNSPACED}]{{1,2}}|[^\s{UNSPACED}]{{1,{WORD_CHARS_MAX}}}")


@dataclass(frozen=True)
class TextLimits:
    """`chars_max` bounds the text as it came and unfolded (one character can stand for 18)."""

    chars_max: int = 20_000

    def check(self, text: str) -> None:
        """Raises ContentTooLarge, also of a text that would be too long unfolded."""
        self._check_length(text)
        if len(text) * _UNFOLDED_MAX > self.chars_max and not text.isascii():
            self._check_length(unicodedata.normalize("NFKC", bounded_marks(text)))

    def _check_length(self, text: str) -> None:
        if len(text) > self.chars_max:
            raise ContentTooLarge(
                f"the text has {len(text)} characters, {self.chars_max} at most: "
                "send it in parts, or raise chars_max"
            )


def windows_of(normal: str) -> list[str]:
    """Slices of at most WINDOW_WORDS units of a normalised text, each begun WINDOW_STRIDE_WORDS
    after the one before it (the last ends with the text), so that every passage of
    WINDOW_STRIDE_WORDS units lies whole within one of them. A unit is a word, a piece of 24
    characters of a longer one, or two characters of a script without spaces."""
    units = [m.span() for m in _UNIT.finditer(normal)]
    if len(units) <= WINDOW_WORDS:
        return [normal]
    last = len(units) - WINDOW_WORDS
    starts = [*range(0, last, WINDOW_STRIDE_WORDS), last]
    return [normal[units[s][0] : units[s + WINDOW_WORDS - 1][1]] for s in starts]


def bounded_marks(text: str) -> str:
    """At most MARKS_MAX combining characters in a row. Unicode orders marks by insertion, in
    quadratic time; no language writes as many (UAX #15, "Stream-Safe Text Format", allows 30)."""
    return _TOO_MANY_MARKS.sub(_first_ones, text) if _NO_SPACE_FOR_LONG.search(text) else text


def _first_ones(marks: re.Match[str]) -> str:
    return marks[0][:MARKS_MAX]


def _combining_class() -> str:
    """All characters of a canonical combining class, as ranges of a regular expression."""
    codes = [code for code in range(0x300, 0x20000) if unicodedata.combining(chr(code))]
    starts = [code for code in codes if not unicodedata.combining(chr(code - 1))]
    ends = [code for code in codes if not unicodedata.combining(chr(code + 1))]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


_NO_SPACE_FOR_LONG = re.compile(f"[^\x00-\u02ff]{{{MARKS_MAX + 1}}}")  # fast, and rare
_TOO_MANY_MARKS = re.compile(f"[{_combining_class()}]{{{MARKS_MAX + 1},}}")
