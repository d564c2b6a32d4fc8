"""The one exact routine: right, and the same for a pair wherever the pair stands."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simsearch.index import rescore
from simsearch.index.rescore import exact_cosines, exact_pairs
from tests.index.oracle import clustered_vectors

DIMS = [1, 2, 3, 4, 7, 8, 15, 16, 33, 64, 255, 256, 384, 385, 512, 768, 1024]


@pytest.mark.parametrize("dim", DIMS)
def test_a_pair_does_not_depend_on_the_pairs_around_it(dim: int) -> None:
    """Alone, permuted, or at any place in a larger batch: equal to the last bit."""
    rng = np.random.default_rng(dim)
    queries, rows = clustered_vectors(rng, 67, dim), clustered_vectors(rng, 67, dim)
    together = rescore._row_dots(queries.astype(np.float64), rows.astype(np.float64))
    order = rng.permutation(67)
    permuted = rescore._row_dots(queries[order].astype(np.float64), rows[order].astype(np.float64))
    assert (permuted == together[order]).all()
    for size in (1, 2, 3, 5, 66):
        for start in (0, 1, 67 - size):
            part = slice(start, start + size)
            alone = rescore._row_dots(
                queries[part].astype(np.float64), rows[part].astype(np.float64)
            )
            assert (alone == together[part]).all()  # before rounding hides a difference
            assert (
                exact_cosines(queries[part], rows[part]) == exact_cosines(queries, rows)[part]
            ).all()


def test_memory_layout_does_not_count() -> None:
    """Columns of a wider array, Fortran order and float16 rows score as plain float32."""
    rng = np.random.default_rng(0)
    wide = clustered_vectors(rng, 40, 50)
    rows = wide.astype(np.float16).astype(np.float32)
    plain = exact_cosines(wide[:, 3:40].copy(), rows[:, 3:40].copy())
    assert (exact_cosines(wide[:, 3:40], np.asfortranarray(rows[:, 3:40])) == plain).all()
    assert (exact_cosines(wide[:, 3:40], wide.astype(np.float16)[:, 3:40]) == plain).all()  # type: ignore[arg-type]


def test_it_sums_in_float64() -> None:
    """A float32 sum of 1024 numbers may err by more than the rounding; this one may not."""
    rng = np.random.default_rng(1)
    queries, rows = clustered_vectors(rng, 300, 1024), clustered_vectors(rng, 300, 1024)
    for q, r, cosine in zip(queries, rows, exact_cosines(queries, rows).tolist(), strict=True):
        lengths = math.hypot(*q.tolist()) * math.hypot(*r.tolist())
        assert cosine == round(math.fsum(map(float.__mul__, q.tolist(), r.tolist())) / lengths, 5)


def test_a_vector_and_itself_score_exactly_one() -> None:
    """In float32, and against its float16 copy, which is up to 5e-4 shorter or longer."""
    for dim in (2, 3, 5, 384):
        vectors = clustered_vectors(np.random.default_rng(dim), 100, dim)
        stored = vectors.astype(np.float16).astype(np.float32)
        assert (exact_cosines(vectors, vectors) == 1).all()
        assert (exact_cosines(vectors, stored) == 1).all()


def test_pairs_are_gathered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on memory does not change a result, whatever it cuts through."""
    rng = np.random.default_rng(2)
    queries, rows = clustered_vectors(rng, 9, 12), clustered_vectors(rng, 30, 12)
    query, at = rng.integers(0, 9, 50), rng.integers(0, 30, 50)
    whole = exact_cosines(queries[query], rows[at])
    for floats in (1, 12, 100, 1 << 20):
        monkeypatch.setattr(rescore, "PAIR_FLOATS_MAX", floats)
        assert (exact_pairs(queries, rows, query, at) == whole).all()
    assert exact_pairs(queries, rows, query[:0], at[:0]).shape == (0,)
