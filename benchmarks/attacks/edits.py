"""The suite of edits on texts: what people do so that a text reads the same and compares unlike."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeAlias

CHARACTER, WORD, CONTEXT, CHAIN = "character", "word", "context", "chain"
KINDS: Final = (CHARACTER, WORD, CONTEXT, CHAIN)

Edit: TypeAlias = Callable[[str, random.Random], str]

TRIES_MAX: Final = 16

Filler: TypeAlias = Sequence[str]
"""Other people's words, of texts that are neither banked nor asked as negatives."""

_ROWS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LEET: Final = {
    **{"a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!", "l": "1", "o": "0", "s": "5$"},
    **{"t": "7", "z": "2"},
}
_TWINS: Final = {
    **{"a": "аα", "c": "с", "e": "е", "h": "һ", "i": "іι", "j": "ј", "k": "к", "m": "м"},
    **{"n": "ո", "o": "оο", "p": "рρ", "s": "ѕ", "t": "т", "u": "υ", "v": "ν", "x": "х", "y": "у"},
    **{"A": "АΑ", "B": "ВΒ", "C": "С", "E": "ЕΕ", "H": "НΗ", "I": "ІΙ", "K": "КΚ", "M": "МΜ"},
    **{"N": "Ν", "O": "ОΟ", "P": "РΡ", "S": "Ѕ", "T": "ТΤ", "X": "ХΧ", "Y": "УΥ"},
}
_MARKS: Final = "\u0300\u0301\u0302\u0303\u0307\u0308\u030a\u0323\u0331\u0336"
_HIDDEN: Final = "\u200b\u200c\u200d\u2060\u00ad\ufeff"
_SIGNS: Final = ".,-_*~'"
_FACES: Final = "😀😂🤣😡🔥💀🙏👍🎉🐍💩👀"


def _neighbour(letter: str, rng: random.Random) -> str:
    """A letter beside it on the keyboard."""
    row = next((row for row in _ROWS if letter.lower() in row), "")
    at = row.find(letter.lower())
    beside = row[max(at - 1, 0) : at] + row[at + 1 : at + 2]
    return rng.choice(beside) if beside else letter


def typed(text: str, share: float, rng: random.Random) -> str:
    """`share` of the letters mistyped: a neighbour instead, doubled, left out, or swapped with the
    next."""
    letters, typed, at = list(text), [], 0
    while at < len(letters):
        char = letters[at]
        if not char.isalpha() or rng.random() >= share:
            typed.append(char)
        else:
            kind = rng.randrange(4)
            if kind == 0:
                typed.append(_neighbour(char, rng))
            elif kind == 1:
                typed += [char, char]
            elif kind == 2 and at + 1 < len(letters):
                typed += [letters[at + 1], char]
                at += 1
        at += 1
    return "".join(typed)


def typo_3(text: str, rng: random.Random) -> str:
    return typed(text, 0.03, rng)


def typo_6(text: str, rng: random.Random) -> str:
    return typed(text, 0.06, rng)


def typo_10(text: str, rng: random.Random) -> str:
    return typed(text, 0.10, rng)


def _replaced(text: str, table: dict[str, str], share: float, rng: random.Random) -> str:
    """`share` of those letters that the table has."""
    return "".join(
        rng.choice(table[char]) if char in table and rng.random() < share else char for char in text
    )


def leet_25(text: str, rng: random.Random) -> str:
    return _replaced(text, _LEET, 0.25, rng)


def leet_50(text: str, rng: random.Random) -> str:
    return _replaced(text, _LEET, 0.50, rng)


def homoglyphs(text: str, rng: random.Random) -> str:
    """Half of the letters that have a twin in another script."""
    return _replaced(text, _TWINS, 0.5, rng)


def zero_width(text: str, rng: random.Random) -> str:
    """Something invisible after every third character."""
    return "".join(c + (rng.choice(_HIDDEN) if rng.random() < 0.33 else "") for c in text)


def spaced(text: str, rng: random.Random) -> str:
    """A space between all letters, three between words."""
    return "   ".join(" ".join(word) for word in text.split())


def dotted(text: str, rng: random.Random) -> str:
    """Every third word with a sign between all its letters."""
    return " ".join(
        rng.choice(".-_*").join(word) if rng.random() < 0.33 else word for word in text.split()
    )


def cases(text: str, rng: random.Random) -> str:
    return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in text)


def punctuation(text: str, rng: random.Random) -> str:
    """A sign inside every fourth longer word, and after every fourth."""
    words = []
    for word in text.split():
        if len(word) > 3 and rng.random() < 0.25:
            at = rng.randrange(1, len(word))
            word = word[:at] + rng.choice(_SIGNS) + word[at:]
        words.append(word + (rng.choice(_SIGNS) if rng.random() < 0.25 else ""))
    return " ".join(words)


def starred(text: str, rng: random.Random) -> str:
    """One inner letter of every third longer word hidden behind a star."""
    words = []
    for word in text.split():
        if len(word) > 3 and word.isalpha() and rng.random() < 0.33:
            at = rng.randrange(1, len(word) - 1)
            word = word[:at] + "*" + word[at + 1 :]
        words.append(word)
    return " ".join(words)


def drawn_out(text: str, rng: random.Random) -> str:
    """Every eighth letter three to six times."""
    return "".join(
        c * rng.randrange(3, 7) if c.isalpha() and rng.random() < 0.125 else c for c in text
    )


def diacritics(text: str, rng: random.Random) -> str:
    """Accents and dots on two letters in five."""
    return "".join(
        c + rng.choice(_MARKS) if c.isalpha() and rng.random() < 0.4 else c for c in text
    )


def full_width(text: str, rng: random.Random) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def joined(text: str, rng: random.Random) -> str:
    """No spaces at all."""
    return "".join(text.split())


def emoji(text: str, rng: random.Random) -> str:
    """A face after every third word."""
    return " ".join(
        word + (" " + rng.choice(_FACES) if rng.random() < 0.33 else "") for word in text.split()
    )


# ---------------------------------------------------------------- words and what is around them


def word_drop(text: str, rng: random.Random) -> str:
    """One word in eight, at least one, never all."""
    words = text.split()
    gone = set(rng.sample(range(len(words)), min(max(len(words) // 8, 1), len(words) - 1)))
    return " ".join(word for at, word in enumerate(words) if at not in gone)


def word_swap(text: str, rng: random.Random) -> str:
    """Neighbours change places: one pair in six words, at least one."""
    words = text.split()
    for _ in range(max(len(words) // 6, 1) if len(words) > 1 else 0):
        at = rng.randrange(len(words) - 1)
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def _some(filler: Filler, count: int, rng: random.Random) -> str:
    """`count` words in a row as others wrote them."""
    words: list[str] = []
    while filler and len(words) < count:
        words += rng.choice(filler).split()
    return " ".join(words[:count])


def prefix_suffix(text: str, rng: random.Random, filler: Filler) -> str:
    """Four words before and four after."""
    return f"{_some(filler, 4, rng)} {text} {_some(filler, 4, rng)}"


def embedded(text: str, rng: random.Random, filler: Filler) -> str:
    """Somewhere among 80 words of others."""
    before = rng.randrange(10, 71)
    return f"{_some(filler, before, rng)} {text} {_some(filler, 80 - before, rng)}"


# ---------------------------------------------------------------- chains


def leet_typo(text: str, rng: random.Random) -> str:
    return leet_25(typo_3(text, rng), rng)


def hidden(text: str, rng: random.Random) -> str:
    """Twins, invisible characters and any case."""
    return zero_width(homoglyphs(cases(text, rng), rng), rng)


def shouted(text: str, rng: random.Random) -> str:
    """Drawn out, with faces and signs."""
    return emoji(punctuation(drawn_out(text.upper(), rng), rng), rng)


def requoted(text: str, rng: random.Random, filler: Filler) -> str:
    """Mistyped, a word short, between other words."""
    return prefix_suffix(word_drop(typo_3(text, rng), rng), rng, filler)


@dataclass(frozen=True)
class TextAttack:
    name: str
    kind: str
    make: Callable[[str, random.Random, Filler], str]

    def text(self, text: str, number: int, *, seed: int, filler: Filler) -> str:
        """The same for the same seed; `number` tells the texts of one run apart. Where chance
        leaves a text as it is, chance is asked again: a copy without an edit is no disguise."""
        rng = random.Random(sha256(f"{self.name} {number} {seed}".encode()).digest())
        edited = text
        for _ in range(TRIES_MAX):
            edited = self.make(text, rng, filler)
            if edited != text:
                break
        return edited


def _alone(kind: str, edits: Sequence[Edit]) -> list[TextAttack]:
    def attack(edit: Edit) -> TextAttack:
        return TextAttack(edit.__name__, kind, lambda text, rng, _: edit(text, rng))

    return [attack(edit) for edit in edits]


_LETTERS: Final = (
    *(typo_3, typo_6, typo_10, leet_25, leet_50, homoglyphs, zero_width, spaced, dotted, cases),
    *(punctuation, starred, drawn_out, diacritics, full_width, joined, emoji),
)

TEXT_ATTACKS: Final = (
    *_alone(CHARACTER, _LETTERS),
    *_alone(WORD, [word_drop, word_swap]),
    TextAttack("prefix_suffix", CONTEXT, prefix_suffix),
    TextAttack("embedded", CONTEXT, embedded),
    *_alone(CHAIN, [leet_typo, hidden, shouted]),
    TextAttack("requoted", CHAIN, requoted),
)
