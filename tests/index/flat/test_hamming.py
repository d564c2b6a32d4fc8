"""The Hamming index: its contract in several layouts, its memory, what it refuses."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence

import faiss
import numpy as np
import pytest

from simsearch.errors import BadHash
from simsearch.index.flat.hamming import BLOCK_ROWS, QUERIES_AT_ONCE, HammingIndex
from simsearch.index.index_protocol import HammingView
from simsearch.types import Bits
from tests.index.contract import HammingViewContract
from tests.index.oracle import Row


class TestHammingView(HammingViewContract):
    block_rows = BLOCK_ROWS

    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> HammingView:
        index = HammingIndex(block_rows=self.block_rows)
        if rows:
            bits = np.stack([row.value for row in rows])
            index.append(bits, [row.key for row in rows], [row.group for row in rows])
        index.retire(sorted(retired), [1] * len(retired))
        self.before_freeze(index)
        return index.freeze(1)

    def before_freeze(self, index: HammingIndex) -> None:
        pass


class TestHammingViewInTinyBlocks(TestHammingView):
    block_rows = 7


class TestHammingViewCompacted(TestHammingView):
    block_rows = 3

    def before_freeze(self, index: HammingIndex) -> None:
        index.compact(1)


def test_a_hash_costs_at_most_48_bytes() -> None:
    """All in: bits, key, group and what is known of its end."""
    rows = 3 * BLOCK_ROWS
    bits = np.random.default_rng(0).integers(0, 256, (rows, 32), np.uint8)
    index = HammingIndex()
    index.append(bits, range(rows), np.arange(rows) % 7)
    index.retire(range(0, rows, 4), [1] * (rows // 4))
    assert index.nbytes / rows <= 48


def test_queries_may_be_a_slice_of_something_larger() -> None:
    """The scan reads raw memory, so it must not take a strided array for a dense one."""
    wide = np.random.default_rng(0).integers(0, 256, (6, 64), np.uint8)
    index = HammingIndex()
    index.append(wide[::2, 32:], [1, 2, 3], [0, 0, 0])
    matches = index.freeze(0).search(wide[::2, 32:], {0: 0})
    assert matches.key.tolist() == [1, 2, 3]
    assert matches.query.tolist() == [0, 1, 2]


@pytest.mark.parametrize("copies", [[0], [5], [0, 1, 2], [1, 4], [0, 3, 4], range(6)], ids=str)
def test_a_copy_is_found_in_every_block(copies: Sequence[int]) -> None:
    """Whether the blocks before it held one or not; and for each query of a batch."""
    rng = np.random.default_rng(0)
    rows, queries = (rng.integers(0, 256, (n, 32), np.uint8) for n in (60, 3 * QUERIES_AT_ONCE))
    asked = [0, QUERIES_AT_ONCE, len(queries) - 1]
    at = [10 * block + 3 * number for block in copies for number in range(3)]
    rows[at] = np.tile(queries[asked], (len(copies), 1))
    rows[at, 0] ^= 1
    index = HammingIndex(block_rows=10)
    index.append(rows, range(60), [7] * 60)
    matches = index.freeze(0).search(queries, {7: 1})
    found = set(zip(matches.query.tolist(), matches.key.tolist(), strict=True))
    assert found == {(asked[i % 3], key) for i, key in enumerate(at)}
    assert matches.hamming.tolist() == [1] * len(at)


def test_the_edges_of_full_blocks() -> None:
    """The first and last row of each block are numbered, found and retired as any other."""
    rows = 2 * BLOCK_ROWS + 1
    bits = np.random.default_rng(0).integers(0, 256, (rows, 32), np.uint8)
    edges = [0, BLOCK_ROWS - 1, BLOCK_ROWS, 2 * BLOCK_ROWS - 1, 2 * BLOCK_ROWS]
    index = HammingIndex()
    index.append(bits, range(rows), np.arange(rows) % 2)
    index.retire(edges[1:4], [1] * 3)
    for through, alive in ((0, edges), (1, [0, 2 * BLOCK_ROWS])):
        matches = index.freeze(through).search(bits[edges], {0: 31, 1: 31})
        assert matches.key.tolist() == matches.row.tolist() == alive
        assert [edges[query] for query in matches.query] == alive


def test_a_ceiling_that_every_row_passes_costs_bounded_memory() -> None:
    """The more so for many queries: what one step proposes is worked off before the next."""
    rows = 2 * BLOCK_ROWS
    bits = np.random.default_rng(0).integers(0, 256, (rows, 32), np.uint8)
    index = HammingIndex()
    index.append(bits, range(rows), [0] * rows)
    view = index.freeze(0)
    few, many = (_peak_bytes(view, bits[:n]) for n in (8, 64))
    assert few < 48 * 2**20
    assert many < few + 8 * 2**20  # 5 MiB of matches kept, and no distances


def _peak_bytes(view: HammingView, queries: Bits) -> int:
    tracemalloc.start()
    try:
        matches = view.search(queries, {0: 256})
        assert matches.truncated.all()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_search_computes_in_its_own_thread() -> None:
    """Many small searches at once would have OpenMP's threads fight for the cores."""
    bits = np.random.default_rng(0).integers(0, 256, (2 * BLOCK_ROWS, 32), np.uint8)
    index = HammingIndex()
    index.append(bits, range(len(bits)), [0] * len(bits))
    view = index.freeze(0)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        begun, begun_here = time.process_time(), time.thread_time()
        for ceiling in (31, 70):  # nothing but the queries themselves; some more
            view.search(bits[:512], {0: ceiling})
        everywhere, here = time.process_time() - begun, time.thread_time() - begun_here
    finally:
        faiss.omp_set_num_threads(before)
    assert here > 0.8 * everywhere


def test_another_width_is_not_stored() -> None:
    """A hash of 64 bits is refused by name, and nothing of the batch is kept."""
    index = HammingIndex()
    with pytest.raises(BadHash, match="send hashes of 256 bits"):
        index.append(np.zeros((2, 8), np.uint8), [1, 2], [0, 0])
    assert len(index.freeze(0)) == 0
