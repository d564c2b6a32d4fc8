"""Ranking of matches: thresholds per group, pairs of query and row, and a bounded top-k collector.

Cosine and Hamming distance are both expressed as a *gap*, of which lower is closer: the distance
in bits, or minus the cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from simsearch.index.index_protocol import CosineMatches

NEVER = -np.inf
"""The limit of a group that is not searched: no gap is as small."""


class Limits:
    """The largest gap that is a match, by group."""

    def __init__(self, gaps: Mapping[int, float]) -> None:
        self._gaps = dict(gaps)
        self._widest: dict[tuple[int, ...], float] = {}

    def of(self, groups: Sequence[int]) -> list[float]:
        """The limit of each group; NEVER where it is not searched."""
        return [self._gaps.get(group, NEVER) for group in groups]

    def widest(self, groups: tuple[int, ...]) -> float:
        """The largest limit of `groups`; NEVER where none is searched. Cached, as most blocks of a
        view have the same groups."""
        widest = self._widest.get(groups)
        if widest is None:
            widest = self._widest[groups] = max(self.of(groups), default=NEVER)
        return widest


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a row; all arrays have one element per pair."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    key: NDArray[np.int64]
    group: NDArray[np.int64]
    gap: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, at: NDArray[np.intp] | NDArray[np.bool_]) -> Pairs:
        return Pairs(*(getattr(self, field.name)[at] for field in fields(self)))

    def ordered(self) -> Pairs:
        """By query, then closest, then key, then row."""
        return self[np.lexsort((self.row, self.key, self.gap, self.query))]

    def numbered_from(self, query: int) -> Pairs:
        """With `query` added to every number of a query."""
        return replace(self, query=self.query + query)

    @staticmethod
    def joined(parts: Sequence[Pairs]) -> Pairs:
        """All parts, one after the other."""
        if not parts:
            return NO_PAIRS
        columns = (
            np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Pairs)
        )
        return Pairs(*columns)


_NONE = np.empty(0, np.int64)
NO_PAIRS = Pairs(_NONE, _NONE, _NONE, _NONE, np.empty(0, np.float64))


class Closest:
    """Top-k collector: the closest `rows_max` matches of each query, in bounded memory."""

    def __init__(self, queries: int, rows_max: int, slack: float) -> None:
        """`slack`: how far a proposed gap may lie from the exact one."""
        self._rows_max = rows_max
        self._slack = slack
        self._kept: list[Pairs] = []
        self._pending = 0
        self._pending_max = 2 * queries * rows_max
        self._cut = np.full(queries, np.inf)
        self.truncated = np.zeros(queries, np.bool_)

    def worth_scoring(
        self, query: NDArray[np.intp], gap: NDArray[np.float64], sure: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which candidate pairs may still be among the closest. `sure`: the pair matches, whatever
        the slack.

        A pair that is further away than rows_max sure matches is not scored exactly. So a
        threshold that every row passes costs about rows_max exact scores a query, not one per row.
        """
        self._tighten(query[sure], gap[sure])
        worth: NDArray[np.bool_] = gap <= self._cut[query] + self._slack
        return worth

    def _tighten(self, query: NDArray[np.intp], gap: NDArray[np.float64]) -> None:
        matches = np.bincount(query, minlength=len(self._cut))
        for q in np.flatnonzero(matches > self._rows_max):
            last_kept = np.partition(gap[query == q], self._rows_max - 1)[self._rows_max - 1]
            self._cut[q] = min(self._cut[q], last_kept + self._slack)
            self.truncated[q] = True

    def add(self, matches: Pairs) -> None:
        """Add matches, in any order."""
        self._kept.append(matches)
        self._pending += len(matches)
        if self._pending > self._pending_max:
            self._trim()

    def ranked(self) -> Pairs:
        """The closest matches in order; sets `truncated` where a query had more."""
        if not self._kept:
            return NO_PAIRS
        self._trim()
        return self._kept[0]

    def _trim(self) -> None:
        pairs = Pairs.joined(self._kept).ordered()
        first_of_query = np.searchsorted(pairs.query, np.arange(len(self.truncated)))
        rank = np.arange(len(pairs)) - first_of_query[pairs.query]
        self.truncated[pairs.query[rank >= self._rows_max]] = True
        self._kept = [pairs[rank < self._rows_max]]
        self._pending = len(self._kept[0])


def cosine_matches(pairs: Pairs, truncated: NDArray[np.bool_]) -> CosineMatches:
    """`pairs` whose gap is minus their cosine, as the answer of a search."""
    # 0.0 - gap and not -gap, which would answer -0.0 for vectors at right angles
    cosine = 0.0 - pairs.gap
    return CosineMatches(pairs.query, pairs.row, pairs.key, pairs.group, cosine, truncated)
