"""The Hamming index: its contract in several layouts, its memory, what it refuses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from simsearch.errors import BadHash
from simsearch.index.hamming import HammingIndex
from simsearch.index.protocol import HammingView
from tests.index.contract import HammingViewContract
from tests.index.oracle import Row


class TestHammingView(HammingViewContract):
    block_rows = 32_768

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
    rows = 6 * 32_768
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


def test_another_width_is_not_stored() -> None:
    """A hash of 64 bits is refused by name, and nothing of the batch is kept."""
    index = HammingIndex()
    with pytest.raises(BadHash, match="send hashes of 256 bits"):
        index.append(np.zeros((2, 8), np.uint8), [1, 2], [0, 0])
    assert len(index.freeze(0)) == 0
