"""Agreement of two spaces: a table of their verdicts on the same contents, with confidence bounds.

Pure functions. `simsearch entry compare-encoders` fills the table from a server's answers,
`simsearch-build compare-encoders` from a bank's own vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from simsearch.types import Band, Evidence, MatchResult

CONFIDENCE = 0.95
_HALVINGS = 60


@dataclass(frozen=True)
class SpaceVerdict:
    """One space's verdict on one content: its strongest band, and the entry and cosine of the
    closest hit."""

    band: Band = Band.NONE
    entry_key: int | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class VerdictPair:
    """Both spaces' verdicts on one content; `name` identifies the content without quoting it."""

    name: str
    old: SpaceVerdict
    new: SpaceVerdict

    @property
    def agrees(self) -> bool:
        """Whether both give the same band."""
        return self.old.band is self.new.band


@dataclass(frozen=True)
class Agreement:
    """Contents by (old band, new band)."""

    table: Mapping[tuple[Band, Band], int]

    @classmethod
    def of(cls, pairs: Iterable[tuple[Band, Band]]) -> Agreement:
        """Counts (old band, new band) pairs."""
        return cls(Counter(pairs))

    @property
    def judged(self) -> int:
        """All contents compared."""
        return sum(self.table.values())

    @property
    def agree(self) -> int:
        """Contents for which both give the same band."""
        return sum(n for (old, new), n in self.table.items() if old is new)

    @property
    def only_old(self) -> int:
        """Contents that the old space hits and the new one does not."""
        return sum(n for (old, new), n in self.table.items() if old and not new)

    @property
    def only_new(self) -> int:
        """Contents that the new space hits and the old one does not."""
        return sum(n for (old, new), n in self.table.items() if new and not old)

    @property
    def other_band(self) -> int:
        """Both hit, in different bands."""
        return self.judged - self.agree - self.only_old - self.only_new

    def interval(self) -> tuple[float, float]:
        """95 % confidence bounds on the share that agrees."""
        return clopper_pearson(self.agree, self.judged)


def space_verdict(result: MatchResult, space: str) -> SpaceVerdict:
    """The verdict of `space` alone; other signals are ignored."""
    found = [(e, hit.entry_key) for hit in result.hits for e in hit.evidence if e.signal == space]
    if not found:
        return SpaceVerdict()
    best, key = max(found, key=lambda pair: (_closeness(pair[0]), -pair[1]))
    return SpaceVerdict(best.band, key, best.cosine)


def _closeness(evidence: Evidence) -> tuple[Band, float]:
    return evidence.band, evidence.cosine or -1.0


def clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """Exact bounds on a share (Clopper and Pearson, Biometrika 26, 1934); (0, 1) without trials.

    The lower bound is the share at which 2.5 % of samples have `successes` or more.
    """
    if trials == 0:
        return 0.0, 1.0
    return _at_least(successes, trials), 1.0 - _at_least(trials - successes, trials)


def _at_least(successes: int, trials: int) -> float:
    """The share p at which P(X >= successes) = (1 - CONFIDENCE) / 2."""
    if successes == 0:
        return 0.0
    steps = np.arange(trials, dtype=np.float64)
    log_ways = np.concatenate(([0.0], np.cumsum(np.log((trials - steps) / (steps + 1)))))
    counts = np.arange(successes, trials + 1, dtype=np.float64)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        logs = counts * np.log(share) + (trials - counts) * np.log1p(-share)
        if np.exp(log_ways[successes:] + logs).sum() < (1 - CONFIDENCE) / 2:
            low = share
        else:
            high = share
    return (low + high) / 2
