"""Joining concurrent callers' work: everybody gets their own answers, and nobody waits for ever."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simsearch.encode.batching.batched_encoders import (
    SLICE_ITEMS,
    BatchedImageEncoder,
    BatchedTextEncoder,
)
from simsearch.encode.batching.batcher import RETRY_MS_MAX, Batcher, BatcherCounts
from simsearch.encode.batching.item_queue import Bounds
from simsearch.encode.encoder_protocol import Pixels
from simsearch.encode.image.picture import ImageLimits, Picture, open_picture
from simsearch.errors import (
    BadContent,
    DeadlinePassed,
    InternalFault,
    LimitExceeded,
    NotReady,
    Overloaded,
)
from simsearch.types import NO_CALL, CallContext, Priority, Space, Vectors

WAIT_S = 30
"""For what must happen; no test waits this long unless it fails."""


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Doubler:
    """Answers 2n to n, refuses negative numbers, and holds still while its gate is shut. With a
    clock, a batch takes a second for each item."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        self._clock = clock or Clock()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.busy.set()
        assert self.gate.wait(WAIT_S)
        self._clock.now += len(items)
        for item in items:
            if item < 0:
                raise BadContent(f"{item} is negative")
        return [2 * item for item in items]


@contextmanager
def _batcher(
    run: Doubler,
    cost_max: int = 100,
    items_max: int = 1000,
    bulk_cost_max: int = 100,
    wait_s_max: float = math.inf,
    linger_s: float = 0,
    clock: Clock | None = None,
) -> Iterator[Batcher[int, int]]:
    """Numbers are as large as they are; the clock stands still unless one is given."""
    batcher = Batcher[int, int](
        run,
        size=abs,
        bounds=Bounds(cost_max, bulk_cost_max, items_max, wait_s_max, linger_s),
        name="the doubler",
        clock=clock or Clock(),
    )
    yield batcher
    run.gate.set()
    batcher.close()


@contextmanager
def _held(run: Doubler, batcher: Batcher[int, int]) -> Iterator[None]:
    """The worker is busy with one item while the block runs, so that work queues up."""
    run.gate.clear()
    run.busy.clear()
    batcher.submit([0])
    assert run.busy.wait(WAIT_S)
    yield
    run.gate.set()


def _by_ten(run: object, name: str = "x") -> Batcher[int, int]:
    return Batcher[int, int](run, size=abs, bounds=Bounds(9, 9, 9, math.inf), name=name)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Asked:
    items: list[int]
    priority: Priority
    time_left: float

    def call(self, now: float) -> CallContext:
        return CallContext(self.priority, now + self.time_left)


asked = st.builds(
    Asked,
    st.lists(st.integers(-3, 30), max_size=6),
    st.sampled_from(Priority),
    st.sampled_from([20.0, 60.0, math.inf, math.inf]),
)


@given(st.lists(asked, max_size=12), st.integers(1, 60), st.sets(st.integers(0, 11), max_size=3))
@settings(deadline=None)
def test_every_caller_gets_its_own_answers_or_its_own_error(
    jobs: list[Asked], cost_max: int, cancelled: set[int]
) -> None:
    """Answers come in the caller's order; a bad item fails the caller that sent it and no other;
    who cancels is not run; a deadline is the only other reason for no answer; and no batch, with
    its padding, costs more than the budget unless it is one item."""
    clock = Clock()
    run = Doubler(clock)
    with _batcher(run, cost_max, bulk_cost_max=max(1, cost_max // 2), clock=clock) as batcher:
        with _held(run, batcher):
            futures = [batcher.submit(job.items, job.call(clock.now)) for job in jobs]
            gone = {n for n in cancelled if n < len(jobs) and futures[n].cancel()}
        for n, (job, future) in enumerate(zip(jobs, futures, strict=True)):
            if n in gone:
                assert future.cancelled()
                continue
            failure = future.exception(WAIT_S)
            if failure is None:
                assert future.result() == [2 * item for item in job.items]
                assert min(job.items, default=0) >= 0
            elif isinstance(failure, BadContent):
                assert str(failure) in [f"{item} is negative" for item in job.items if item < 0]
            else:
                assert isinstance(failure, DeadlinePassed)
                assert clock.now >= 1000 + job.time_left
    ran = Counter(item for batch in run.batches for item in batch if item > 0)
    asked_for = Counter(i for n, job in enumerate(jobs) if n not in gone for i in job.items)
    assert set(ran) <= set(asked_for), "who cancelled costs nothing"
    sizes = [[max(1, abs(item)) for item in batch] for batch in run.batches]
    assert all(batch == sorted(batch) for batch in sizes)
    assert all(len(batch) == 1 or max(batch) * len(batch) <= cost_max for batch in sizes)


def test_what_waits_goes_in_one_batch() -> None:
    """Callers that came while the worker was busy share the next batch."""
    run = Doubler()
    with _batcher(run) as batcher:
        with _held(run, batcher):
            futures = [batcher.submit([n]) for n in (3, 1, 2)]
        assert [f.result(WAIT_S) for f in futures] == [[6], [2], [4]]
    assert run.batches == [[0], [1, 2, 3]]


def test_a_list_beyond_the_budget_goes_in_several_batches() -> None:
    """The budget bounds a batch, not what one caller may send; too dear an item goes alone."""
    run = Doubler()
    with _batcher(run, cost_max=10) as batcher:
        with _held(run, batcher):
            future = batcher.submit([5, 5, 1, 50, 2])
        assert future.result(WAIT_S) == [10, 10, 2, 100, 4]
    assert run.batches[1:] == [[5, 5], [1, 2], [50]]


def test_interactive_work_goes_first_and_bulk_work_in_smaller_batches() -> None:
    """The priority and the deadline of the call decide, not who came first."""
    run = Doubler()
    with _batcher(run, cost_max=4, bulk_cost_max=2) as batcher:
        with _held(run, batcher):
            bulk = batcher.submit([1, 1, 1], CallContext(Priority.BULK))
            late = batcher.submit([2, 2], CallContext(deadline=3000))
            soon = batcher.submit([2, 2], CallContext(deadline=2000))
        wait([bulk, late, soon], WAIT_S)
        order = [f.result() for f in (soon, late, bulk)]
    assert order == [[4, 4], [4, 4], [2, 2, 2]]
    assert run.batches == [[0], [2, 2], [2, 2], [1, 1], [1]]


def test_the_earlier_deadline_goes_first() -> None:
    """By values: the batches are of one item each."""
    run = Doubler()
    with _batcher(run, cost_max=1) as batcher, _held(run, batcher):
        for item, deadline in [(7, math.inf), (5, 3000), (6, 2000)]:
            batcher.submit([item], CallContext(deadline=deadline))
    assert run.batches == [[0], [6], [5], [7]]


# ---------------------------------------------------------------- bounds


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    """The queue is bounded; what it holds is still answered."""
    run = Doubler()
    with _batcher(run, items_max=3) as batcher:
        with _held(run, batcher):
            kept = batcher.submit([1, 2])
            with pytest.raises(Overloaded, match="the doubler has 2 items waiting, 3 at most") as e:
                batcher.submit([3, 4])
            last = batcher.submit([5])
            assert batcher.submit([6, 7, 8], CallContext(Priority.BULK)), (
                "each priority has its own bound"
            )
        assert e.value.retry_after_ms >= 10
        assert (kept.result(WAIT_S), last.result(WAIT_S)) == ([2, 4], [10])
        with pytest.raises(LimitExceeded, match="4 items at once"):
            batcher.submit([1, 2, 3, 4])
        assert batcher.counts.refused == 2


def test_nobody_is_refused_for_the_sake_of_items_that_will_not_run() -> None:
    """What was cancelled or has expired makes room before a queue counts as full."""
    run, clock = Doubler(), Clock()
    with _batcher(run, items_max=3, clock=clock) as batcher:
        with _held(run, batcher):
            gone = batcher.submit([1, 1])
            late = batcher.submit([2], CallContext(deadline=clock.now + 1))
            gone.cancel()
            clock.now += 1
            comes = batcher.submit([3, 4, 5])
            assert isinstance(late.exception(WAIT_S), DeadlinePassed)
        assert comes.result(WAIT_S) == [6, 8, 10]


def test_how_long_one_waits_is_told_from_the_pace_of_late() -> None:
    """A second for each item, of one unit each: what runs and what waits before one comes."""
    clock = Clock()
    run = Doubler(clock)
    with _batcher(run, items_max=4, clock=clock) as batcher:
        assert batcher.estimated_wait_ms() == 0, "nothing is known yet"
        batcher.submit([1, 1]).result(WAIT_S)
        with _held(run, batcher):
            batcher.submit([1, 1])
            assert batcher.estimated_wait_ms() == pytest.approx(3000)
            batcher.submit([1, 1, 1], CallContext(Priority.BULK))
            assert batcher.estimated_wait_ms() == pytest.approx(3000)
            assert batcher.estimated_wait_ms(Priority.BULK) == pytest.approx(6000)
            with pytest.raises(Overloaded) as interactive:
                batcher.submit([1, 1, 1])
            with pytest.raises(Overloaded) as bulk:
                batcher.submit([1, 1], CallContext(Priority.BULK))
        assert interactive.value.retry_after_ms == 3000
        assert bulk.value.retry_after_ms == RETRY_MS_MAX


# ---------------------------------------------------------------- work nobody waits for


def test_a_cancelled_caller_costs_nothing() -> None:
    """Items whose caller has gone are dropped before they are run; who watches the future is
    told."""
    run = Doubler()
    with _batcher(run) as batcher:
        with _held(run, batcher):
            gone, stays = batcher.submit([7, 7, 7]), batcher.submit([1])
            assert gone.cancel()
        assert stays.result(WAIT_S) == [2]
        with pytest.raises(CancelledError):
            gone.result(WAIT_S)
        assert wait([gone], WAIT_S).done == {gone}
        assert (batcher.counts.cancelled, batcher.counts.items) == (3, 2)
    assert run.batches == [[0], [1]]


def test_a_long_list_can_be_cancelled_while_it_runs() -> None:
    """What no batch has taken yet is dropped."""
    run = Doubler()
    with _batcher(run, cost_max=1) as batcher:
        run.gate.clear()
        run.busy.clear()
        long = batcher.submit([5, 6, 7])
        assert run.busy.wait(WAIT_S)
        assert long.cancel()
        run.gate.set()
        assert batcher.submit([1]).result(WAIT_S) == [2]
    assert run.batches == [[5], [1]]


def test_a_call_that_was_given_up_costs_nothing() -> None:
    """Whoever holds its future is told; it may be another thread than the one that gave up."""
    run, wanted = Doubler(), threading.Event()
    wanted.set()
    with _batcher(run) as batcher:
        with _held(run, batcher):
            given_up = batcher.submit([7, 8], CallContext(is_wanted=wanted.is_set))
            wanted.clear()
        with pytest.raises(NotReady, match="given up before the doubler"):
            given_up.result(WAIT_S)
        with pytest.raises(NotReady, match="given up"):
            batcher.submit([9], CallContext(is_wanted=wanted.is_set))
        assert batcher.counts.cancelled == 3
    assert run.batches == [[0]]


def test_an_item_whose_deadline_has_passed_costs_nothing() -> None:
    """Its caller is told why, by name; who still has time is served."""
    run, clock = Doubler(), Clock()
    with _batcher(run, clock=clock) as batcher:
        with _held(run, batcher):
            late = batcher.submit([7, 8], CallContext(deadline=clock.now + 5))
            in_time = batcher.submit([1], CallContext(deadline=clock.now + 6))
            clock.now += 5
        with pytest.raises(DeadlinePassed, match="before the doubler came to it"):
            late.result(WAIT_S)
        assert in_time.result(WAIT_S) == [2]
        with pytest.raises(DeadlinePassed):
            batcher.submit([9], CallContext(deadline=clock.now))
        assert batcher.counts.expired == 3
    assert run.batches == [[0], [1]]


def test_waiting_too_long_is_an_overload_and_no_deadline() -> None:
    """Without a deadline of its own, a call is told that the server is slow."""
    run, clock = Doubler(), Clock()
    with _batcher(run, wait_s_max=5, clock=clock) as batcher:
        with _held(run, batcher):
            future = batcher.submit([7])
            clock.now += 5
        with pytest.raises(Overloaded, match="the doubler gave no answer in 5000 ms"):
            future.result(WAIT_S)
    assert run.batches == [[0]]


def test_asking_ends_with_the_deadline() -> None:
    """Also while the worker hangs; the item is dropped when it comes back."""
    run = Doubler()
    batcher = Batcher[int, int](run, size=abs, bounds=Bounds(9, 9, 9, WAIT_S))
    with _held(run, batcher):
        deadline = batcher._clock() + 0.02
        with pytest.raises(DeadlinePassed):
            batcher.run([7], CallContext(deadline=deadline))
        assert batcher._clock() >= deadline
    batcher.close()
    assert run.batches == [[0]]


def test_what_nobody_asks_for_any_more_is_not_run() -> None:
    """Whoever stops waiting cancels; by the batcher's clock there was still time."""
    run = Doubler()
    with _batcher(run, wait_s_max=0.02) as batcher:
        with _held(run, batcher), pytest.raises(Overloaded, match="no answer in 20 ms"):
            batcher.run([7])
        assert batcher.run([]) == []
    assert run.batches == [[0]]
    assert (batcher.counts.cancelled, batcher.counts.expired) == (1, 0)


def test_an_answer_may_be_a_timeout_of_the_models_own() -> None:
    """An error of `run` is not taken for waiting too long."""

    def run(items: Sequence[int]) -> list[int]:
        raise TimeoutError("the device hangs")

    batcher = _by_ten(run)
    with pytest.raises(TimeoutError, match="the device hangs"):
        batcher.run([1], CallContext(deadline=batcher._clock() + WAIT_S))
    batcher.close()


def test_items_of_a_failed_caller_are_dropped() -> None:
    """After one item of a list has failed, the rest of the list is not run; it was not
    cancelled, either."""
    run = Doubler()
    with _batcher(run, cost_max=1) as batcher:
        with _held(run, batcher):
            future = batcher.submit([-1, 40, 50])
        with pytest.raises(BadContent):
            future.result(WAIT_S)
        assert batcher.submit([3]).result(WAIT_S) == [6]
        assert batcher.counts.cancelled == 0
    assert run.batches == [[0], [-1], [3]]


# ---------------------------------------------------------------- bad items


@given(st.lists(st.booleans(), min_size=1, max_size=70))
@settings(max_examples=60, deadline=None)
def test_bad_items_fail_alone_and_are_found_in_few_runs(bad: list[bool]) -> None:
    """One bad item of n takes twice the logarithm of n more runs; any number of them takes that
    and a run for each item at most."""
    run = Doubler()
    with _batcher(run, cost_max=10**6, items_max=100) as batcher:
        with _held(run, batcher):
            futures = [batcher.submit([-n if b else n]) for n, b in enumerate(bad, 1)]
        for n, (b, future) in enumerate(zip(bad, futures, strict=True), 1):
            failure = future.exception(WAIT_S)
            assert isinstance(failure, BadContent) if b else future.result() == [2 * n]
        counts = batcher.counts
    runs, halvings = len(run.batches) - 1, math.ceil(math.log2(len(bad)))
    assert counts.batches == len(run.batches)
    assert counts.failed_batches == sum(any(n < 0 for n in batch) for batch in run.batches)
    assert counts.failed_batches >= sum(bad)
    if sum(bad) <= 1:
        assert runs <= 1 + 2 * halvings * sum(bad)
    else:
        assert runs <= 1 + 2 * (halvings + 1) + len(bad)


def test_a_failed_batch_is_tried_again_but_not_for_who_failed() -> None:
    """The second time, a caller whose item has failed costs nothing more."""
    run = Doubler()
    with _batcher(run) as batcher:
        with _held(run, batcher):
            bad, good = batcher.submit([-1, 4]), batcher.submit([3])
        assert good.result(WAIT_S) == [6]
        assert isinstance(bad.exception(WAIT_S), BadContent)
    assert run.batches == [[0], [-1, 3, 4], [-1], [3]]


def test_a_deadline_may_pass_between_two_tries() -> None:
    """Each try takes time: what is late by then is not run again."""
    clock = Clock()
    run = Doubler(clock)
    with _batcher(run, clock=clock) as batcher:
        with _held(run, batcher):
            bad = batcher.submit([-1])
            good = batcher.submit([2])
            late = batcher.submit([3, 4], CallContext(deadline=clock.now + 4))
        assert isinstance(late.exception(WAIT_S), DeadlinePassed)
        assert isinstance(bad.exception(WAIT_S), BadContent)
        assert good.result(WAIT_S) == [4]
        assert batcher.counts.expired == 2
    assert run.batches == [[0], [-1, 2, 3, 4], [-1, 2], [-1], [2]]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_the_worker_outlives_whatever_run_raises(error: BaseException) -> None:
    """Even an exception that ends threads is delivered to its caller, and the next is served."""

    def run(items: Sequence[int]) -> list[int]:
        if items[0] == 13:
            raise error
        return list(items)

    batcher = _by_ten(run)
    with pytest.raises(type(error)):
        batcher.submit([13]).result(WAIT_S)
    assert batcher.submit([1]).result(WAIT_S) == [1]
    batcher.close()


def test_a_wrong_number_of_answers_is_a_fault() -> None:
    """Answers that cannot be told apart are given to nobody."""
    batcher = _by_ten(lambda items: [0])
    assert batcher.submit([1]).result(WAIT_S) == [0]
    batcher.close()
    batcher = _by_ten(lambda items: [])
    with pytest.raises(InternalFault, match="x got 0 answers to 1 items"):
        batcher.submit([1, 2]).result(WAIT_S)
    batcher.close()


# ---------------------------------------------------------------- the worker


def test_nothing_asked_is_answered_at_once() -> None:
    """An empty list needs no worker."""
    run = Doubler()
    with _batcher(run) as batcher:
        assert batcher.submit([]).result(WAIT_S) == []
    assert run.batches == []


def test_lingering_gathers_a_batch_and_ends_when_it_is_full() -> None:
    """The clock stands still, so that only a full batch, or the end, can let them go."""
    run = Doubler()
    with _batcher(run, cost_max=4, linger_s=3600) as batcher:
        first = batcher.submit([2])
        second = batcher.submit([2])
        assert (first.result(WAIT_S), second.result(WAIT_S)) == ([4], [4])
        left = batcher.submit([1])
    assert left.result(0) == [2]
    assert run.batches == [[2, 2], [1]]


def test_lingering_ends_by_itself() -> None:
    """On a real clock, after 20 ms."""
    run = Doubler()
    batcher = Batcher[int, int](run, size=abs, bounds=Bounds(9, 9, 9, WAIT_S, linger_s=0.02))
    begun = batcher._clock()
    assert batcher.run([1]) == [2]
    assert batcher._clock() >= begun + 0.02
    batcher.close()


def test_close_finishes_what_waits_and_refuses_what_comes() -> None:
    """Nobody who was let in is sent away at the end."""
    run = Doubler()
    with _batcher(run, cost_max=1) as batcher:
        with _held(run, batcher):
            futures = [batcher.submit([n]) for n in (1, 2)]
            closing = threading.Thread(target=batcher.close)
            closing.start()
        closing.join(WAIT_S)
        assert [f.result(WAIT_S) for f in futures] == [[2], [4]]
        with pytest.raises(NotReady, match="the doubler is closed"):
            batcher.submit([3])


def test_abort_fails_what_waits_by_name() -> None:
    """What cannot be finished is refused as NotReady, not left waiting."""
    run = Doubler()
    with _batcher(run) as batcher:
        with _held(run, batcher):
            waiting, gone = batcher.submit([1]), batcher.submit([2])
            gone.cancel()
            aborting = threading.Thread(target=batcher.abort)
            aborting.start()
            with pytest.raises(NotReady, match="the doubler is closed"):
                waiting.result(WAIT_S)
        aborting.join(WAIT_S)
        assert not aborting.is_alive()


def test_abort_and_a_failing_batch_may_come_together() -> None:
    """A list of which one part waits and another part fails is failed once."""
    run = Doubler()
    with _batcher(run, cost_max=2) as batcher:
        run.gate.clear()
        run.busy.clear()
        future = batcher.submit([-1, 1, 1, 1])
        assert run.busy.wait(WAIT_S)
        aborting = threading.Thread(target=batcher.abort)
        aborting.start()
        with pytest.raises(NotReady):
            future.result(WAIT_S)
        run.gate.set()
        aborting.join(WAIT_S)
        assert not aborting.is_alive()


def test_counts() -> None:
    """A snapshot of what was done, and of what waits now."""
    clock = Clock()
    run = Doubler(clock)
    with _batcher(run, clock=clock) as batcher:
        with _held(run, batcher):
            batcher.submit([1, 2, 3, 4, 5])
            bulk = batcher.submit([7, 8], CallContext(Priority.BULK))
            before = batcher.counts
            assert (before.waiting_interactive, before.waiting_bulk) == (5, 2)
        bulk.result(WAIT_S)
        batcher.submit([9], CallContext(Priority.BULK)).result(WAIT_S)
        counts = batcher.counts
    assert before.batches == 0, "frozen"
    assert counts == BatcherCounts(
        batches=4,
        items=9,
        units=1 + 15 + 15 + 9,
        cost=1 + 25 + 16 + 9,
        run_s=9,
        batch_sizes=(2, 1, 1, *[0] * 9),
    )


def test_many_threads() -> None:
    """Under 32 threads nothing is lost, doubled or mixed up, and batches are fewer than calls."""
    run = Doubler()
    with _batcher(run, cost_max=10**9, bulk_cost_max=10**9, items_max=100_000) as batcher:

        def call(thread: int) -> list[Future[list[int]]]:
            priority = Priority(thread % 2)
            return [batcher.submit([thread, 100 * n], CallContext(priority)) for n in range(100)]

        with ThreadPoolExecutor(32) as pool:
            answered = list(pool.map(call, range(32)))
        for thread, futures in enumerate(answered):
            got = [f.result(WAIT_S) for f in futures]
            assert got == [[2 * thread, 200 * n] for n in range(100)]
    assert sum(map(len, run.batches)) == 6400
    assert len(run.batches) < 3200


# ---------------------------------------------------------------- encoders


class FakeEncoder:
    """A text's vector points at its length, an image's at its brightness. Refuses "bad"."""

    space = Space("fake", "0" * 64, "none", 4)
    precision = "float32"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        assert self.gate.wait(WAIT_S)
        if "bad" in texts:
            raise BadContent("bad")
        return self._at([len(text) for text in texts])

    def prepare(self, picture: Picture) -> Pixels:
        return np.full((2, 2, 3), picture.size[0], np.uint8)

    def encode_images(self, pixels: Sequence[Pixels], call: CallContext = NO_CALL) -> Vectors:
        return self._at([int(p[0, 0, 0]) for p in pixels])

    def _at(self, axes: Sequence[int]) -> Vectors:
        return np.eye(4, dtype=np.float32)[[axis % 4 for axis in axes]]


@given(st.lists(st.text("ab", max_size=5), max_size=8))
@settings(deadline=None)
def test_batched_texts_are_those_of_the_encoder(texts: list[str]) -> None:
    """Behind a batcher an encoder gives the same space, precision and vectors."""
    fake = FakeEncoder()
    batched = BatchedTextEncoder(fake)
    assert (batched.space, batched.precision) == (fake.space, fake.precision)
    vectors = batched.encode_texts(texts)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == fake.encode_texts(texts).tolist()
    batched.close()


def test_a_long_list_goes_in_slices() -> None:
    """However many windows one call has, it is neither refused nor reordered."""
    batched = BatchedTextEncoder(FakeEncoder(), queue_items_max=SLICE_ITEMS)
    texts = ["a" * (n % 7) for n in range(3 * SLICE_ITEMS + 5)]
    assert batched.encode_texts(texts).argmax(axis=1).tolist() == [
        n % 7 % 4 for n in range(len(texts))
    ]
    assert batched.counts.items == len(texts)
    batched.close()


def test_batched_images_are_those_of_the_encoder() -> None:
    """Images go through a batcher as texts do."""
    fake = FakeEncoder()
    batched = BatchedImageEncoder(fake)
    pixels = [np.full((2, 2, 3), n, np.uint8) for n in (3, 1, 2)]
    assert batched.encode_images(pixels).tolist() == fake.encode_images(pixels).tolist()
    assert batched.encode_images([]).shape == (0, 4)
    with BytesIO() as file:
        Image.new("RGB", (70, 50)).save(file, "PNG")
        picture = open_picture(file.getvalue(), ImageLimits())
    assert batched.prepare(picture).tolist() == fake.prepare(picture).tolist()
    batched.close()
    with pytest.raises(NotReady, match="the image encoder fake is closed"):
        batched.encode_images(pixels)


def test_a_bad_text_fails_its_caller_only() -> None:
    """Callers who share a batch do not share an error."""
    fake = FakeEncoder()
    batched = BatchedTextEncoder(fake)
    fake.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(batched.encode_texts, [t]) for t in ("a", "bad", "aaa", "bad", "aa")]
        fake.gate.set()
    assert [type(c.exception()).__name__ for c in calls] == [
        "NoneType", "BadContent", "NoneType", "BadContent", "NoneType",
    ]  # fmt: skip
    batched.close()


def test_waiting_has_a_bound() -> None:
    """An encoder that hangs refuses its callers by name instead of hanging them."""
    fake = FakeEncoder()
    batched = BatchedTextEncoder(fake, wait_ms_max=1)
    fake.gate.clear()
    with pytest.raises(Overloaded, match="fake gave no answer in 1 ms"):
        batched.encode_texts(["a"])
    fake.gate.set()
    batched.close()


def test_long_texts_do_not_pad_many_short_ones() -> None:
    """What one batch may hold in padding is a setting of texts, in tokens."""
    texts = ["aaaa"] * 4 + ["a" * 396]
    batches = []
    for padding_tokens_free in (391, 392):
        batched = BatchedTextEncoder(FakeEncoder(), padding_tokens_free=padding_tokens_free)
        batched.encode_texts(texts)
        batches.append(batched.counts.batches)
        batched.close()
    assert batches == [2, 1]


@pytest.mark.parametrize("device", ["", "cpu", "cpu:0", "cuda", "cuda:1"])
def test_on_a_gpu_texts_of_all_lengths_go_together(device: str) -> None:
    """Padding is next to nothing there; an encoder that names no device computes on a CPU."""
    encoder = FakeEncoder()
    if device:
        encoder.device = device  # type: ignore[attr-defined]
    batched = BatchedTextEncoder(encoder)
    batched.encode_texts(["aaaa"] * 4 + ["a" * 700])
    assert batched.counts.batches == (1 if device.startswith("cuda") else 2)
    batched.close()


@pytest.mark.parametrize("priority", Priority)
def test_bulk_goes_in_smaller_batches(priority: Priority) -> None:
    """A quarter of the budget: whoever comes meanwhile waits less."""
    batched = BatchedImageEncoder(FakeEncoder(), pixels_max=4 * 8)
    batched.encode_images([np.zeros((2, 2, 3), np.uint8)] * 16, CallContext(priority))
    assert batched.counts.batches == (2 if priority is Priority.INTERACTIVE else 8)
    batched.close()


def test_encoders_can_linger() -> None:
    """In milliseconds, and only if told to."""
    batched = BatchedTextEncoder(FakeEncoder(), linger_ms=20)
    begun = time.monotonic()
    batched.encode_texts(["a"])
    assert 0.02 <= time.monotonic() - begun < 10
    batched.close()


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_call_that_nobody_waits_for_is_not_encoded(kind: str) -> None:
    """The call goes from the encoder to the queue: deadline, priority and whether it is wanted."""
    texts, images = BatchedTextEncoder(FakeEncoder()), BatchedImageEncoder(FakeEncoder())
    pixels = [np.zeros((2, 2, 3), np.uint8)]
    for call, refusal in [
        (CallContext(deadline=0), DeadlinePassed),
        (CallContext(is_wanted=lambda: False), NotReady),
    ]:
        with pytest.raises(refusal):
            texts.encode_texts(["a"], call) if kind == "text" else images.encode_images(
                pixels, call
            )
    batched = texts if kind == "text" else images
    assert (batched.counts.expired, batched.counts.cancelled, batched.counts.items) == (1, 1, 0)
    assert batched.estimated_wait_ms(Priority.BULK) == 0
    texts.close()
    images.close()
