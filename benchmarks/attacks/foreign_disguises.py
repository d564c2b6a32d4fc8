"""Foreign disguises: attacks on letters by generators that share no code with the product.

They are those of the packages `pyleetspeak2`, `silverspeak` and `augly`, each at full strength:
every letter that a generator can change is changed.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Disguise: TypeAlias = Callable[[str, int], str]
"""A text and a seed to the text in disguise."""

_LEET_MODES = ("basic", "intermediate", "advanced", "covid_basic", "covid_intermediate")
_AUGLY: Mapping[str, dict[str, Any]] = {
    "replace_similar_chars": {"aug_char_p": 1.0, "aug_word_p": 1.0, "aug_char_max": 1000},
    "replace_similar_unicode_chars": {"aug_char_p": 1.0, "aug_word_p": 1.0, "aug_char_max": 1000},
    "replace_upside_down": {"granularity": "all"},
    "replace_bidirectional": {"granularity": "all"},
    "replace_fun_fonts": {"granularity": "all", "aug_p": 1.0},
    "insert_punctuation_chars": {"granularity": "all"},
    "insert_zero_width_chars": {"granularity": "all"},
    "insert_whitespace_chars": {"granularity": "all"},
    "split_words": {"aug_word_p": 1.0},
    "merge_words": {"aug_word_p": 1.0},
    "change_case": {"granularity": "char", "cadence": 2.0},
}


def foreign_disguises() -> Mapping[str, Disguise]:
    """By name. Raises ImportError where the packages are not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import augly.text
        from pyleetspeak2 import LeetSpeaker
        from silverspeak.homoglyphs import random_attack

    def leet(mode: str) -> Disguise:
        def disguise(text: str, seed: int) -> str:
            speaker = LeetSpeaker(mode=mode, change_prb=1.0, change_frq=1.0, seed=seed)
            return str(speaker.text2leet(text))

        return disguise

    def augly_one(name: str) -> Disguise:
        def disguise(text: str, seed: int) -> str:
            random.seed(seed)
            made = getattr(augly.text, name)(text, **_AUGLY[name])
            return str(made[0] if isinstance(made, list) else made)

        return disguise

    def homoglyphs(text: str, seed: int) -> str:
        return str(random_attack(text, percentage=1.0, random_seed=seed))

    return {
        **{f"leet {mode}": leet(mode) for mode in _LEET_MODES},
        "homoglyphs": homoglyphs,
        **{name: augly_one(name) for name in _AUGLY},
    }
