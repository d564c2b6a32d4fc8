"""Which of the waiting items go next, and which are not worth going: decided from the time alone.

Interactive goes before bulk, except for bulk's share. Within a priority the item whose time ends first
goes next, and with it those nearest to it in size among the most urgent: little of a batch is then
padding, and whoever has k items before it is gone after k + 1 batches of its priority. Nothing runs
whose time has ended or whose caller has gone. `batcher.py` puts threads around this.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, count, groupby
from typing import Final, Generic, TypeVar

from simsearch.encode.fair_share import BULK_PARTS, FairShare
from simsearch.types import CallContext, Priority

J = TypeVar("J")

PADDING_PARTS: Final = 5
"""One part in so many of a batch's cost may be padding."""

WINDOW_BATCHES: Final = 4
"""Neighbours in size are looked for among the most urgent items that would fill so many batches."""


@dataclass(frozen=True)
class Bounds:
    """What a queue holds and gives at most.

    A batch is padded to its largest item, so it costs that item's size times its items:
    `cost_max`, and `bulk_cost_max` in the bulk priority, since whoever comes meanwhile waits for its
    end. An item that alone costs more goes alone. `items_max` is for each priority, so that bulk never
    takes interactive's place. `wait_s_max` is how long an item may wait, whatever its deadline;
    `linger_s` is how long a batch that is not full waits for more. `padding_free` is how much of a
    batch may be padding in any case: what the start of one more batch costs.
    """

    cost_max: int
    bulk_cost_max: int
    items_max: int
    wait_s_max: float
    linger_s: float = 0.0
    padding_free: float = math.inf

    def cost_max_of(self, priority: Priority) -> int:
        return self.bulk_cost_max if priority is Priority.BULK else self.cost_max


@dataclass(frozen=True, eq=False)
class BatchSlot(Generic[J]):
    """What the items that came together have in common; from `until` on they are worth nothing.
    Times are seconds on the clock of CallContext.deadline."""

    owner: J
    call: CallContext
    number: int
    arrived: float
    until: float

    @property
    def urgency(self) -> tuple[float, int]:
        return self.until, self.number

    def lingers_until(self, linger_s: float) -> float:
        """An item that has no time to lose does not wait for company."""
        end = self.arrived + linger_s
        return end if end < self.until else self.arrived


@dataclass(frozen=True, eq=False)
class QueuedItem(Generic[J]):
    """The `position`-th item of its ticket."""

    slot: BatchSlot[J]
    position: int
    size: int


@dataclass(frozen=True)
class Dropped(Generic[J]):
    """Items that never ran: their time had ended, or their caller had gone."""

    expired: Sequence[QueuedItem[J]] = ()
    unwanted: Sequence[QueuedItem[J]] = ()


@dataclass(frozen=True)
class Taken(Generic[J]):
    """A batch of one priority, smallest item first; empty where nothing was left but dropped items."""

    batch: Sequence[QueuedItem[J]]
    dropped: Dropped[J] = field(default_factory=Dropped)


class Queue(Generic[J]):
    """Not thread-safe, and knows no clock: `now` never goes back."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._priorities: dict[Priority, list[QueuedItem[J]]] = {
            priority: [] for priority in Priority
        }
        self._units = dict.fromkeys(Priority, 0)
        self._numbers = count()
        self._share = FairShare()

    def __len__(self) -> int:
        return sum(map(len, self._priorities.values()))

    def waiting(self, priority: Priority) -> int:
        """Items."""
        return len(self._priorities[priority])

    def units_before(self, priority: Priority) -> int:
        """Sizes of what goes before an item that comes now and is not urgent."""
        interactive, bulk = self._units[Priority.INTERACTIVE], self._units[Priority.BULK]
        if priority is Priority.BULK:
            return interactive + bulk
        return interactive + min(bulk, interactive // (BULK_PARTS - 1))

    def has_room(self, priority: Priority, items: int) -> bool:
        return self.waiting(priority) + items <= self.bounds.items_max

    def put(self, owner: J, sizes: Sequence[int], call: CallContext, now: float) -> None:
        """Items of these sizes (1 or more) wait in the priority of `call`, which has room for them."""
        assert self.has_room(call.priority, len(sizes))
        assert min(sizes) >= 1
        until = min(call.deadline, now + self.bounds.wait_s_max)
        slot = BatchSlot(owner, call, next(self._numbers), now, until)
        priority = self._priorities[call.priority]
        at = bisect(priority, slot.urgency, key=lambda waiting: waiting.slot.urgency)
        priority[at:at] = [QueuedItem(slot, position, size) for position, size in enumerate(sizes)]
        self._units[call.priority] += sum(sizes)

    def due_at(self) -> float:
        """From when on a batch is to be taken: -inf once one is full, inf while nothing waits."""
        if any(self._units[priority] >= self.bounds.cost_max_of(priority) for priority in Priority):
            return -math.inf
        waiting = chain.from_iterable(self._priorities.values())
        ends = (one.slot.lingers_until(self.bounds.linger_s) for one in waiting)
        return min(ends, default=math.inf)

    def take(self, now: float) -> Taken[J]:
        """The next batch, and whatever stopped being worth one."""
        dropped = self.drop(now)
        priority = self._next_lane()
        if not self._priorities[priority]:
            return Taken((), dropped)
        cost_max = self.bounds.cost_max_of(priority)
        urgent = _most_urgent(self._priorities[priority], cost_max)
        batch = _alike(urgent, cost_max, self.bounds.padding_free)
        batch.sort(key=lambda one: one.size)
        chosen = set(batch)
        self._keep(priority, [one for one in self._priorities[priority] if one not in chosen])
        self._account(priority, cost_of(batch))
        return Taken(batch, dropped)

    def drop(self, now: float) -> Dropped[J]:
        """Let go of every item whose time has ended or whose caller has gone."""
        dropped = []
        for priority in Priority:
            kept, gone = sift(self._priorities[priority], now)
            self._keep(priority, kept)
            dropped.append(gone)
        return Dropped(
            expired=[one for gone in dropped for one in gone.expired],
            unwanted=[one for gone in dropped for one in gone.unwanted],
        )

    def clear(self) -> list[J]:
        """Let go of everything; whose it was."""
        waiting = chain.from_iterable(self._priorities.values())
        owners = dict.fromkeys(one.slot.owner for one in waiting)
        for priority in Priority:
            self._keep(priority, [])
        return list(owners)

    def _keep(self, priority: Priority, kept: list[QueuedItem[J]]) -> None:
        self._priorities[priority] = kept
        self._units[priority] = sum(one.size for one in kept)

    # ------------------------------------------------------------ bulk's share

    def _next_lane(self) -> Priority:
        """Bulk's turn comes once it is owed a whole batch, or when nobody else waits."""
        if not self._priorities[Priority.BULK]:
            return Priority.INTERACTIVE
        owed_batch = self._share.owes(self.bounds.bulk_cost_max)
        return (
            Priority.BULK
            if owed_batch or not self._priorities[Priority.INTERACTIVE]
            else Priority.INTERACTIVE
        )

    def _account(self, priority: Priority, cost: int) -> None:
        """What interactive spends while bulk waits is owed to bulk; time to spare is free."""
        self._share.spend(priority, cost)
        if not self._priorities[Priority.BULK] or (
            priority is Priority.BULK and not self._priorities[Priority.INTERACTIVE]
        ):
            self._share.clear()


def sift(waiting: Iterable[QueuedItem[J]], now: float) -> tuple[list[QueuedItem[J]], Dropped[J]]:
    """Those worth running at `now`, in their order, and the others."""
    kept: list[QueuedItem[J]] = []
    expired: list[QueuedItem[J]] = []
    unwanted: list[QueuedItem[J]] = []
    for slot, items in groupby(waiting, key=lambda one: one.slot):
        if slot.until <= now:
            expired += items
        elif slot.call.is_wanted():
            kept += items
        else:
            unwanted += items
    return kept, Dropped(expired, unwanted)


def cost_of(batch: Sequence[QueuedItem[J]]) -> int:
    """With its padding."""
    return max(one.size for one in batch) * len(batch)


def _most_urgent(priority: Sequence[QueuedItem[J]], cost_max: int) -> Sequence[QueuedItem[J]]:
    """The front of the priority, up to WINDOW_BATCHES full batches of it."""
    units = accumulate(min(one.size, cost_max) for one in priority)
    return [
        one for one, upto in zip(priority, units, strict=True) if upto <= WINDOW_BATCHES * cost_max
    ]


def _alike(
    urgent: Sequence[QueuedItem[J]], cost_max: int, padding_free: float
) -> list[QueuedItem[J]]:
    """The first, and those nearest to it in size while they fit; of equal ones the more urgent."""
    first, *others = urgent
    batch, units, largest = [first], first.size, first.size
    for one in sorted(others, key=lambda other: abs(other.size - first.size)):
        padded_to = max(largest, one.size)
        cost = padded_to * (len(batch) + 1)
        padding = cost - units - one.size
        if cost <= cost_max and padding <= max(padding_free, cost / PADDING_PARTS):
            batch.append(one)
            units += one.size
            largest = padded_to
    return batch
