"""Figures of the wide sketch at the policy of a new bank: recall of the hardest edits, short texts
inside long ones in eleven languages, and unrelated texts in as many and in 25 scripts.

No encoder is loaded: what is measured is what the texts' letters say by themselves.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.attacks.edits import Filler, typed
from benchmarks.attacks.posts import SHARED, are_rewordings, rows_of
from benchmarks.attacks.scripts import SENTENCES
from simsearch.encode.fingerprint import ContentFingerprint, ContentLimits, Fingerprinter
from simsearch.encode.registry import EncoderSet
from simsearch.encode.text.forms.text_forms import normalised
from simsearch.encode.text.sketch import sketches
from simsearch.index.flat.hamming import HammingIndex
from simsearch.match.policy import default_policy
from simsearch.types import Bits, Signal, TextContent

LANGUAGES: Final = (
    *("arabic", "dutch", "french", "german", "hindi", "italian", "mandarin", "polish"),
    *("portuguese", "spanish"),
)
HATECHECK: Final = "hatecheck_test_suite_cases.csv"
SHORT: Final = (5, 12)
SHORT_MANDARIN: Final = (8, 24)
"""Characters, where there are no words."""

AROUND: Final = 80
AROUND_MANDARIN: Final = 160
BANKED_EACH: Final = 45
"""Of eleven languages; with two sentences of each of 25 scripts and 55 more English ones: 600."""

_VOWELS: Final = frozenset("aeiouAEIOU")
Edit = Callable[[str, random.Random], str]


def _stretched(text: str, rng: random.Random) -> str:
    """Every third letter three to six times."""
    return "".join(
        c * rng.randrange(3, 7) if c.isalpha() and rng.random() < 0.3 else c for c in text
    )


def _first_half(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


EDITS: Final[Mapping[str, Edit]] = {
    "typo_15": lambda text, rng: typed(text, 0.15, rng),
    "vowels_dropped": lambda text, rng: "".join(c for c in text if c not in _VOWELS),
    "vowels_starred": lambda text, rng: "".join("*" if c in _VOWELS else c for c in text),
    "stretched": _stretched,
    "first_half": _first_half,
}


class _Bank:
    """Banned texts by the sketch alone, at the default threshold of REVIEW."""

    def __init__(self, banned: Sequence[str]) -> None:
        rules = {rule.signal: rule for rule in default_policy(()).hamming}
        review = rules[Signal.MINHASH1024].review
        assert review is not None
        self._ceilings = {0: review}
        self._fingerprinter = Fingerprinter(EncoderSet({}), ContentLimits())
        index = HammingIndex(128)
        for key, rows in enumerate(self._of(self._fingerprinter.ban(_contents(banned)))):
            index.append(rows, [key] * len(rows), [0] * len(rows))
        self._view = index.freeze(0)

    def found(self, asked: Sequence[str]) -> list[set[int]]:
        """The numbers of the banned texts that each is taken for."""
        wanted = {(Signal.MINHASH1024, None)}
        return [
            set(self._view.search(rows, self._ceilings).key.tolist()) if len(rows) else set()
            for rows in self._of(self._fingerprinter.query(_contents(asked), wanted))
        ]

    def _of(self, outcomes: Sequence[object]) -> list[Bits]:
        none = sketches([""], windows=False)[0]
        return [
            one.fingerprint.bits.get(Signal.MINHASH1024, none)
            if isinstance(one, ContentFingerprint)
            else none
            for one in outcomes
        ]


def _contents(texts: Sequence[str]) -> list[TextContent]:
    return [TextContent(text) for text in texts]


def sketch_figures(banked: Sequence[str], filler: Filler, seed: int = 0) -> dict[str, object]:
    """Shares in percent, by JSON key; `sketches_us` is the time of one text of 160 characters in
    batches of 64, in microseconds."""
    rng = random.Random(seed)
    bank = _Bank(banked)
    figures: dict[str, object] = {
        name: _recall(bank, [edit(text, rng) for text in banked]) for name, edit in EDITS.items()
    }
    inside = {language: _inside(language, rng) for language in ("english", *LANGUAGES)}
    unrelated = _unrelated(rng)
    return figures | {
        "short_in_long": inside,
        "short_in_long_min": min(inside.values()),
        "unrelated_review": {name: share for name, share in unrelated.items() if share},
        "unrelated_review_max": max(unrelated.values()),
        "sketches_us": _sketches_us(filler),
    }


def _recall(bank: _Bank, copies: Sequence[str]) -> float:
    found = bank.found(copies)
    return round(100 * sum(n in keys for n, keys in enumerate(found)) / len(copies), 1)


def _inside(language: str, rng: random.Random) -> float:
    """Banned texts of 5 to 12 words somewhere among 80 words of others, in percent found."""
    banned, others = _cases(language)
    dense = language == "mandarin"
    low, high = SHORT_MANDARIN if dense else SHORT
    short = [t for t in banned if low <= (len(t) if dense else len(t.split())) <= high]
    rng.shuffle(short)
    short = short[:200]
    copies = []
    for text in short:
        around: Sequence[str] = (
            "".join(rng.choices(others, k=40))[:AROUND_MANDARIN]
            if dense
            else " ".join(rng.choices(others, k=40)).split()[:AROUND]
        )
        at, gap = rng.randrange(len(around) // 8, 7 * len(around) // 8), "" if dense else " "
        copies.append(gap.join([gap.join(around[:at]), text, gap.join(around[at:])]))
    return _recall(_Bank(short), copies)


def _unrelated(rng: random.Random) -> dict[str, float]:
    """By language and script the share in percent of unrelated texts at REVIEW, bank of 600."""
    banned, asked = [], {}
    for language in ("english", *LANGUAGES):
        hateful, others = _cases(language)
        rng.shuffle(hateful)
        banned += hateful[: BANKED_EACH + (55 if language == "english" else 0)]
        asked[language] = others
    for script, sentences in SENTENCES.items():
        banned += sentences[:2]
        asked[script] = list(sentences[2:])
    bank = _Bank(banned)
    shares = {}
    for name, texts in asked.items():
        near = are_rewordings(texts, banned)
        fresh = [text for text, known in zip(texts, near, strict=True) if not known]
        hits = sum(map(bool, bank.found(fresh)))
        shares[name] = round(100 * hits / max(len(fresh), 1), 2)
    return shares


NEUTRAL: Final = ("ident_neutral_nh", "target_obj_nh", "profanity_nh")
"""Functionalities of cases that turn no hateful one round."""


def _cases(language: str, folder: Path = SHARED) -> tuple[list[str], list[str]]:
    """Hateful cases, and others that reword none of them."""
    rows = list(rows_of(folder / (HATECHECK if language == "english" else f"mhc_{language}.csv")))
    hateful = [row["test_case"].strip() for row in rows if row["label_gold"] == "hateful"]
    others = [row["test_case"].strip() for row in rows if row["functionality"] in NEUTRAL]
    return list(dict.fromkeys(hateful)), list(dict.fromkeys(others))


def _sketches_us(filler: Filler) -> float:
    texts = [normalised(" ".join(filler[n:])[:160]) for n in range(64)]
    best = float("inf")
    for _ in range(15):
        begun = time.perf_counter()
        sketches(texts, windows=True)
        best = min(best, time.perf_counter() - begun)
    return round(1e6 * best / len(texts), 1)
