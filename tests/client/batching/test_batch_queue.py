"""The core of auto-batching alone: nothing lost, nothing twice, every bound held."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.client.batching.batch_queue import AutoBatch, BatchQueue, QueuedMatch
from simsearch.errors import Overloaded

BOUNDS = st.builds(
    AutoBatch,
    items_max=st.integers(1, 4),
    bytes_max=st.integers(1, 30),
    in_flight_max=st.integers(1, 3),
    waiting_max=st.integers(1, 8),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.sampled_from([b"a", b"b"]), st.integers(0, 20)),
        st.tuples(st.just("leave"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("drop"), st.integers(0, 9), st.just(0)),
    ),
    max_size=60,
)


class World:
    """Drives a gathering as the clients do, beside lists that are easily believed."""

    def __init__(self, bounds: AutoBatch) -> None:
        self.bounds = bounds
        self.gathering = BatchQueue[QueuedMatch](bounds)
        self.waiting: list[QueuedMatch] = []
        self.places: list[list[QueuedMatch]] = []

    def call(self, kind: bytes, size_bytes: int) -> None:
        item = QueuedMatch(kind, size_bytes, items_max=3)
        if self.gathering.enter():
            assert not self.waiting
            self.places.append([item])
        elif len(self.waiting) == self.bounds.waiting_max:
            with pytest.raises(Overloaded, match="wait in this client"):
                self.gathering.add(item)
        else:
            self.gathering.add(item)
            self.waiting.append(item)

    def leave(self, which: int) -> None:
        if self.places:
            self.places.pop(which % len(self.places))
            self.gathering.leave()
            self.fill()

    def drop(self, which: int) -> None:
        if self.waiting:
            item = self.waiting.pop(which % len(self.waiting))
            assert self.gathering.drop(item)
            assert not self.gathering.drop(item)

    def fill(self) -> None:
        """What came free is taken at once, as in the clients."""
        while batch := self.gathering.take():
            self.check(batch)
            self.places.append(batch)
            self.waiting = [item for item in self.waiting if item not in batch]

    def check(self, batch: list[QueuedMatch]) -> None:
        assert len({item.kind for item in batch}) == 1
        assert len(batch) <= min(self.bounds.items_max, 3)
        assert len(batch) == 1 or sum(i.size_bytes for i in batch) <= self.bounds.bytes_max
        same = [item for item in self.waiting if item.kind == batch[0].kind]
        assert batch == same[: len(batch)]


@given(BOUNDS, STEPS)
def test_nothing_is_lost_or_sent_twice_and_every_bound_holds(
    bounds: AutoBatch, steps: list[tuple[str, bytes | int, int]]
) -> None:
    """Whoever calls, leaves and gives up in whatever order: batches are of one kind, in the order
    of their coming, within the bounds; places are never idle while something waits."""
    world = World(bounds)
    for what, a, b in steps:
        if isinstance(a, bytes):
            world.call(a, b)
        else:
            getattr(world, what)(a)
        assert len(world.places) <= bounds.in_flight_max
        assert len(world.gathering) == len(world.waiting) <= bounds.waiting_max
        assert not world.waiting or len(world.places) == bounds.in_flight_max
    while world.places:
        world.leave(0)
    assert not world.waiting
    assert world.gathering.enter()


def test_a_batch_is_as_large_as_the_bounds_allow() -> None:
    """Greedy: what waited and fits goes now."""
    world = World(AutoBatch(items_max=3, bytes_max=10, in_flight_max=1))
    for size in (1, 4, 4, 2, 1, 1, 1):
        world.call(b"a", size)
    world.leave(0)
    assert [item.size_bytes for item in world.places[0]] == [4, 4, 2]


def test_kinds_take_turns() -> None:
    """Many calls of one kind do not keep the other waiting for all of them."""
    world = World(AutoBatch(items_max=2, in_flight_max=1))
    for kind in (b"a", b"a", b"a", b"a", b"a", b"b"):
        world.call(kind, 1)
    kinds = []
    while world.waiting:
        world.leave(0)
        kinds.append(world.places[0][0].kind)
    assert kinds == [b"a", b"b", b"a"]


def test_nobody_overtakes_those_that_wait() -> None:
    """A place that came free is theirs, also before anybody has taken it for them."""
    gathering = BatchQueue[QueuedMatch](AutoBatch(in_flight_max=1))
    assert gathering.enter()
    gathering.add(QueuedMatch(b"a", 1, 1))
    gathering.leave()
    assert not gathering.enter()
    assert len(gathering.take()) == 1
