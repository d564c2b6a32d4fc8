"""Fair share: bulk gets one part in eight of what is spent while both priorities wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.encode.fair_share import BULK_PARTS, FairShare
from simsearch.types import Priority


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=200))
def test_bulk_gets_its_part_whatever_the_turns_cost(costs: list[tuple[int, int]]) -> None:
    """To within one turn of either priority."""
    share, spent = FairShare(), dict.fromkeys(Priority, 0)
    for interactive, bulk in costs:
        priority = Priority.BULK if share.owes(bulk) else Priority.INTERACTIVE
        cost = bulk if priority is Priority.BULK else interactive
        share.spend(priority, cost)
        spent[priority] += cost
    due = spent[Priority.INTERACTIVE] / (BULK_PARTS - 1)
    assert 0 <= due - spent[Priority.BULK] < 9 + 9 / (BULK_PARTS - 1)


def test_what_is_owed_is_bounded_both_ways() -> None:
    """A long time of one priority does not give the other a long time of its own."""
    share = FairShare(owed_max=2)
    share.spend(Priority.INTERACTIVE, 1_000)
    assert share.owes(2)
    assert not share.owes(2.01)
    share.spend(Priority.BULK, 1_000)
    share.spend(Priority.INTERACTIVE, 2 * (BULK_PARTS - 1))
    assert share.owes(0)
    assert not share.owes(0.01)


@pytest.mark.parametrize("priority", list(Priority))
def test_nothing_is_owed_once_it_is_cleared(priority: Priority) -> None:
    """Neither to bulk nor by it."""
    share = FairShare()
    share.spend(priority, 5)
    share.clear()
    assert share.owes(0)
    assert not share.owes(1)
