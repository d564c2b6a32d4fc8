"""Joining concurrent callers' work: everybody gets their own answers, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from simsearch.encode.batched import SLICE_ITEMS, BatchedImageEncoder, BatchedTextEncoder
from simsearch.encode.batcher import Batcher
from simsearch.encode.image import ImageLimits, Picture, open_picture
from simsearch.encode.protocol import Pixels
from simsearch.errors import BadContent, InternalFault, LimitExceeded, NotReady, Overloaded
from simsearch.types import Space, Vectors

WAIT_S = 30
"""For what must happen; no test waits this long unless it fails."""


class Doubler:
    """Answers 2n to n, refuses negative numbers, and holds still while its gate is shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.busy.set()
        assert self.gate.wait(WAIT_S)
        for item in items:
            if item < 0:
                raise BadContent(f"{item} is negative")
        return [2 * item for item in items]


@contextmanager
def _batcher(
    run: Doubler, cost_max: int = 100, queue_items_max: int = 1000
) -> Iterator[Batcher[int, int]]:
    batcher = Batcher[int, int](
        run, cost=abs, cost_max=cost_max, queue_items_max=queue_items_max, name="the doubler"
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


@given(
    st.lists(st.lists(st.integers(-3, 30), max_size=6), max_size=12),
    st.integers(1, 60),
)
def test_every_caller_gets_its_own_answers_or_its_own_error(
    jobs: list[list[int]], cost_max: int
) -> None:
    """Answers come in the caller's order; a bad item fails the caller that sent it and no other;
    no batch costs more than the budget unless it is one item."""
    run = Doubler()
    with _batcher(run, cost_max) as batcher:
        with _held(run, batcher):
            futures = [batcher.submit(job) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            bad = [item for item in job if item < 0]
            if bad:
                with pytest.raises(BadContent, match=f"{bad[0]} is negative"):
                    future.result(WAIT_S)
            else:
                assert future.result(WAIT_S) == [2 * item for item in job]
    assert all(len(b) == 1 or sum(map(abs, b)) <= cost_max for b in run.batches)


def test_what_waits_goes_in_one_batch() -> None:
    """Callers that came while the worker was busy share the next batch."""
    run = Doubler()
    with _batcher(run) as batcher:
        with _held(run, batcher):
            futures = [batcher.submit([n]) for n in (1, 2, 3)]
        assert [f.result(WAIT_S) for f in futures] == [[2], [4], [6]]
    assert run.batches == [[0], [1, 2, 3]]


def test_a_list_beyond_the_budget_goes_in_several_batches() -> None:
    """The budget bounds a batch, not what one caller may send; too dear an item goes alone."""
    run = Doubler()
    with _batcher(run, cost_max=10) as batcher:
        with _held(run, batcher):
            future = batcher.submit([5, 5, 1, 50, 2])
        assert future.result(WAIT_S) == [10, 10, 2, 100, 4]
    assert run.batches[1:] == [[5, 5], [1], [50], [2]]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    """The queue is bounded; what it holds is still answered."""
    run = Doubler()
    with _batcher(run, queue_items_max=3) as batcher:
        with _held(run, batcher):
            kept = batcher.submit([1, 2])
            with pytest.raises(Overloaded, match="the doubler has 2 items waiting, 3 at most") as e:
                batcher.submit([3, 4])
            last = batcher.submit([5])
        assert e.value.retry_after_ms >= 10
        assert (kept.result(WAIT_S), last.result(WAIT_S)) == ([2, 4], [10])
        with pytest.raises(LimitExceeded, match="4 items at once"):
            batcher.submit([1, 2, 3, 4])


def test_a_cancelled_caller_costs_nothing() -> None:
    """Items whose caller has gone are dropped before they are run."""
    run = Doubler()
    with _batcher(run) as batcher:
        with _held(run, batcher):
            gone, stays = batcher.submit([7, 7, 7]), batcher.submit([1])
            assert gone.cancel()
        assert stays.result(WAIT_S) == [2]
        with pytest.raises(CancelledError):
            gone.result(WAIT_S)
    assert run.batches == [[0], [1]]


def test_items_of_a_failed_caller_are_dropped() -> None:
    """After one item of a list has failed, the rest of the list is not run."""
    run = Doubler()
    with _batcher(run, cost_max=1) as batcher:
        with _held(run, batcher):
            future = batcher.submit([-1, 40, 50])
        with pytest.raises(BadContent):
            future.result(WAIT_S)
        assert batcher.submit([3]).result(WAIT_S) == [6]
    assert run.batches == [[0], [-1], [3]]


def test_a_failed_batch_is_tried_again_item_by_item_but_not_for_who_failed() -> None:
    """The second time, a caller whose item has failed costs nothing more."""
    run = Doubler()
    with _batcher(run) as batcher:
        with _held(run, batcher):
            bad, good = batcher.submit([-1, 4]), batcher.submit([3])
        assert good.result(WAIT_S) == [6]
        assert isinstance(bad.exception(WAIT_S), BadContent)
    assert run.batches == [[0], [-1, 4, 3], [-1], [3]]


def test_nothing_asked_is_answered_at_once() -> None:
    """An empty list needs no worker."""
    run = Doubler()
    with _batcher(run) as batcher:
        assert batcher.submit([]).result(WAIT_S) == []
    assert run.batches == []


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


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_the_worker_outlives_whatever_run_raises(error: BaseException) -> None:
    """Even an exception that ends threads is delivered to its caller, and the next is served."""

    def run(items: Sequence[int]) -> list[int]:
        if items[0] == 13:
            raise error
        return list(items)

    batcher = Batcher[int, int](run, cost=abs, cost_max=9, queue_items_max=9)
    with pytest.raises(type(error)):
        batcher.submit([13]).result(WAIT_S)
    assert batcher.submit([1]).result(WAIT_S) == [1]
    batcher.close()


def test_a_wrong_number_of_answers_is_a_fault() -> None:
    """Answers that cannot be told apart are given to nobody."""
    batcher = Batcher[int, int](lambda items: [0], cost=abs, cost_max=9, queue_items_max=9)
    assert batcher.submit([1]).result(WAIT_S) == [0]
    batcher.close()
    batcher = Batcher[int, int](lambda items: [], cost=abs, cost_max=9, queue_items_max=9, name="x")
    with pytest.raises(InternalFault, match="x got 0 answers to 1 items"):
        batcher.submit([1, 2]).result(WAIT_S)
    batcher.close()


def test_many_threads() -> None:
    """Under 32 threads nothing is lost, doubled or mixed up, and batches are fewer than calls."""
    run = Doubler()
    with _batcher(run, cost_max=10_000, queue_items_max=100_000) as batcher:

        def call(thread: int) -> list[Future[list[int]]]:
            return [batcher.submit([thread, 100 * n]) for n in range(100)]

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

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        assert self.gate.wait(WAIT_S)
        if "bad" in texts:
            raise BadContent("bad")
        return self._at([len(text) for text in texts])

    def prepare(self, picture: Picture) -> Pixels:
        return np.full((2, 2, 3), picture.size[0], np.uint8)

    def encode_images(self, pixels: Sequence[Pixels]) -> Vectors:
        return self._at([int(p[0, 0, 0]) for p in pixels])

    def _at(self, axes: Sequence[int]) -> Vectors:
        return np.eye(4, dtype=np.float32)[[axis % 4 for axis in axes]]


@given(st.lists(st.text("ab", max_size=5), max_size=8))
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
