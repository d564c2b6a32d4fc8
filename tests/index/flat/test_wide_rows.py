"""Rows of 1,024 bits: their heads propose, all bits decide, and what is found is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.errors import BadHash
from simsearch.index.flat.hamming import HammingIndex, head_bound
from simsearch.types import Bits

WIDTH = 128
BITS = 8 * WIDTH


def _rows(rng: np.random.Generator, count: int) -> Bits:
    return rng.integers(0, 256, (count, WIDTH), np.uint8)


def _flipped(rng: np.random.Generator, rows: Bits, flips: int) -> Bits:
    """Each row with `flips` of its bits turned, anywhere."""
    bits = np.unpackbits(rows, axis=1)
    for row in bits:
        row[rng.choice(BITS, flips, replace=False)] ^= 1
    return np.packbits(bits, axis=1)


def _index(rows: Bits, block_rows: int) -> HammingIndex:
    index = HammingIndex(WIDTH, block_rows=block_rows)
    index.append(rows, range(len(rows)), np.arange(len(rows)) % 3)
    return index


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 500), st.integers(0, 480), st.sampled_from([5, 64]))
def test_it_finds_what_brute_force_finds_but_for_far_heads(
    seed: int, limit: int, flips: int, block_rows: int
) -> None:
    """Every pair within the limit whose heads are near enough, at its distance in all bits, and no
    other; rows that ended are not found."""
    rng = np.random.default_rng(seed)
    rows = _rows(rng, 40)
    queries = np.vstack([_flipped(rng, rows[:11], flips), rows[20:22], _rows(rng, 3)])
    index = _index(rows, block_rows)
    index.retire([3, 20], [1, 1])
    found = index.freeze(1).search(queries, {0: limit, 1: limit // 2})
    apart = np.bitwise_count(queries[:, None] ^ rows[None])
    whole = apart.sum(axis=2, dtype=np.int64)
    heads = apart[:, :, :32].sum(axis=2, dtype=np.int64)
    limits = np.array([limit, limit // 2, -1])[np.arange(40) % 3]
    expected = (whole <= limits) & (heads <= head_bound(limit, BITS))
    expected[:, [3, 20]] = False
    assert set(zip(found.query.tolist(), found.key.tolist(), strict=True)) == set(
        zip(*(at.tolist() for at in np.nonzero(expected)), strict=True)
    )
    assert (found.hamming == whole[found.query, found.key]).all()


@pytest.mark.parametrize("limit", [64, 200, 328, 400])
def test_999_of_1000_pairs_at_the_limit_are_found(limit: int) -> None:
    """With margin: of 4,000 pairs exactly at the limit, at most 10 are missed."""
    rng = np.random.default_rng(limit)
    rows = _rows(rng, 4000)
    view = _index(rows, 4096).freeze(0)
    queries = _flipped(rng, rows, limit)
    near = np.bitwise_count(queries[:, :32] ^ rows[:, :32]).sum(axis=1, dtype=np.int64)
    assert np.count_nonzero(near > head_bound(limit, BITS)) <= 10
    found = view.search(queries[:200], {0: limit, 1: limit, 2: limit})
    own = found.key[found.key == found.query]
    assert len(own) >= 198


def test_the_bound_of_heads_is_the_quantile() -> None:
    """By chance alone a quarter of the bits differs in the heads, and seldom much more."""
    assert head_bound(0, BITS) == 0
    assert head_bound(328, BITS) == 102
    assert head_bound(BITS, BITS) == 256
    bounds = [head_bound(limit, BITS) for limit in range(0, BITS + 1, 8)]
    assert bounds == sorted(bounds)


def test_rows_of_another_width_are_refused() -> None:
    index = HammingIndex(WIDTH)
    with pytest.raises(BadHash, match="1024 bits"):
        index.append(np.zeros((1, 32), np.uint8), [1], [1])
    with pytest.raises(BadHash, match="1024 bits"):
        index.freeze(0).search(np.zeros((1, 32), np.uint8), {1: 3})


def test_compaction_keeps_all_bits() -> None:
    rng = np.random.default_rng(1)
    rows = _rows(rng, 30)
    index = _index(rows, 8)
    index.retire(range(20), [1] * 20)
    index.compact(1)
    found = index.freeze(1).search(rows[20:], {0: 0, 1: 0, 2: 0})
    assert found.key.tolist() == list(range(20, 30))
    assert not found.hamming.any()
