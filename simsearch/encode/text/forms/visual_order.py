"""Visual order: text that is written backwards or upside down, as its readers see it."""

from __future__ import annotations

import re
import unicodedata

# ---------------------------------------------------------------- direction

_RLO, _LRO = "\u202e", "\u202d"
_RLI, _LRI, _FSI, _PDI = "\u2067", "\u2066", "\u2068", "\u2069"
_PDF = "\u202c"
CONTROLS = re.compile(r"[\u202d\u202e\u2067]")
"""Without one of these, letters are seen in the order in which they are written."""

_SIGN = r"\u202a-\u202e\u2066-\u2069\n\r\u2029"
_TOKEN = re.compile(f"[{_SIGN}]|[^{_SIGN}]+")
_OPENING = frozenset("\u202a\u202b\u202d\u202e\u2066\u2067\u2068")
_CLUSTER = re.compile(r".[\u0300-\u036f\u0483-\u0489\u20d0-\u20ff\ufe00-\ufe0f]*", re.DOTALL)
_FRAMES_MAX = 16


class _Frame:
    """What stands between an opening control and its end, in the order of writing: pieces, and
    whether each is an isolate, whose inside nothing outside turns round."""

    def __init__(self, opened_by: str) -> None:
        self.opened_by = opened_by
        self.pieces: list[tuple[str, bool]] = []

    def seen(self) -> str:
        """From left to right, as it is shown; letters of right-to-left scripts stay in the order
        of their readers."""
        if self._is_turned():
            shown = [p if isolate else _reversed(p) for p, isolate in reversed(self.pieces)]
            return "".join(shown)
        return "".join(piece for piece, _ in self.pieces)

    def _is_turned(self) -> bool:
        if self.opened_by == _RLO:
            return not self._is_rtl()
        if self.opened_by == _LRO:
            return self._is_rtl()
        alone = all(isolate or not piece.strip() for piece, isolate in self.pieces)
        return self.opened_by == _RLI and alone and not self._is_rtl()

    def _is_rtl(self) -> bool:
        """Whether the first strong letter is of a right-to-left script."""
        kinds = (unicodedata.bidirectional(char) for piece, _ in self.pieces for char in piece)
        return next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L"


def in_visual_order(text: str) -> str:
    """`text` with overrides (U+202E, U+202D) and isolates (U+2067) carried out and left out.

    Isolates that stand in reverse are put in order; the rest follows the Unicode bidirectional
    algorithm as far as overrides go. 16 levels are carried out, in linear time each.
    """
    frames = [_Frame("")]
    for token in _TOKEN.findall(text):
        if token in ("\n", "\r", "\u2029"):
            _close(frames, 1)
            frames[0].pieces.append((token, False))
        elif token in (_PDF, _PDI):
            _close(frames, max(1, len(frames) - 1))
        elif token in _OPENING:
            if len(frames) <= _FRAMES_MAX:
                frames.append(_Frame(token))
        else:
            frames[-1].pieces.append((token, False))
    _close(frames, 1)
    return frames[0].seen()


def _close(frames: list[_Frame], left: int) -> None:
    """All but the `left` outermost."""
    while len(frames) > left:
        closed = frames.pop()
        frames[-1].pieces.append((closed.seen(), closed.opened_by in (_RLI, _LRI, _FSI)))


def _reversed(piece: str) -> str:
    """Letters with their marks after them."""
    return "".join(reversed(_CLUSTER.findall(piece)))


# ---------------------------------------------------------------- upside down

_TURNED = {
    "ɐ": "a", "ɔ": "c", "ǝ": "e", "ɟ": "f", "ƃ": "g", "ᵷ": "g", "ɥ": "h", "ᴉ": "i", "ı": "i",
    "ɾ": "j", "ſ": "j", "ʞ": "k", "ʃ": "l", "ɯ": "m", "ɹ": "r", "ʇ": "t", "ʌ": "v", "ʍ": "w",
    "ʎ": "y", "ə": "e", "ꞁ": "l", "ɓ": "g", "⅂": "l", "˥": "l", "ᗡ": "d", "∀": "a", "ⅎ": "f",
    "⅁": "g", "ᴚ": "r", "┴": "t", "⅄": "y", "ꓕ": "t", "ꓥ": "v",
}  # fmt: skip
_SYMMETRICAL = dict(zip("bdnpqumwhilosxz", "qpudbnwmhilosxz", strict=True))
_FLIPPED = (
    _TURNED | _SYMMETRICAL | {"˙": ".", "'": ",", ",": "'", "¿": "?", "¡": "!", "‾": "_", "؛": ";"}
)
_FLIP_TABLE = str.maketrans(_FLIPPED)
_TURNED_LETTER = re.compile(f"[{''.join(_TURNED)}]")
_LETTER = re.compile(r"[^\W\d_]")
_UPRIGHT = re.compile(f"[^\\W\\d_{''.join(_TURNED)}{''.join(_SYMMETRICAL)}]")
_TURNED_MIN = 3


def turned_upright(text: str) -> str:
    """`text` with every run of words that is written upside down (and therefore backwards) turned:
    all of its letters are turned ones, or look the same, and a quarter of them are turned."""
    if len(_TURNED_LETTER.findall(text)) < _TURNED_MIN:
        return text
    out: list[str] = []
    run: list[str] = []
    for word in text.split(" "):
        if _UPRIGHT.search(word):
            out += [*_turned_run(run), word]
            run = []
        else:
            run.append(word)
    return " ".join([*out, *_turned_run(run)])


def _turned_run(words: list[str]) -> list[str]:
    run = " ".join(words)
    turned = len(_TURNED_LETTER.findall(run))
    if turned < max(_TURNED_MIN, len(_LETTER.findall(run)) // 4):
        return words
    return run[::-1].translate(_FLIP_TABLE).split(" ")
