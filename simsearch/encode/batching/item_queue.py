"""Item queue: earliest deadline first within two priorities; batches of items of similar size.

Interactive items go before bulk, except for bulk's fair share. Within a priority the item with the
earliest deadline goes next, together with the most urgent ones that are nearest to it in size, so
that little of a batch is padding. An item with k items before it runs after at most k + 1 batches
of its priority. Items that expired or whose caller is gone never run. No threads and no clock:
`batcher.py` has those.
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
"""The inverse of the largest share of a batch's cost that may be padding."""

WINDOW_BATCHES: Final = 4
"""A batch is chosen among the most urgent items that would fill this many batches."""


@dataclass(frozen=True)
class Bounds:
    """Limits of a queue and of its batches.

    A batch is padded to its largest item: it costs that size times the number of items, at most
    `cost_max`, or `bulk_cost_max` for bulk, since interactive items wait for it to end. An item
    that alone costs more goes alone. `items_max` is for each priority, so that bulk takes no room
    from interactive. An item waits `wait_s_max` at most, whatever its deadline; a batch that is
    not full waits `linger_s` for more items. `padding_free` of a batch may always be padding: what
    the start of one more batch costs.
    """

    cost_max: int
    bulk_cost_max: int
    items_max: int
    wait_s_max: float
    linger_s: float = 0.0
    padding_free: float = math.inf

    def cost_max_of(self, priority: Priority) -> int:
        """The largest cost of a batch of this priority."""
        return self.bulk_cost_max if priority is Priority.BULK else self.cost_max


@dataclass(frozen=True, eq=False)
class BatchSlot(Generic[J]):
    """What the items of one call have in common; they expire at `until`. Times are in seconds on
    the clock of CallContext.deadline."""

    owner: J
    call: CallContext
    number: int
    arrived: float
    until: float

    @property
    def urgency(self) -> tuple[float, int]:
        """Sort key: the earliest expiry, then the order of arrival."""
        return self.until, self.number

    def lingers_until(self, linger_s: float) -> float:
        """Until when a batch may wait for more items; not at all where that would expire these."""
        end = self.arrived + linger_s
        return end if end < self.until else self.arrived


@dataclass(frozen=True, eq=False)
class QueuedItem(Generic[J]):
    """The item at `position` of its slot."""

    slot: BatchSlot[J]
    position: int
    size: int


@dataclass(frozen=True)
class Dropped(Generic[J]):
    """Items that never ran: expired, or without a caller."""

    expired: Sequence[QueuedItem[J]] = ()
    unwanted: Sequence[QueuedItem[J]] = ()


@dataclass(frozen=True)
class Taken(Generic[J]):
    """A batch of items of equal priority, smallest first; empty where all items were dropped."""

    batch: Sequence[QueuedItem[J]]
    dropped: Dropped[J] = field(default_factory=Dropped)


class Queue(Generic[J]):
    """Queued items of both priorities. Not thread-safe; `now` must never go back."""

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
        """How many items of this priority are queued."""
        return len(self._priorities[priority])

    def units_before(self, priority: Priority) -> int:
        """The total size of the items ahead of one that arrives now and is not urgent."""
        interactive, bulk = self._units[Priority.INTERACTIVE], self._units[Priority.BULK]
        if priority is Priority.BULK:
            return interactive + bulk
        return interactive + min(bulk, interactive // (BULK_PARTS - 1))

    def has_room(self, priority: Priority, items: int) -> bool:
        """Whether that many more items of this priority fit."""
        return self.waiting(priority) + items <= self.bounds.items_max

    def put(self, owner: J, sizes: Sequence[int], call: CallContext, now: float) -> None:
        """Queue items of these sizes, 1 or more, at the priority of `call`, which has room."""
        assert self.has_room(call.priority, len(sizes))
        assert min(sizes) >= 1
        until = min(call.deadline, now + self.bounds.wait_s_max)
        slot = BatchSlot(owner, call, next(self._numbers), now, until)
        priority = self._priorities[call.priority]
        at = bisect(priority, slot.urgency, key=lambda waiting: waiting.slot.urgency)
        priority[at:at] = [QueuedItem(slot, position, size) for position, size in enumerate(sizes)]
        self._units[call.priority] += sum(sizes)

    def due_at(self) -> float:
        """When to take the next batch: -inf once one is full, inf while the queue is empty."""
        if any(self._units[priority] >= self.bounds.cost_max_of(priority) for priority in Priority):
            return -math.inf
        waiting = chain.from_iterable(self._priorities.values())
        ends = (one.slot.lingers_until(self.bounds.linger_s) for one in waiting)
        return min(ends, default=math.inf)

    def take(self, now: float) -> Taken[J]:
        """Remove the next batch, and all items that are to be dropped."""
        dropped = self.drop(now)
        priority = self._next_priority()
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
        """Remove all items that expired or whose caller is gone."""
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
        """Remove all items, and return their owners."""
        waiting = chain.from_iterable(self._priorities.values())
        owners = dict.fromkeys(one.slot.owner for one in waiting)
        for priority in Priority:
            self._keep(priority, [])
        return list(owners)

    def _keep(self, priority: Priority, kept: list[QueuedItem[J]]) -> None:
        self._priorities[priority] = kept
        self._units[priority] = sum(one.size for one in kept)

    # ------------------------------------------------------------ fair share

    def _next_priority(self) -> Priority:
        """Bulk, once it is owed a whole batch or no interactive item waits."""
        if not self._priorities[Priority.BULK]:
            return Priority.INTERACTIVE
        owed_batch = self._share.owes(self.bounds.bulk_cost_max)
        return (
            Priority.BULK
            if owed_batch or not self._priorities[Priority.INTERACTIVE]
            else Priority.INTERACTIVE
        )

    def _account(self, priority: Priority, cost: int) -> None:
        """Bulk is owed a share only of what is spent while both priorities wait."""
        self._share.spend(priority, cost)
        if not self._priorities[Priority.BULK] or (
            priority is Priority.BULK and not self._priorities[Priority.INTERACTIVE]
        ):
            self._share.clear()


def sift(waiting: Iterable[QueuedItem[J]], now: float) -> tuple[list[QueuedItem[J]], Dropped[J]]:
    """The items still wanted at `now`, in order, and the dropped ones."""
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
    """The cost of a batch, padding included."""
    return max(one.size for one in batch) * len(batch)


def _most_urgent(queued: Sequence[QueuedItem[J]], cost_max: int) -> Sequence[QueuedItem[J]]:
    """The first items, up to WINDOW_BATCHES full batches."""
    units = accumulate(min(one.size, cost_max) for one in queued)
    return [
        one for one, upto in zip(queued, units, strict=True) if upto <= WINDOW_BATCHES * cost_max
    ]


def _alike(
    urgent: Sequence[QueuedItem[J]], cost_max: int, padding_free: float
) -> list[QueuedItem[J]]:
    """The first item and those nearest to it in size, while they fit; ties go by urgency."""
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
