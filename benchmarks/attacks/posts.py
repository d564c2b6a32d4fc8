"""The texts of one run: banked, asked as negatives, filler; and what may be a negative at all.

Banked are hateful cases of HateCheck and tweets of class 0 of Davidson et al., half and half.
Negatives are other tweets and cases of HateCheck that are not hateful. HateCheck is made from
templates, many of them pairs of opposites, and tweets quote each other; a text that rewords or
quotes a banked one is no negative, since to find it is not wrong. So left out are

- cases whose template, or the template that theirs turns round, has a banked case, and all but one
  case of each template: these *minimal pairs* are counted apart;
- every text that has five words in a row in common with a banked one, or half of all their words.

Both rules go by words as they were written, without case, signs, mentions and links; neither looks
at a signal that is measured here.
"""

from __future__ import annotations

import csv
import html
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from simsearch.encode.text.forms.text_forms import normalised
from simsearch.errors import BadConfig

SHARED: Final = Path(__file__).parents[3] / "shared" / "data" / "text"
CASES: Final = "hatecheck_test_suite_cases.csv"
TWEETS: Final = "davidson_labeled_data.csv"

HATE, OFFENSIVE, NEITHER = "0", "1", "2"
FILLERS: Final = 300
OFFENSIVE_MAX: Final = 4_000

RUN_WORDS: Final = 5
SHARE_OF_WORDS: Final = 0.5
WORDS_MIN: Final = 3
"""A banked text or negative of fewer words says nothing by itself."""

_AROUND = re.compile(r"https?://\S+|@\w+|\bRT\b|&\w+;|#")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_COMPARED_AT_ONCE = 1024


@dataclass(frozen=True)
class Case:
    """One of HateCheck. `templates`: its own and the one that it turns round."""

    text: str = field(repr=False)
    is_hateful: bool
    templates: frozenset[str]
    template: str


@dataclass(frozen=True)
class Posts:
    """`left_out` counts what rewords or quotes a banked text, by why."""

    banked: list[str] = field(repr=False)
    negatives: list[str] = field(repr=False)
    minimal_pairs: list[str] = field(repr=False)
    filler: list[str] = field(repr=False)
    left_out: dict[str, int]


def posts(bank: int, negatives: int | None, seed: int, folder: Path = SHARED) -> Posts:
    """Shuffled by `seed`; as many negatives as there are where None. Raises BadConfig where the
    shared texts are not there or too few."""
    cases, tweets = _cases(folder / CASES), _tweets(folder / TWEETS)
    rng = random.Random(seed)
    rng.shuffle(cases)
    for kind in tweets.values():
        rng.shuffle(kind)
    hateful = [case for case in cases if case.is_hateful]
    half = bank // 2
    hate = _distinct(tweets[HATE], ())
    if len(hateful) < half or len(hate) < bank - half:
        raise BadConfig(f"there are too few texts for a bank of {bank}: give a smaller --bank")
    banked_cases = hateful[:half]
    banked = [case.text for case in banked_cases] + hate[: bank - half]
    apart, pairs = _apart(cases, banked_cases)
    others = tweets[NEITHER][FILLERS:] + tweets[OFFENSIVE][:OFFENSIVE_MAX] + apart
    fresh = _distinct(others, banked)
    kept = [
        text for text, near in zip(fresh, are_rewordings(fresh, banked), strict=True) if not near
    ]
    rng.shuffle(kept)
    return Posts(
        banked,
        kept[:negatives],
        _distinct(pairs, banked),
        tweets[NEITHER][:FILLERS],
        {"template": len(pairs), "words": len(fresh) - len(kept)},
    )


def _apart(cases: Sequence[Case], banked: Sequence[Case]) -> tuple[list[str], list[str]]:
    """The cases that are not hateful: one of each template that no banked one is made from or
    turns round; and those of the others."""
    taken = frozenset(template for case in banked for template in case.templates)
    apart: dict[str, str] = {}
    pairs = []
    for case in cases:
        if case.is_hateful:
            continue
        if case.templates & taken:
            pairs.append(case.text)
        else:
            apart.setdefault(case.template, case.text)
    return list(apart.values()), pairs


def _distinct(texts: Iterable[str], banked: Iterable[str]) -> list[str]:
    """Each once, by its normal form, and none that is banked."""
    seen = {normalised(text) for text in banked} | {""}
    kept = []
    for text in texts:
        normal = normalised(text)
        if normal not in seen:
            seen.add(normal)
            kept.append(text)
    return kept


# ---------------------------------------------------------------- rewordings


def are_rewordings(texts: Sequence[str], banked: Sequence[str]) -> list[bool]:
    """Which of `texts` share a run of five words with a banked text, or at least half of the words
    that either has."""
    runs = {run for text in banked for run in _runs(words_of(text))}
    quotes = [not runs.isdisjoint(_runs(words_of(text))) for text in texts]
    return [q or s for q, s in zip(quotes, _share_words(texts, banked), strict=True)]


def words_of(text: str) -> list[str]:
    return _WORD.findall(_AROUND.sub(" ", html.unescape(text)).casefold())


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + RUN_WORDS]) for at in range(len(words) - RUN_WORDS + 1)}


def _share_words(texts: Sequence[str], banked: Sequence[str]) -> list[bool]:
    """Jaccard similarity of the sets of words at or above SHARE_OF_WORDS."""
    number: dict[str, int] = {}
    for text in banked:
        for word in words_of(text):
            number.setdefault(word, len(number))
    bank = np.zeros((len(banked), len(number)), np.float32)
    for row, text in zip(bank, banked, strict=True):
        row[[number[word] for word in words_of(text)]] = 1
    in_bank = bank.sum(axis=1)
    shares: list[bool] = []
    for start in range(0, len(texts), _COMPARED_AT_ONCE):
        sets = [set(words_of(text)) for text in texts[start : start + _COMPARED_AT_ONCE]]
        asked = np.zeros((len(sets), len(number)), np.float32)
        for row, words in zip(asked, sets, strict=True):
            row[[number[word] for word in words if word in number]] = 1
        both = asked @ bank.T
        either = np.array([[len(words)] for words in sets]) + in_bank - both
        shares += (both >= SHARE_OF_WORDS * np.maximum(either, 1)).any(axis=1).tolist()
    return shares


# ---------------------------------------------------------------- reading


def _cases(path: Path) -> list[Case]:
    return [
        Case(
            row["test_case"].strip(),
            row["label_gold"] == "hateful",
            frozenset(t for t in (row["templ_id"], _whole(row["ref_templ_id"])) if t),
            row["templ_id"],
        )
        for row in rows_of(path)
        if len(words_of(row["test_case"])) >= WORDS_MIN
    ]


def _whole(number: str) -> str:
    """ "12.0" is template 12."""
    return number.removesuffix(".0")


def _tweets(path: Path) -> dict[str, list[str]]:
    """By class."""
    tweets: dict[str, list[str]] = {HATE: [], OFFENSIVE: [], NEITHER: []}
    for row in rows_of(path):
        if len(words_of(row["tweet"])) >= WORDS_MIN:
            tweets[row["class"]].append(html.unescape(row["tweet"]).strip())
    return tweets


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table of the shared texts. Raises BadConfig where it is not there."""
    if not path.is_file():
        raise BadConfig(f"the shared texts are not there: put them at {path}")
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
