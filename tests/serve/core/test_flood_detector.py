"""What is a flood of hits and what is not, on a clock of its own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.serve.core.flood_detector import LEARN_S, USUAL_S, WINDOW_S, Flood, FloodDetector

FLOOR, TIMES = 600, 20.0
KEY = 7


class World:
    """A detector and its clock; every look is a second after the one before."""

    def __init__(self, floor: int = FLOOR, times: float = TIMES) -> None:
        self.now = 1_000.0
        self.detector = FloodDetector(floor, times, lambda: self.now)

    def look(self, hits: float = 0, step_s: float = 1.0) -> list[Flood]:
        self.now += step_s
        return self.detector.update({KEY: round(hits)} if hits else {})

    def steady(self, per_minute: float, minutes: float) -> list[Flood]:
        """In looks of six seconds: a tenth of a minute's hits each."""
        return [f for _ in range(round(minutes * 10)) for f in self.look(per_minute / 10, 6.0)]

    def learnt(self, per_minute: float = 0.0) -> World:
        assert self.steady(per_minute, (LEARN_S + 2 * WINDOW_S) / 60) == []
        return self


def test_far_more_than_usual_is_a_flood() -> None:
    """At the first look at which both bounds are passed; with the two numbers."""
    world = World().learnt(per_minute=20)
    assert world.look(step_s=WINDOW_S) == []
    floods = [world.look(20) for _ in range(31)]
    assert floods[:30] == [[]] * 30  # 600 is not over 600
    [flood] = floods[30]
    assert (flood.key, flood.near_hits) == (KEY, 620)
    assert flood.usual == pytest.approx(20, rel=0.1)


def test_a_flood_is_told_in_numbers() -> None:
    assert Flood(1, 1_240, 12.3).description == "1,240 near hits in a minute, 12 in a usual one"


def test_an_entry_of_which_nothing_was_usual_floods_at_the_floor() -> None:
    """As one that was banned a minute ago and matches what everybody sends."""
    world = World().learnt()
    assert world.look(600) == []
    assert len(world.look(1)) == 1


@given(per_minute=st.integers(1, 10**6), minutes=st.integers(12, 90))
@settings(max_examples=25, deadline=None)
def test_what_was_always_so_is_no_flood(per_minute: int, minutes: int) -> None:
    """However much it is: from the start on, after it too, and where it trembles."""
    assert World().steady(per_minute, minutes) == []


@given(start=st.integers(10, 2_000), hours_to_double=st.floats(1.0, 12.0))
@settings(max_examples=10, deadline=None)
def test_a_slow_ramp_is_no_flood(start: int, hours_to_double: float) -> None:
    """What doubles in an hour at the fastest, over a day and a half."""
    world = World()
    for minute in range(36 * 60):
        rate = start * 2 ** (minute / 60 / hours_to_double)
        assert world.look(rate / 2, 30.0) == []
        assert world.look(rate / 2, 30.0) == []


def test_nothing_is_a_flood_before_it_is_known_what_is_usual() -> None:
    """A server that was restarted under load quarantines nothing; afterwards it knows the load."""
    world = World()
    assert world.steady(50_000, 30) == []
    assert world.steady(50_000 * 15, 1) == []
    assert world.steady(50_000 * 40, 1) != []  # the minute before is usual, too


@given(hits=st.lists(st.integers(0, 40), min_size=1, max_size=200))
@settings(max_examples=100, deadline=None)
def test_what_stays_below_the_floor_is_no_flood(hits: list[int]) -> None:
    """No sixty seconds of it have more than the floor, whatever is usual."""
    world = World(floor=max(sum(hits[n : n + 60]) for n in range(len(hits)))).learnt()
    assert [flood for count in hits for flood in world.look(count)] == []


@given(hits=st.lists(st.integers(0, 60), min_size=70, max_size=300), floor=st.integers(1, 900))
@settings(max_examples=100, deadline=None)
def test_floods_are_those_of_a_plain_count(hits: list[int], floor: int) -> None:
    """Against every hit remembered with its time."""
    world = World(floor, times=3.0).learnt()
    begin, told = world.now, []
    for second, count in enumerate(hits, 1):
        now = begin + second
        told.append((now, count))
        window = sum(n for at, n in told if at > now - WINDOW_S)
        older = [(at + WINDOW_S, n) for at, n in told if at <= now - WINDOW_S]
        left = sum(n * math.exp(-(now - at) / USUAL_S) for at, n in older)
        observed = now - 1_000.0 - WINDOW_S
        usual = 60 * left / (USUAL_S * (1 - math.exp(-observed / USUAL_S)))
        expected = bool(count) and window > max(floor, 3.0 * usual)
        assert [f.near_hits for f in world.look(count)] == ([window] if expected else [])


@given(
    jumps=st.lists(st.floats(-(10.0**7), 10.0**7), min_size=1, max_size=20),
    per_second=st.integers(1, 1_000),
)
@settings(max_examples=50, deadline=None)
def test_a_clock_that_jumps_makes_no_flood(jumps: list[float], per_second: int) -> None:
    """Back or forth, with as many hits as ever at each look."""
    world = World().learnt(per_minute=60 * per_second)
    for jump in jumps:
        world.now += jump
        for _ in range(5):
            assert world.look(per_second) == []


def test_what_came_while_nobody_looked_is_spread_over_that_time() -> None:
    """Ten minutes' hits at once, from a thread that was held up, are ten usual minutes."""
    world = World(times=2.0).learnt(per_minute=1_000)
    assert world.look(10_000, 600.0) == []
    assert world.look(10_000, 60.0) != []


def test_a_flood_that_was_dealt_with_is_neither_usual_nor_told_again() -> None:
    world = World().learnt(per_minute=12)
    assert len(world.look(1_240)) == 1
    world.detector.forget_minute(KEY)
    assert world.look(500) == []
    assert world.detector.usual(KEY) < 13
    assert len(world.look(700)) == 1


def test_entries_that_are_hit_no_more_are_forgotten() -> None:
    world = World()
    for key in range(100):
        world.now += 1
        world.detector.update({key: 1})
    assert world.detector.entries == 100
    for _ in range(24 * 60):
        world.look(step_s=60.0)
    assert world.detector.entries == 0
