"""Batch queue: which calls go to the server together. Pure: no threads, clocks or network.

Greedy and without a timer. While there is a free place a call goes out by itself, at once; while
all places are taken, calls gather by their options, and a place that comes free takes all of one
kind that waited, up to a batch. So a lone caller waits for nobody, and under load batches grow by
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from simsearch.errors import Overloaded


@dataclass(frozen=True)
class AutoBatch:
    """The bounds of what gathers. `in_flight_max` calls and batches are under way at once, and
    `waiting_max` contents wait for them at most."""

    items_max: int = 64
    bytes_max: int = 4 << 20
    in_flight_max: int = 2
    waiting_max: int = 10_000


@dataclass(eq=False)
class QueuedMatch:
    """One caller's content. Those with equal `kind` may go together, `items_max` at most."""

    kind: bytes
    size_bytes: int
    items_max: int


W = TypeVar("W", bound=QueuedMatch)


class BatchQueue(Generic[W]):
    """Not safe between threads: whoever shares it brings a lock."""

    def __init__(self, bounds: AutoBatch) -> None:
        self._bounds = bounds
        self._in_flight = 0
        self._waiting = 0
        # In the order of their turns; the dict of a kind is its queue, and takes leavers anywhere.
        self._queues: dict[bytes, dict[W, None]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    @property
    def has_work(self) -> bool:
        """Whether `take` would give a batch now."""
        return bool(self._queues) and self._in_flight < self._bounds.in_flight_max

    def enter(self) -> bool:
        """Whether a call may go out by itself now; it then holds a place until `leave`."""
        if self._waiting or self._in_flight >= self._bounds.in_flight_max:
            return False
        self._in_flight += 1
        return True

    def add(self, item: W) -> None:
        """Let it wait for company. Raises Overloaded where too many do."""
        if self._waiting >= self._bounds.waiting_max:
            raise Overloaded(
                f"{self._waiting} contents wait in this client to be sent: ask fewer at once, "
                "or give the server more machines"
            )
        self._queues.setdefault(item.kind, {})[item] = None
        self._waiting += 1

    def drop(self, item: W) -> bool:
        """Its caller has left. False where it does not wait any more."""
        queue = self._queues.get(item.kind, {})
        if item not in queue:
            return False
        del queue[item]
        self._waiting -= 1
        if not queue:
            del self._queues[item.kind]
        return True

    def take(self) -> list[W]:
        """The next batch, longest-waiting first, which holds a place until `leave`; empty while
        there is no place or nothing waits. Kinds take turns."""
        if not self.has_work:
            return []
        kind = next(iter(self._queues))
        queue = self._queues.pop(kind)
        batch = self._cut(queue)
        if queue:
            self._queues[kind] = queue
        self._waiting -= len(batch)
        self._in_flight += 1
        return batch

    def leave(self) -> None:
        """What held a place has been answered."""
        self._in_flight -= 1

    def clear(self) -> list[W]:
        """All that wait, which now wait no more."""
        waiting = [item for queue in self._queues.values() for item in queue]
        self._queues.clear()
        self._waiting = 0
        return waiting

    def _cut(self, queue: dict[W, None]) -> list[W]:
        """Up to the bounds, from the front; one that is larger than a batch goes alone."""
        batch: list[W] = []
        size_bytes = 0
        for item in queue:
            size_bytes += item.size_bytes
            full = len(batch) >= min(self._bounds.items_max, item.items_max)
            if batch and (full or size_bytes > self._bounds.bytes_max):
                break
            batch.append(item)
        for item in batch:
            del queue[item]
        return batch
