"""Recall of an index against exact search, measured on copies of its own rows before it serves.

Queries are stored rows moved a little, so that each has true neighbours near the thresholds that
banks use; the truth is the exact index over all rows, chunk by chunk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from simsearch.index.flat.cosine import ExactIndex
from simsearch.index.index_protocol import ROWS_MAX, CosineView
from simsearch.types import Vectors

FLOORS = (0.90, 0.95)
QUERIES = 512
COPIES = 8_192
COPIES_OF_CURVE = 1_024
"""For a point of the report's curve, which decides nothing."""
MOVED_TO = (0.90, 1.0)
"""Cosines between which the queries lie from the rows they were made of."""
ROWS_AT_ONCE = 65_536

Pairs: TypeAlias = set[tuple[int, int]]
"""(query, row)."""


@dataclass(frozen=True)
class ExactResults:
    """Queries with every pair that exact search finds at each floor, and copies of rows."""

    queries: Vectors
    pairs: Mapping[float, Pairs]
    crowded: NDArray[np.bool_]
    """(queries,): those with more near rows than a search returns; they are left out."""
    copies: Vectors
    copied: NDArray[np.int64]
    """Exact copies of rows, and which."""

    def thinned(self, copies: int) -> ExactResults:
        """With about so many copies: searching for them is most of the cost of a measurement."""
        every = max(1, len(self.copied) // copies)
        return dataclasses.replace(self, copies=self.copies[::every], copied=self.copied[::every])


@dataclass(frozen=True)
class Recall:
    """Share of true pairs found by floor, and pairs found that are not true."""

    by_floor: Mapping[float, float]
    itself: float
    """Share of sampled rows that an exact copy finds. An average over near copies would hide the
    few rows with bad codes."""
    false_hits: int

    @property
    def worst(self) -> float:
        """The lowest of all shares."""
        return min(*self.by_floor.values(), self.itself)


def exact_results(
    rows: NDArray[np.float16], seed: int = 0, progress: Callable[[int], None] = lambda _: None
) -> ExactResults:
    """Exact search over all rows, (n, dim), in bounded memory; `progress` gets numbers of rows."""
    queries = moved_copies(rows, seed)
    found: dict[float, Pairs] = {floor: set() for floor in FLOORS}
    near_count = np.zeros(len(queries), np.int64)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        chunk = np.asarray(rows[start : start + ROWS_AT_ONCE], np.float32)
        index = ExactIndex(chunk.shape[1], rows_max=ROWS_MAX)
        index.append(chunk, np.arange(len(chunk)), np.zeros(len(chunk), np.int64))
        matches = index.freeze(0).search(queries, {0: min(FLOORS)})
        near_count += np.bincount(matches.query, minlength=len(queries)) + matches.truncated
        judging = near_count[matches.query] <= ROWS_MAX
        for floor, pairs in found.items():
            near = judging & (matches.cosine >= floor)
            rows_near = matches.key[near] + start
            pairs |= set(zip(matches.query[near].tolist(), rows_near.tolist(), strict=True))
        progress(len(chunk))
    crowded = near_count > ROWS_MAX
    found = {floor: {p for p in pairs if not crowded[p[0]]} for floor, pairs in found.items()}
    rng = np.random.default_rng(seed + 1)
    copied = np.sort(rng.choice(len(rows), min(COPIES, len(rows)), replace=False))
    return ExactResults(queries, found, crowded, np.asarray(rows[copied], np.float32), copied)


def measure_recall(view: CosineView, groups: NDArray[np.integer], truth: ExactResults) -> Recall:
    """Recall of `view`, whose keys are the row numbers of `truth`; no row may be retired.
    `groups` are those of the rows, (n,)."""
    asked = {int(group): min(FLOORS) for group in np.unique(groups)}
    matches = view.search(truth.queries, asked)
    by_floor, false_hits = {}, 0
    for floor, pairs in truth.pairs.items():
        near = (matches.cosine >= floor) & ~truth.crowded[matches.query]
        found = set(zip(matches.query[near].tolist(), matches.key[near].tolist(), strict=True))
        by_floor[floor] = len(found & pairs) / len(pairs) if pairs else 1.0
        false_hits += len(found - pairs)
    return Recall(by_floor, _found_by_themselves(view, asked, truth), false_hits)


def _found_by_themselves(
    view: CosineView, asked: Mapping[int, float], truth: ExactResults
) -> float:
    matches = view.search(truth.copies, {group: max(FLOORS) for group in asked})
    found = matches.truncated.copy()  # more rows than come out lie as near as itself
    found[matches.query[truth.copied[matches.query] == matches.key]] = True
    return float(found.mean()) if len(found) else 1.0


def moved_copies(rows: NDArray[np.float16], seed: int) -> Vectors:
    """Unit vectors at known cosines from rows picked at random: toward other rows, not noise."""
    rng = np.random.default_rng(seed)
    count = min(QUERIES, len(rows))
    picked = np.sort(rng.choice(len(rows), count, replace=False))
    base = np.asarray(rows[picked], np.float64)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    other = base[rng.permutation(count)] + 0.5 * _unit(rng.standard_normal(base.shape))
    away = other - (other * base).sum(axis=1, keepdims=True) * base
    cosine = rng.uniform(*MOVED_TO, (count, 1))
    return (cosine * base + np.sqrt(1 - cosine**2) * _unit(away)).astype(np.float32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
