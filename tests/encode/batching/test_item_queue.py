"""Whose turn it is: every promise of the queue over random arrivals, with a clock that is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from simsearch.encode.batching.item_queue import (
    PADDING_PARTS,
    WINDOW_BATCHES,
    Bounds,
    Queue,
    Taken,
    cost_of,
)
from simsearch.encode.fair_share import BULK_PARTS
from simsearch.types import CallContext, Priority

COST_MAX = 12
BULK_COST_MAX = 2
SIZE_MAX = 14
"""Over both budgets: such an item goes alone."""
PADDING_FREE = 3
BOUNDS = Bounds(COST_MAX, BULK_COST_MAX, items_max=20, wait_s_max=9, padding_free=PADDING_FREE)

OTHERS = BULK_PARTS - 1


@dataclass(eq=False)
class Expected:
    """One item as the model has it. `before` are the more urgent ones that it has met, `passed`
    is how many batches of its priority have left without it."""

    owner: int
    position: int
    size: int
    priority: Priority
    until: float
    before: set[tuple[int, int]] = field(default_factory=set)
    passed: int = 0

    @property
    def name(self) -> tuple[int, int]:
        return self.owner, self.position

    @property
    def urgency(self) -> tuple[float, int, int]:
        return self.until, self.owner, self.position


class Arrivals(RuleBasedStateMachine):
    """A queue against a plain list. Owners are numbered as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue[int](BOUNDS)
        self.now = 0.0
        self.owners = 0
        self.gone: set[int] = set()
        self.model: list[Expected] = []
        self.spent = dict.fromkeys(Priority, 0)

    def priority(self, priority: Priority) -> list[Expected]:
        return sorted((e for e in self.model if e.priority is priority), key=lambda e: e.urgency)

    # ------------------------------------------------------------ what happens

    @rule(
        priority=st.sampled_from(Priority),
        left=st.sampled_from([1.0, 2.0, 5.0, math.inf]),
        sizes=st.lists(st.integers(1, SIZE_MAX) | st.integers(1, 3), min_size=1, max_size=6),
    )
    def arrive(self, priority: Priority, left: float, sizes: list[int]) -> None:
        """A priority holds so many items and no more, whatever the other holds."""
        room = len(self.priority(priority)) + len(sizes) <= BOUNDS.items_max
        assert self.queue.has_room(priority, len(sizes)) == room
        if not room:
            return
        owner, self.owners = self.owners, self.owners + 1
        call = CallContext(priority, self.now + left, lambda: owner not in self.gone)
        self.queue.put(owner, sizes, call, self.now)
        until = self.now + min(left, BOUNDS.wait_s_max)
        for position, size in enumerate(sizes):
            self._meet(Expected(owner, position, size, priority, until))

    def _meet(self, new: Expected) -> None:
        for other in self.priority(new.priority):
            early, late = sorted([new, other], key=lambda e: e.urgency)
            late.before.add(early.name)
        self.model.append(new)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.gone.add(data.draw(st.sampled_from(sorted({e.owner for e in self.model}))))

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        taken = self.queue.take(self.now)
        self._check_dropped(taken)
        if not taken.batch:
            assert self.model == []
            return
        priority = taken.batch[0].slot.call.priority
        self._check_share(priority, cost_of(taken.batch))
        self._check_batch(taken, priority)
        if not self.priority(Priority.BULK):
            self.spent = dict.fromkeys(Priority, 0)

    # ------------------------------------------------------------ what must hold

    def _check_dropped(self, taken: Taken[int]) -> None:
        """Exactly those whose time has ended or whose caller has gone; none of them runs."""
        expired = {e.name for e in self.model if e.until <= self.now}
        unwanted = {e.name for e in self.model if e.owner in self.gone} - expired
        assert names(taken.dropped.expired) == sorted(expired)
        assert names(taken.dropped.unwanted) == sorted(unwanted)
        self.model = [e for e in self.model if e.name not in expired | unwanted]

    def _check_batch(self, taken: Taken[int], priority: Priority) -> None:
        waiting = self.priority(priority)
        by_name = {e.name: e for e in waiting}
        batch = [by_name[one.slot.owner, one.position] for one in taken.batch]
        left = [e for e in waiting if e not in batch]
        assert len(set(names(taken.batch))) == len(batch)
        assert [one.size for one in taken.batch] == sorted(e.size for e in batch)
        assert waiting[0] in batch, "the most urgent is always among them"
        cost_max = BOUNDS.cost_max_of(priority)
        cost = cost_of(taken.batch)
        assert cost <= cost_max or len(batch) == 1
        assert padding(batch) <= max(PADDING_FREE, cost / PADDING_PARTS)
        units = accumulate(min(e.size, cost_max) for e in waiting)
        within = sum(1 for upto in units if upto <= WINDOW_BATCHES * cost_max)
        assert set(batch) <= set(waiting[:within]), "none that is far from its turn"
        for other in left:
            assert all(e.urgency < other.urgency for e in batch if e.size == other.size)
            other.passed += 1
            assert other.passed <= len(other.before), "nobody is passed over without end"
        for other in set(waiting[:within]) & set(left):
            larger = [*batch, other]
            too_dear = max(e.size for e in larger) * len(larger) > cost_max
            assert too_dear or padding(larger) > PADDING_FREE, "it would have fitted"
        self.model = [e for e in self.model if e not in batch]

    def _check_share(self, priority: Priority, cost: int) -> None:
        """Interactive goes first, and bulk gets its share of what is spent while both wait."""
        if not (self.priority(Priority.INTERACTIVE) and self.priority(Priority.BULK)):
            self.spent = dict.fromkeys(Priority, 0)
            return
        self.spent[priority] += cost
        first, second = self.spent[Priority.INTERACTIVE], self.spent[Priority.BULK]
        assert first <= OTHERS * (second + BULK_COST_MAX) + max(COST_MAX, SIZE_MAX)
        assert OTHERS * second <= first + OTHERS * (max(SIZE_MAX, BULK_COST_MAX) - BULK_COST_MAX)

    @invariant()
    def holds_what_came_and_did_not_go(self) -> None:
        assert len(self.queue) == len(self.model)
        for priority in Priority:
            assert self.queue.waiting(priority) == len(self.priority(priority))
        units = sum(e.size for e in self.model)
        assert self.queue.units_before(Priority.BULK) == units
        assert self.queue.units_before(Priority.INTERACTIVE) <= units
        due_at = self.queue.due_at()
        assert due_at <= self.now if self.model else due_at == math.inf

    def teardown(self) -> None:
        """Without new arrivals each batch takes at least one: everything comes out."""
        while self.model:
            before = len(self.model)
            self.take()
            assert len(self.model) < before
        assert len(self.queue) == 0
        super().teardown()


def padding(batch: Sequence[Expected]) -> int:
    sizes = [e.size for e in batch]
    return max(sizes) * len(sizes) - sum(sizes)


def names(waiting: Sequence[Any]) -> list[tuple[int, int]]:
    return sorted((one.slot.owner, one.position) for one in waiting)


Arrivals.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestArrivals = Arrivals.TestCase


# ---------------------------------------------------------------- each rule by itself


def queue(
    cost_max: int = 100,
    bulk_cost_max: int = 100,
    wait_s_max: float = 30,
    linger_s: float = 0,
    padding_free: float = math.inf,
) -> Queue[str]:
    return Queue(Bounds(cost_max, bulk_cost_max, 1000, wait_s_max, linger_s, padding_free))


def put(
    to: Queue[str],
    owner: str,
    *sizes: int,
    priority: Priority = Priority.INTERACTIVE,
    deadline: float = math.inf,
    now: float = 0,
) -> None:
    to.put(owner, sizes, CallContext(priority, deadline), now)


def take(from_: Queue[str], now: float = 0) -> list[str]:
    return [one.slot.owner for one in from_.take(now).batch]


def test_the_earliest_deadline_goes_first_and_ties_go_by_arrival() -> None:
    """Batches of one, so that the order shows."""
    waiting = queue(cost_max=1)
    for owner, deadline in [("late", 9), ("a", 5), ("b", 5), ("first", 2), ("never", math.inf)]:
        put(waiting, owner, 1, deadline=deadline)
    assert [take(waiting)[0] for _ in range(5)] == ["first", "a", "b", "late", "never"]


def test_an_item_is_worth_nothing_from_its_deadline_on() -> None:
    """A deadline of now has passed."""
    waiting = queue()
    put(waiting, "a", 1, deadline=5)
    put(waiting, "b", 1, deadline=5.001)
    taken = waiting.take(5)
    assert [one.slot.owner for one in taken.batch] == ["b"]
    assert [one.slot.owner for one in taken.dropped.expired] == ["a"]


def test_who_has_no_deadline_is_not_passed_over_for_ever() -> None:
    """Beside an endless stream of pressing items, twice as many as can be served, an item without
    a deadline still goes before its longest wait ends."""
    waiting = queue(cost_max=1, wait_s_max=30)
    put(waiting, "patient", 1)
    for second in range(30):
        for _ in range(2):
            put(waiting, "pressing", 1, deadline=second + 3, now=second)
        if take(waiting, second) == ["patient"]:
            assert second >= 27
            return
    pytest.fail("it never had its turn")


def test_interactive_goes_before_bulk_that_came_first() -> None:
    """And a batch is of one priority: bulk does not make an upload's batch longer."""
    waiting = queue()
    put(waiting, "bulk", 1, 1, priority=Priority.BULK)
    put(waiting, "upload", 1)
    assert [take(waiting), take(waiting)] == [["upload"], ["bulk", "bulk"]]


@given(st.integers(1, 40), st.integers(1, 10))
@settings(max_examples=15, deadline=None)
def test_under_steady_load_bulk_gets_its_share_and_no_more(size: int, bulk_size: int) -> None:
    """One part in eight of what is spent, for whatever sizes; none of it saved up for later."""
    waiting = queue(cost_max=40, bulk_cost_max=10)
    spent = dict.fromkeys(Priority, 0)
    for _ in range(200):
        while waiting.waiting(Priority.INTERACTIVE) < 40:
            put(waiting, "upload", size)
        while waiting.waiting(Priority.BULK) < 20:
            put(waiting, "bulk", bulk_size, priority=Priority.BULK)
        batch = waiting.take(0).batch
        spent[batch[0].slot.call.priority] += cost_of(batch)
    share = spent[Priority.BULK] / sum(spent.values())
    assert share == pytest.approx(1 / BULK_PARTS, rel=0.1)


def test_time_to_spare_is_not_held_against_bulk_nor_saved_up() -> None:
    """What either priority spends while the other has nothing waiting counts for nothing."""
    waiting = queue(cost_max=1, bulk_cost_max=1)
    for _ in range(100):
        put(waiting, "bulk", 1, priority=Priority.BULK)
        take(waiting)
        put(waiting, "upload", 1)
        take(waiting)
    for _ in range(20):
        put(waiting, "bulk", 1, priority=Priority.BULK)
        put(waiting, "upload", 1)
    turns = [take(waiting)[0] for _ in range(9)]
    assert turns == ["upload"] * OTHERS + ["bulk", "upload"]


def test_neighbours_in_size_go_together() -> None:
    """Long and short texts that come in turns are not padded to each other."""
    waiting = queue(cost_max=400)
    for n in range(40):
        put(waiting, f"{n}", 40 if n % 2 else 5)
    batches = []
    while len(waiting):
        batches.append([one.size for one in waiting.take(0).batch])
    assert batches == [[5] * 20, [40] * 10, [40] * 10]


def test_a_batch_is_not_padded_for_more_than_the_start_of_another_is_worth() -> None:
    """A few short ones beside a long one are padded to it; many go by themselves, before it if
    theirs is the more urgent."""
    few, many = queue(padding_free=20), queue(cost_max=1000, padding_free=20)
    put(few, "short", 3, 3, 3)
    put(few, "long", 9)
    assert take(few) == ["short", "short", "short", "long"]
    put(many, "short", *[3] * 20)
    put(many, "long", 9)
    assert [take(many), take(many)] == [["short"] * 20, ["long"]]


def test_of_a_large_batch_a_part_may_be_padding() -> None:
    """A fifth of its cost, though it is more than the start of another: else sizes that differ a
    little would never share one."""
    waiting = queue(cost_max=1000, padding_free=1)
    put(waiting, "a", *[10, 9, 8, 7] * 5)
    assert len(take(waiting)) == 20


def test_a_window_bounds_how_far_neighbours_are_fetched() -> None:
    """However alike, items whose turn is many batches away do not go before those between."""
    waiting = queue(cost_max=10)
    put(waiting, "first", 1)
    put(waiting, "between", *[10] * 3)
    put(waiting, "like the first", 1, 1)
    put(waiting, "between", *[10] * 3)
    put(waiting, "too far", 1)
    assert take(waiting) == ["first", "like the first", "like the first"]


def test_a_long_item_goes_alone_and_stops_nobody() -> None:
    """It costs more than a batch may; what waits behind it is batched as ever."""
    waiting = queue(cost_max=10)
    put(waiting, "a", 5, 5, 1, 50, 2)
    batches = []
    while len(waiting):
        batches.append([one.size for one in waiting.take(0).batch])
    assert batches == [[5, 5], [1, 2], [50]]


def test_bulk_never_takes_interactives_place() -> None:
    """Each priority has its own bound."""
    waiting = queue()
    put(waiting, "bulk", *[1] * 1000, priority=Priority.BULK)
    assert not waiting.has_room(Priority.BULK, 1)
    assert waiting.has_room(Priority.INTERACTIVE, 1000)
    assert not waiting.has_room(Priority.INTERACTIVE, 1001)


def test_what_goes_before_one_that_comes_now() -> None:
    """All that waits for bulk; for interactive its own queue and bulk's share of the time."""
    waiting = queue()
    put(waiting, "a", *[10] * OTHERS)
    put(waiting, "bulk", 3, priority=Priority.BULK)
    assert waiting.units_before(Priority.INTERACTIVE) == 10 * OTHERS + 3
    put(waiting, "bulk", 30, priority=Priority.BULK)
    assert waiting.units_before(Priority.INTERACTIVE) == 10 * OTHERS + 10
    assert waiting.units_before(Priority.BULK) == 10 * OTHERS + 33


def test_lingering_ends_with_time_a_full_batch_or_an_item_in_a_hurry() -> None:
    """A timer only where one is set, and never one that costs an item its deadline."""
    lingering = queue(cost_max=10, bulk_cost_max=10, linger_s=2)
    put(lingering, "a", 4, now=1)
    put(lingering, "b", 4, now=2)
    assert lingering.due_at() == 3
    put(lingering, "hurry", 1, deadline=4, now=2)
    assert lingering.due_at() == 2
    put(lingering, "full", 1, now=2)
    assert lingering.due_at() == -math.inf
    at_once = queue()
    put(at_once, "a", 1, now=1)
    assert at_once.due_at() == 1


def test_clearing_names_everybody_once() -> None:
    """At the end each caller is told, however many items it had."""
    waiting = queue()
    put(waiting, "a", 1, 2, 3)
    put(waiting, "b", 1, priority=Priority.BULK)
    assert sorted(waiting.clear()) == ["a", "b"]
    assert (len(waiting), waiting.due_at()) == (0, math.inf)
