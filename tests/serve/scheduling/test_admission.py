"""The limiter, on a clock that the tests hold: what it lets in, what it learns, what it says."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simsearch.serve.scheduling.admission import (
    BULK_PART,
    RETRY_MS_MAX,
    RETRY_MS_MIN,
    Bounds,
    Cause,
    Demand,
    Limiter,
    Permit,
    Rejection,
    ServiceTime,
)
from simsearch.types import Priority
from simsearch.wire.request_weight import Weight

HASH = Weight(items=1, nbytes=40, ready=1, ready_bytes=40)
TEXT = Weight(items=1, nbytes=200, texts=1, text_bytes=200)
IMAGE = Weight(items=1, nbytes=100_000, images=1, image_bytes=100_000)
BATCH = Weight(items=64, nbytes=64 * 800, ready=64, ready_bytes=64 * 800)
FAR = 1e9

weights = st.builds(
    lambda images, texts, ready: Weight(
        items=images + texts + ready,
        nbytes=images * 50_000 + texts * 300 + ready * 800,
        images=images,
        image_bytes=images * 50_000,
        texts=texts,
        text_bytes=texts * 300,
        ready=ready,
        ready_bytes=ready * 800,
    ),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 20),
)


def limiter(**bounds: float) -> Limiter:
    """Of one worker, with no jitter."""
    return Limiter(Bounds(**({"workers": 1} | bounds)), jitter=lambda: 0.0)  # type: ignore[arg-type]


def admitted(made: Limiter, demand: Demand, now: float = 0.0) -> Permit:
    outcome = made.admit(demand, now)
    assert isinstance(outcome, Permit), outcome
    return outcome


def refused(made: Limiter, demand: Demand, now: float = 0.0) -> Rejection:
    outcome = made.admit(demand, now)
    assert isinstance(outcome, Rejection), outcome
    return outcome


def taught(made: Limiter, weight: Weight, cost_s: float) -> Limiter:
    """After many calls of this weight that took so long."""
    for _ in range(200):
        made.give_back(admitted(made, Demand(weight, deadline=FAR)), spent_s=cost_s)
    return made


def filled(made: Limiter, demand: Demand, now: float = 0.0) -> list[Permit]:
    """As many as it lets in."""
    tickets = []
    while made.check(demand, now) is None:
        tickets.append(admitted(made, demand, now))
        assert len(tickets) < 100_000
    return tickets


# ---------------------------------------------------------------- what is let in


def test_the_queue_is_as_long_as_it_takes() -> None:
    """The bound is time: of cheap calls many wait, of dear ones few."""
    for cost_s, expected in ((0.01, 51), (0.1, 6)):
        made = taught(limiter(queue_time_max_s=0.5), IMAGE, cost_s)
        assert len(filled(made, Demand(IMAGE, deadline=FAR))) == pytest.approx(expected, abs=1)
        assert refused(made, Demand(IMAGE, deadline=FAR)).cause is Cause.QUEUE


def test_workers_share_the_queue() -> None:
    """Twice the workers, twice the calls."""
    counts = [
        len(filled(taught(limiter(workers=n), TEXT, 0.05), Demand(TEXT, deadline=FAR)))
        for n in (1, 2, 4)
    ]
    assert counts == pytest.approx([11, 21, 41], abs=2)


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    """Rather than served late, although the queue has room; with time enough it is let in."""
    made = taught(limiter(queue_time_max_s=5), IMAGE, 0.1)
    for _ in range(10):
        admitted(made, Demand(IMAGE, deadline=FAR))
    refusal = refused(made, Demand(IMAGE, deadline=1.05), now=0.0)
    assert refusal.cause is Cause.DEADLINE
    assert refusal.wait_s == pytest.approx(1.0, rel=0.05)
    admitted(made, Demand(IMAGE, deadline=1.2), now=0.0)
    assert refused(made, Demand(IMAGE, deadline=4.9), now=5.0).cause is Cause.DEADLINE


def test_bulk_is_refused_while_others_are_let_in() -> None:
    """It may fill half of the queue, and waits behind everybody; uploads do not wait behind it."""
    made = taught(limiter(queue_time_max_s=0.5), IMAGE, 0.05)
    bulk, upload = Demand(IMAGE, Priority.BULK, FAR), Demand(IMAGE, Priority.INTERACTIVE, FAR)
    assert len(filled(made, bulk)) == pytest.approx(6, abs=1)
    assert made.wait_s(Priority.INTERACTIVE) == 0
    assert len(filled(made, upload)) == pytest.approx(10, abs=1)
    assert refused(made, bulk).cause is Cause.QUEUE


@pytest.mark.parametrize("bound", [{"items_max": 128}, {"bytes_max": 2 * BATCH.nbytes}])
def test_items_and_bytes_in_flight_are_bounded(bound: dict[str, float]) -> None:
    """Whatever they would cost; bulk leaves half of it to others."""
    made = taught(limiter(**bound), BATCH, 1e-6)
    first = admitted(made, Demand(BATCH, Priority.BULK, FAR))
    assert refused(made, Demand(BATCH, Priority.BULK, FAR)).cause is Cause.SPACE
    admitted(made, Demand(BATCH, Priority.INTERACTIVE, FAR))
    assert refused(made, Demand(HASH, Priority.INTERACTIVE, FAR)).cause is Cause.SPACE
    made.give_back(first)
    admitted(made, Demand(HASH, Priority.INTERACTIVE, FAR))


def test_a_draining_server_lets_nobody_in() -> None:
    """Not even who would find it idle; tickets are still taken back."""
    made = limiter()
    ticket = admitted(made, Demand(HASH, deadline=FAR))
    made.drain()
    assert refused(made, Demand(HASH, deadline=FAR)).cause is Cause.DRAINING
    made.give_back(ticket, 0.1)
    assert made.counts.in_flight == 0


def test_an_idle_lane_takes_one_however_wrong_the_estimate() -> None:
    """A wrong estimate is corrected by work: after a disk stalled for a minute, the server does
    not refuse everything for ever."""
    made = taught(limiter(), TEXT, 60.0)
    demand = Demand(TEXT, deadline=5.0)
    assert made.wait_s(Priority.BULK) == 0
    for _ in range(60):
        made.give_back(admitted(made, demand), spent_s=0.001)
    assert len(filled(made, demand)) > 100


def test_after_a_burst_everybody_is_let_in_again() -> None:
    """Nothing of it stays: no debt, no rounding."""
    made = taught(limiter(), IMAGE, 0.05)
    for priority in Priority:
        for ticket in filled(made, Demand(IMAGE, priority, FAR)):
            made.give_back(ticket)
    for _ in range(500):
        refused(made, Demand(IMAGE, deadline=-1.0))
    assert (made.wait_s(Priority.BULK), made.wait_s(Priority.INTERACTIVE)) == (0, 0)
    admitted(made, Demand(IMAGE, Priority.BULK, FAR))


# ---------------------------------------------------------------- when to come back


def test_the_hint_is_when_there_will_be_room() -> None:
    """For the first that is refused the time the queue is too long by; each after it later."""
    made = taught(limiter(queue_time_max_s=0.5), IMAGE, 0.1)
    filled(made, Demand(IMAGE, deadline=FAR))
    hints = [refused(made, Demand(IMAGE, deadline=FAR)).retry_after_ms for _ in range(20)]
    assert hints[0] == pytest.approx(100, abs=60)
    assert hints == sorted(hints)
    assert hints[10] - hints[0] == pytest.approx(1_000, rel=0.1)
    later = refused(made, Demand(IMAGE, deadline=FAR), now=2.0).retry_after_ms
    assert later == pytest.approx(hints[0], abs=5)


def test_hints_are_spread_and_bounded() -> None:
    """Those who were refused together do not come back together."""
    jitters = itertools.cycle([0.0, 0.99])
    made = taught(Limiter(Bounds(1), jitter=lambda: next(jitters)), IMAGE, 0.4)
    filled(made, Demand(IMAGE, deadline=FAR))
    hints = [refused(made, Demand(IMAGE, deadline=FAR)).retry_after_ms for _ in range(200)]
    assert min(hints) >= RETRY_MS_MIN
    assert max(hints) == RETRY_MS_MAX
    early, late = (made.check(Demand(IMAGE, deadline=FAR), 3.0) for _ in range(2))
    assert early is not None
    assert late is not None
    ratio = late.retry_after_ms / early.retry_after_ms
    assert max(ratio, 1 / ratio) == pytest.approx(1.25, abs=0.05)


# ---------------------------------------------------------------- what is learnt


@given(st.lists(weights, min_size=1, max_size=6), st.lists(st.floats(0.2, 5), min_size=4))
@settings(max_examples=60, deadline=None)
def test_the_estimate_converges(kinds: list[Weight], truth: list[float]) -> None:
    """Where calls have true costs per kind, estimates come to them, and never away from them."""
    service, real = ServiceTime(), ServiceTime()
    real._factors = truth[:4]
    for _ in range(600):
        for weight in kinds:
            before = math.dist(service._factors, real._factors)
            service.learn(weight, real.of(weight))
            assert math.dist(service._factors, real._factors) <= before + 1e-9
    for weight in kinds:
        assert service.of(weight) == pytest.approx(real.of(weight), rel=0.2)


def test_kinds_are_told_apart() -> None:
    """Slow images do not make hashes look slow."""
    service = ServiceTime()
    for _ in range(300):
        service.learn(IMAGE, 0.2)
        service.learn(HASH, 0.0005)
    assert service.of(IMAGE) == pytest.approx(0.2, rel=0.05)
    assert service.of(HASH) == pytest.approx(0.0005, rel=0.05)


def test_one_stall_is_no_rule() -> None:
    """A single call that took a minute moves the estimate by a bounded factor."""
    service = ServiceTime()
    for _ in range(100):
        service.learn(TEXT, 0.01)
    service.learn(TEXT, 60.0)
    assert service.of(TEXT) < 0.03


def test_calls_that_did_not_end_teach_nothing() -> None:
    """A caller who gave up after 10 s says nothing about what the work costs."""
    made = taught(limiter(), TEXT, 0.01)
    before = admitted(made, Demand(TEXT, deadline=FAR))
    made.give_back(before)
    assert admitted(made, Demand(TEXT, deadline=FAR)).cost_s == before.cost_s


# ---------------------------------------------------------------- any order of events


class LimiterStory(RuleBasedStateMachine):
    """Calls of all kinds come, end, crash and are given up, in any order."""

    @initialize(workers=st.integers(1, 4), queue_s=st.floats(0.05, 1), items=st.integers(64, 300))
    def begin(self, workers: int, queue_s: float, items: int) -> None:
        self.bounds = Bounds(workers, queue_s, items_max=items, bytes_max=10_000_000)
        self.made = Limiter(self.bounds)
        self.tickets: list[Permit] = []
        self.now = 0.0
        self.refused = 0

    @rule(weight=weights, priority=st.sampled_from(Priority), in_s=st.floats(-0.1, 3))
    def comes(self, weight: Weight, priority: Priority, in_s: float) -> None:
        demand = Demand(weight, priority, self.now + in_s)
        alone = not any(t.demand.priority is priority for t in self.tickets)
        wait_s = self.made.wait_s(priority)
        outcome = self.made.admit(demand, self.now)
        if isinstance(outcome, Rejection):
            self.refused += 1
            assert RETRY_MS_MIN <= outcome.retry_after_ms <= RETRY_MS_MAX
            return
        self.tickets.append(outcome)
        part = BULK_PART if priority is Priority.BULK else 1
        assert wait_s <= in_s
        assert alone or wait_s <= part * self.bounds.queue_time_max_s
        assert alone or wait_s + outcome.cost_s <= in_s
        assert self.items() <= part * self.bounds.items_max

    @rule(data=st.data(), spent_s=st.none() | st.floats(0, 5))
    def ends(self, data: st.DataObject, spent_s: float | None) -> None:
        if self.tickets:
            ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
            self.made.give_back(ticket, spent_s)

    @rule(passed_s=st.floats(0, 2))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s

    def items(self) -> int:
        return sum(t.demand.weight.items for t in self.tickets)

    @invariant()
    def the_books_are_right(self) -> None:
        counts = self.made.counts
        assert counts.in_flight == len(self.tickets)
        assert counts.items_in_flight == self.items()
        assert counts.bytes_in_flight == sum(t.demand.weight.nbytes for t in self.tickets)
        cost_s = sum(t.cost_s for t in self.tickets)
        assert counts.waiting_s == pytest.approx(cost_s / self.bounds.workers, abs=1e-9)
        assert sum(counts.refused.values()) == self.refused

    def teardown(self) -> None:
        """When all have ended, somebody new is let in."""
        for ticket in getattr(self, "tickets", ()):
            self.made.give_back(ticket)
        if hasattr(self, "made"):
            admitted(self.made, Demand(HASH, Priority.BULK, self.now + 0.001), self.now)


TestLimiterStory = LimiterStory.TestCase
TestLimiterStory.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
