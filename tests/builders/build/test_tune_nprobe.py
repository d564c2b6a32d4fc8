"""The number of lists that is chosen is the fewest that is enough, of a curve that shows it."""

from __future__ import annotations

import numpy as np

from index_builders.build.tune_nprobe import NPROBE_TRIES, NprobeChoice, tune_nprobe
from index_builders.report.progress import silent
from simsearch.index.flat.cosine import ExactIndex, ExactView
from tests.builders.worlds import cloud

ROWS = cloud(600).astype(np.float16)
GROUPS = np.zeros(len(ROWS), np.int64)


class Lists:
    """Finds all that `enough` lists hold, and with fewer a tenth less for each halving."""

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.asked: list[int] = []

    def __call__(self, nprobe: int) -> ExactView:
        self.asked.append(nprobe)
        missing = max(0, int(np.log2(self.enough / nprobe) * len(ROWS) / 10))
        index = ExactIndex(ROWS.shape[1])
        index.append(ROWS.astype(np.float32), np.arange(len(ROWS)), GROUPS)
        index.retire(np.arange(len(ROWS) - missing, len(ROWS)), np.ones(missing, np.int64))
        return index.freeze(1)


def judged(lists: Lists, begin: int, nlist: int, target: float = 0.99) -> NprobeChoice:
    return tune_nprobe(lists, ROWS, GROUPS, (begin, nlist), target, silent)


def test_what_is_enough_at_once_is_chosen_at_once() -> None:
    """The curve goes down to one list and up to twice as many."""
    lists = Lists(enough=4)
    verdict = judged(lists, begin=4, nlist=64)
    assert verdict.nprobe == lists.asked[0] == 4
    assert [nprobe for nprobe, _ in verdict.curve] == [1, 2, 4, 8]
    found = [recall.worst for _, recall in verdict.curve]
    assert found == sorted(found)
    assert found[1] < 0.99 <= found[2]


def test_lists_are_doubled_until_they_are_enough() -> None:
    """And no further; none is tried twice."""
    lists = Lists(enough=16)
    verdict = judged(lists, begin=3, nlist=100)
    assert lists.asked[:4] == [3, 6, 12, 24]
    assert verdict.nprobe == 24
    assert [nprobe for nprobe, _ in verdict.curve] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 48]
    assert len(lists.asked) == len(verdict.curve)


def test_all_lists_are_the_most_there_are() -> None:
    """Once they are all read there is nothing left to try, below the target or above it."""
    lists = Lists(enough=1000)
    verdict = judged(lists, begin=4, nlist=10)
    assert (verdict.nprobe, lists.asked) == (0, [4, 8, 10])
    assert verdict.recall == verdict.curve[-1][1]
    assert [nprobe for nprobe, _ in judged(Lists(8), begin=8, nlist=8).curve] == [1, 2, 4, 8]


def test_a_build_is_given_up_after_so_many_doublings() -> None:
    """A search that reads that much more than was planned is not what was planned."""
    lists = Lists(enough=1 << 20)
    assert judged(lists, begin=1, nlist=1 << 20).nprobe == 0
    assert lists.asked == [2**k for k in range(NPROBE_TRIES)]
