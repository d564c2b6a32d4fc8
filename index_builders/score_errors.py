"""How far the scores of an index lie from the truth, pair by pair: what its gate was set by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsearch.index import ivf_build, trained
from simsearch.index.codec import BIAS_COSINE, GATE_SDS, Codec
from simsearch.index.rescore import exact_cosines
from simsearch.types import Vectors

PAIRS = 4096
COSINES = (0.85, 0.95)
CANDIDATES = 64
NPROBE = 64
BINS = 60


@dataclass(frozen=True)
class Histogram:
    """`counts[i]` values lie between `edges[i]` and `edges[i + 1]`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def score_errors(
    empty: Any, rows: NDArray[np.float16], codec: Codec, seed: int = 0
) -> NDArray[np.float64]:
    """Score less expected score of near pairs, (n,): a row, and a query turned away from it.

    `empty` is the trained index without rows; some `rows` (n, dim) are filled into a copy of it.
    Below `-GATE_SDS * codec.sd` lies what a search at the pair's own cosine would not look at.
    """
    rng = np.random.default_rng(seed)
    some = np.sort(rng.choice(len(rows), min(PAIRS, len(rows)), replace=False))
    near = np.asarray(rows[some], np.float32)
    towards = near[rng.permutation(len(near))]
    queries = ivf_build.turned(near, towards, rng.uniform(*COSINES, len(near)))
    index = trained.copy_of(empty)
    ivf_build.fill(index, near, np.arange(len(near)))
    scores = _own_scores(index, queries)
    seen = np.isfinite(scores)
    cosines = exact_cosines(queries[seen], near[seen])
    errors: NDArray[np.float64] = scores[seen] - cosines * (1 + codec.bias / BIAS_COSINE)
    return errors


def _own_scores(index: Any, queries: Vectors) -> NDArray[np.float64]:
    """What query i scores row i; NaN where a search does not come upon it."""
    index.nprobe = min(NPROBE, index.nlist)
    scores, found = index.search(queries, CANDIDATES)
    own = found == np.arange(len(queries))[:, np.newaxis]
    return np.where(own.any(1), np.where(own, scores, -np.inf).max(1), np.nan).astype(np.float64)


def histogram(errors: NDArray[np.float64], codec: Codec) -> Histogram:
    """Over all errors, and the gate's margin at least."""
    reach = max(float(np.abs(errors).max(initial=0.0)), 1.2 * GATE_SDS * codec.sd, 1e-6)
    counts, edges = np.histogram(errors, bins=BINS, range=(-reach, reach))
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))
