"""Blindness of a sentence encoder: texts that it cannot tell from others, measured at load.

A tokenizer that knows no word of a script gives the same unknown token for each, and all texts of
that script get nearly the same vector. Other scripts it spells letter by letter, and unrelated
texts still lie near each other. One ban in such a script would hit every text of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from simsearch.encode.text.script_samples import SAMPLES
from simsearch.encode.text.scripts import scripts_of
from simsearch.types import Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNKNOWN_SHARE_MAX: Final = 0.2
"""Of the tokens of a text."""

NEARNESS_MAX: Final = 0.4
"""How far the mean cosine of unrelated sentences of one script may lie on the way from that of the
script that the encoder tells apart best (0) to equality (1). all-MiniLM-L6-v2 was measured at 0
for Latin and at 0.50 to 1 for 27 other scripts: docs/languages.md."""

BLIND_SHARE_MAX: Final = 0.5
"""Of the letters of a text, those in scripts that the encoder is blind to."""


class Blindness:
    """Thread-safe."""

    def __init__(
        self, name: str, tokenizer: Tokenizer, encode: Callable[[Sequence[str]], Vectors]
    ) -> None:
        """`encode` is asked for vectors of the script samples, where the tokenizer knows them."""
        self._name = name
        self._tokenizer = tokenizer
        self._unknown = _unknown_id(tokenizer)
        unknown = {s for s, texts in SAMPLES.items() if self._is_unknown(texts)}
        nearness = nearness_of({s: t for s, t in SAMPLES.items() if s not in unknown}, encode)
        self.scripts = frozenset(unknown | {s for s, n in nearness.items() if n > NEARNESS_MAX})
        """Those that it cannot tell apart."""

    def reasons(self, texts: Sequence[str]) -> list[str]:
        """For each normalised text, why its vector would say nothing about it; else empty."""
        return [self._reason(text) for text in texts]

    def _reason(self, text: str) -> str:
        if text.isascii():  # spelt out by every tokenizer, if need be
            return ""
        blind = {s: share for s, share in scripts_of(text).items() if s in self.scripts}
        if sum(blind.values()) > BLIND_SHARE_MAX:
            return f"{self._name} cannot tell texts in {next(iter(blind))} letters apart"
        unknown = self._unknown_share(text)
        if unknown > UNKNOWN_SHARE_MAX:
            return f"{self._name} has no tokens for {unknown:.0%} of the text"
        return ""

    def _is_unknown(self, texts: Sequence[str]) -> bool:
        return sum(map(self._unknown_share, texts)) / len(texts) > UNKNOWN_SHARE_MAX

    def _unknown_share(self, text: str) -> float:
        if self._unknown is None:
            return 0.0
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids.count(self._unknown) / len(ids) if ids else 1.0


def nearness_of(
    samples: Mapping[str, Sequence[str]], encode: Callable[[Sequence[str]], Vectors]
) -> Mapping[str, float]:
    """How near unrelated sentences lie, by script: 0 where they lie farthest apart, 1 where they
    are one."""
    rows = iter(encode([text for texts in samples.values() for text in texts]))
    means = {s: _mean_cosine(np.stack([next(rows) for _ in texts])) for s, texts in samples.items()}
    least = min(means.values(), default=0.0)
    return {script: (mean - least) / max(1 - least, 1e-6) for script, mean in means.items()}


def _mean_cosine(rows: Vectors) -> float:
    """Of all pairs."""
    return float((rows @ rows.T)[np.triu_indices(len(rows), 1)].mean())


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """None where every text can be spelt, as by bytes."""
    for token in ("[UNK]", "<unk>"):
        if (found := tokenizer.token_to_id(token)) is not None:
            return int(found)
    return None
