"""Exact re-ranking: the one routine that computes a reported cosine, used by every index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simsearch.index.index_protocol import COSINE_DECIMALS
from simsearch.types import Vectors

PAIR_FLOATS_MAX = 1 << 20
"""Numbers gathered at a time on either side: 8 MiB each in float64. Chosen, not measured."""


def exact_cosines(queries: Vectors, rows: Vectors) -> NDArray[np.float64]:
    """The cosine of queries[i] and rows[i], both (m, dim), rounded to 1e-5.

    A pair's result depends on that pair alone. BLAS does not promise this: the tail of a block
    is summed in another order, which has changed the cosine of a vector with itself. So each
    pair is one einsum row over contiguous float64, always summed in the same order.

    Both sides are divided by their length, though they are unit vectors: one rounded to float16
    may be 5e-4 longer or shorter, and a copy must score 1, neither .9995 nor 1.0005.
    """
    # Converted first: einsum(dtype=float64) casts through a buffer whose borders move with i.
    q = np.ascontiguousarray(queries, dtype=np.float64)
    r = np.ascontiguousarray(rows, dtype=np.float64)
    lengths = np.sqrt(_row_dots(q, q) * _row_dots(r, r))
    return np.round(_row_dots(q, r) / lengths, COSINE_DECIMALS)


def exact_pairs(
    queries: Vectors, rows: Vectors, query: NDArray[np.intp], at: NDArray[np.intp]
) -> NDArray[np.float64]:
    """exact_cosines of queries[query[i]] and rows[at[i]], gathered in bounded parts."""
    cosines = np.empty(len(query), np.float64)
    step = max(1, PAIR_FLOATS_MAX // queries.shape[1])
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        cosines[part] = exact_cosines(queries[query[part]], rows[at[part]])
    return cosines


def _row_dots(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    dots: NDArray[np.float64] = np.einsum("ij,ij->i", a, b)
    return dots
