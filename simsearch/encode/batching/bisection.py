"""Bisection of a failed batch: the bad items are found in few runs, the others still succeed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def run_bisected(batch: Sequence[T], run: Callable[[Sequence[T]], bool]) -> None:
    """Call `run` on the batch, and on parts of every group that it returns False for, in order.
    For a single item it must return True.

    The parts are halves, and single items once as many halvings were made as it takes to find one
    bad item: more would only add to the runs of items that are bad for the most part.
    """
    groups, halvings = [batch], len(batch).bit_length()
    while groups:
        group = groups.pop()
        if run(group):
            continue
        if halvings:
            halvings -= 1
            middle = len(group) // 2
            groups += [group[middle:], group[:middle]]
        else:
            groups += [group[n : n + 1] for n in reversed(range(len(group)))]
