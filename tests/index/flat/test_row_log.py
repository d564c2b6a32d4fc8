"""The log of rows: what a view keeps seeing, how rows end, what compaction may do."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simsearch.errors import InternalFault
from simsearch.index.flat.cosine import ExactIndex, ExactView
from simsearch.index.flat.row_blocks import FrozenRows, RowBlock, Rows
from simsearch.index.flat.row_log import RowLog
from simsearch.index.tombstones import contains
from tests.index.oracle import unit


def log(block_rows: int = 3) -> RowLog[np.int64]:
    return RowLog((), np.int64, block_rows)


def add(rows: RowLog[np.int64], keys: list[int], groups: list[int] | None = None) -> None:
    """Rows whose payload is their key, so that a mix-up shows."""
    rows.append(np.array(keys, np.int64), keys, groups or [0] * len(keys))


def keys(frozen: FrozenRows[np.int64]) -> list[int]:
    """The keys a view sees, in order; checks that payload and row numbers go with them."""
    seen: list[int] = []
    numbers: list[int] = []
    for block in frozen.blocks:
        every = np.arange(block.count)
        alive = every[~contains(block.dead, every)]
        assert (block.payload[alive] == block.keys(alive)).all()
        seen += block.keys(alive).tolist()
        numbers += range(block.start, block.start + block.count)
    assert numbers == list(range(len(numbers)))
    assert len(frozen) == len(seen)
    return seen


def groups(frozen: FrozenRows[np.int64]) -> list[int]:
    """The groups of the rows a view sees, in order."""
    seen: list[int] = []
    for block in frozen.blocks:
        every = np.arange(block.count)
        seen += block.group_ids(every[~contains(block.dead, every)]).tolist()
    return seen


def test_a_view_sees_what_was_there_and_nothing_later() -> None:
    """Rows appended or retired after a freeze do not show in it, even in the same block."""
    rows = log()
    add(rows, [1, 2])
    old = rows.freeze(2)
    add(rows, [3, 4, 5])
    rows.retire([1, 4], [3, 3])
    rows.retire([2], [1])  # late news of an earlier seq is news all the same
    assert keys(old) == [1, 2]
    assert keys(rows.freeze(3)) == [3, 5]
    assert keys(rows.freeze(2)) == [1, 3, 4, 5]


def test_a_row_is_seen_until_its_seq() -> None:
    """A view through 7 sees a row retired at 8, and not one retired at 7."""
    rows = log()
    add(rows, [1, 2, 3, 4])
    assert rows.retire([1, 4], [7, 8]) == 2
    assert [keys(rows.freeze(seq)) for seq in (6, 7, 8)] == [[1, 2, 3, 4], [2, 3, 4], [2, 3]]


def test_retiring_ends_every_row_of_a_key_once() -> None:
    """Counted once; a later or earlier second seq changes nothing; unknown keys are ignored."""
    rows = log()
    add(rows, [5, 9, 5, 2, 5])
    assert rows.retire([5, 77, -1], [4, 4, 4]) == 3
    assert rows.retire([5], [9]) == 0
    assert rows.retire([5], [1]) == 0
    assert rows.retire([], []) == 0
    assert [keys(rows.freeze(seq)) for seq in (3, 4)] == [[5, 9, 5, 2, 5], [9, 2]]


def test_a_key_named_twice_ends_at_the_lower_seq() -> None:
    """Whatever the order in which the two come."""
    for seqs in ([6, 3], [3, 6]):
        rows = log()
        add(rows, [1])
        assert rows.retire([1, 1], seqs) == 1
        assert keys(rows.freeze(3)) == []


def test_a_row_added_after_its_key_was_retired_is_alive() -> None:
    """Retiring ends the rows there are; it does not forbid a key."""
    rows = log()
    add(rows, [1, 2])
    rows.retire([1], [3])
    add(rows, [1])
    assert keys(rows.freeze(9)) == [2, 1]


def test_many_keys_at_once_and_one_by_one_are_the_same() -> None:
    """In blocks whose key ranges overlap, and with keys in no order."""
    rng = np.random.default_rng(0)
    all_keys = rng.integers(0, 500, 2000).tolist()
    dead = rng.choice(500, 200, replace=False)
    at_once, one_by_one = log(64), log(64)
    add(at_once, all_keys)
    add(one_by_one, all_keys)
    ended = at_once.retire(dead, np.arange(200))
    assert ended == sum(one_by_one.retire([int(k)], [i]) for i, k in enumerate(dead))
    for through in (0, 50, 199):
        gone = set(dead[: through + 1].tolist())
        expected = [k for k in all_keys if k not in gone]
        assert keys(at_once.freeze(through)) == keys(one_by_one.freeze(through)) == expected


def test_groups_keep_their_numbers() -> None:
    """More groups than rows of a block, large ones and negative ones, before and after a
    compaction."""
    rows = log()
    numbers = [2**62, 0, -5, 7, 2**62, 7, 7, 1, 0, 2**31]
    add(rows, list(range(10)), numbers)
    assert groups(rows.freeze(0)) == numbers
    rows.retire([0, 1, 7], [1, 1, 1])
    rows.compact(1)
    assert groups(rows.freeze(1)) == [-5, 7, 2**62, 7, 7, 0, 2**31]


def test_compaction_drops_dead_rows_and_keeps_old_views() -> None:
    """Views through an earlier seq go on seeing what is gone from the log."""
    rows = log(4)
    add(rows, list(range(12)))
    rows.retire([0, 1, 2, 5, 6, 7], [1, 1, 1, 2, 2, 2])
    before, old = rows.nbytes, rows.freeze(1)
    assert rows.compact(2) == 6
    assert rows.nbytes < before
    assert keys(old) == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert keys(rows.freeze(2)) == [3, 4, 8, 9, 10, 11]
    assert [block.count for block in rows.freeze(2).blocks] == [2, 4]


def test_compaction_keeps_rows_that_end_later() -> None:
    """A row retired after `through` is still seen by the views before its end, and not after."""
    rows = log(4)
    add(rows, list(range(8)))
    rows.retire([0, 1, 2, 3, 4], [1, 1, 1, 5, 6])
    assert rows.compact(4) == 3
    assert [keys(rows.freeze(seq)) for seq in (4, 5, 6)] == [
        [3, 4, 5, 6, 7],
        [4, 5, 6, 7],
        [5, 6, 7],
    ]


def test_compaction_leaves_a_block_that_is_mostly_alive() -> None:
    """Copying it would cost more than it frees; doing it again does nothing."""
    rows = log(4)
    add(rows, list(range(8)))
    rows.retire([0, 5], [1, 1])
    assert rows.compact(1) == 0
    rows.retire([1, 2], [2, 2])
    assert rows.compact(2) == 3
    block = rows.freeze(2).blocks[0].block
    assert rows.compact(2) == 0
    assert rows.freeze(2).blocks[0].block is block


def test_a_compacted_log_can_grow_and_shrink_again() -> None:
    """Retire and append go on after a compaction, also of everything."""
    rows = log(2)
    add(rows, [1, 2, 3])
    rows.retire([1, 2, 3], [1, 1, 1])
    assert rows.compact(1) == 3
    assert keys(rows.freeze(1)) == []
    add(rows, [4, 5, 6])
    assert rows.retire([1, 5], [2, 2]) == 1
    assert keys(rows.freeze(2)) == [4, 6]


def test_a_freeze_below_a_compaction_is_refused() -> None:
    """Such a view would miss rows that were alive at its seq."""
    rows = log()
    add(rows, [1])
    rows.compact(5)
    with pytest.raises(InternalFault, match=r"seq 4: .* ended by 5"):
        rows.freeze(4)
    assert keys(rows.freeze(5)) == [1]


def test_rows_without_a_key_or_a_group_are_refused() -> None:
    """One of each for every row; nothing of the batch is kept."""
    rows = log()
    for keys_of, groups_of in ([1], [0, 0]), ([1, 2], [0]):
        with pytest.raises(InternalFault, match="one of each for every row"):
            rows.append(np.zeros(2, np.int64), keys_of, groups_of)
    assert len(rows.freeze(0)) == 0


def test_blocks_have_a_sane_size() -> None:
    """Rows of a block are numbered in uint16."""
    for block_rows in (0, 65_537):
        with pytest.raises(InternalFault, match="choose 1 to 65536"):
            log(block_rows)
    rows = log(65_536)
    add(rows, list(range(65_537)))
    rows.retire([65_535], [1])
    assert keys(rows.freeze(1))[-2:] == [65_534, 65_536]


class Watched(np.ndarray[Any, np.dtype[Any]]):
    """An array that notes the count its block shows while it is written."""

    block: RowBlock[np.int64]
    counts: list[int]

    def __setitem__(self, at: Any, value: Any) -> None:
        self.counts.append(self.block.count)
        super().__setitem__(at, value)


def test_the_count_is_published_last() -> None:
    """Whoever reads the count finds payload, key and group of every row below it."""
    block: RowBlock[np.int64] = RowBlock((), np.int64, 8)
    counts: list[int] = []

    def watched(array: NDArray[Any]) -> Watched:
        view = array.view(Watched)
        view.block, view.counts = block, counts
        return view

    block.payload, block.keys = watched(block.payload), watched(block.keys)
    block.slots = watched(block.slots)
    ones = np.ones(2, np.int64)
    for _ in range(2):
        block.append(Rows(ones, ones, ones))
    assert counts == [0, 0, 0, 2, 2, 2]
    assert block.count == 4


def test_readers_see_whole_views_while_a_writer_edits() -> None:
    """One thread appends, retires, compacts and publishes views; searches on any published view
    find exactly the keys that were alive when it was frozen, again and again."""
    index = ExactIndex(2, block_rows=32, rows_max=10_000)
    everything = {0: -1.0, 1: -1.0}
    query = unit(np.array([[1.0, 0.3]]))
    published: list[tuple[ExactView, set[int]]] = [(index.freeze(0), set())]
    faults: list[str] = []
    done = threading.Event()

    def write() -> None:
        rng, alive, seq = np.random.default_rng(0), set[int](), 0
        while not done.is_set():
            seq += 1
            new = list(range(seq * 100, seq * 100 + int(rng.integers(1, 50))))
            index.append(unit(rng.standard_normal((len(new), 2))), new, [k % 2 for k in new])
            gone = [k for k in alive if rng.random() < 0.3]
            index.retire(gone, [seq] * len(gone))
            alive = (alive - set(gone)) | set(new)
            if seq % 5 == 0:
                index.compact(seq)
            published.append((index.freeze(seq), alive))

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not done.is_set():
            newest = len(published) - 1
            view, alive = published[max(0, newest - int(rng.integers(0, 30)))]
            seen = view.search(query, everything).key.tolist()
            if sorted(seen) != sorted(alive) or len(view) != len(alive):
                faults.append(f"view through {view.through}: {len(seen)} of {len(alive)} rows")

    threads = [threading.Thread(target=write)]
    threads += [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    done.set()
    for thread in threads:
        thread.join()
    assert len(published) > 20
    assert faults == []
