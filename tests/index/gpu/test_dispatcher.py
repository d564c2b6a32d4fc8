"""One thread for each GPU: batches, bounds, back-off, and an end that leaves nobody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from simsearch.index.gpu import dispatcher as gpu_dispatch
from simsearch.index.gpu.device import DeviceIndex, GpuFault, ScoredRows
from simsearch.index.gpu.device_health import BACK_OFF_S, Health
from simsearch.index.gpu.dispatcher import Dispatcher
from simsearch.index.gpu.tensors import Queries, concatenated
from simsearch.types import Vectors


class Echo:
    """A device whose answer tells who asked; it stops at `gate` in each search."""

    name = "GPU 7"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []
        self.error: BaseException | None = None

    def upload(self, index: Any) -> DeviceIndex:
        self._pass()
        return _Held(self)

    def _pass(self) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        if self.error:
            raise self.error


class _Held:
    nbytes = 10

    def __init__(self, device: Echo) -> None:
        self.device = device

    def search(self, parts: Sequence[Queries], k: int, nprobe: int) -> ScoredRows:
        self.device.batches.append([len(part) for part in parts])
        self.device._pass()
        first = concatenated(parts)[:, :1]
        return np.repeat(first, k, 1), np.full((len(first), k), nprobe, np.int64)


@pytest.fixture
def device() -> Echo:
    return Echo()


@pytest.fixture
def dispatcher(device: Echo) -> Iterator[Dispatcher]:
    made = Dispatcher(device, wait_s=20.0, waiting_queries_max=50)
    yield made
    device.gate.set()
    made.stop()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as made:
        yield made


def asked(number: float, rows: int = 1) -> Vectors:
    return np.full((rows, 4), number, np.float32)


def blocked(
    device: Echo, dispatcher: Dispatcher, pool: ThreadPoolExecutor
) -> tuple[DeviceIndex, Future[ScoredRows]]:
    """With one search inside the device, which stays there."""
    held = dispatcher.upload(None)
    device.gate.clear()
    device.entered.clear()
    first = pool.submit(dispatcher.search, held, asked(0), 2, 1)
    assert device.entered.wait(20)
    return held, first


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_what_waits_goes_as_one_batch(
    device: Echo, dispatcher: Dispatcher, pool: ThreadPoolExecutor
) -> None:
    """And each caller gets its own rows of the answer."""
    held, first = blocked(device, dispatcher, pool)
    waiting = [pool.submit(dispatcher.search, held, asked(n, n), 2, 1) for n in range(1, 6)]
    until(lambda: dispatcher.load == 15)
    device.gate.set()
    assert first.result()[0].tolist() == [[0, 0]]
    for number, future in enumerate(waiting, 1):
        assert future.result()[0].tolist() == [[number, number]] * number
    assert device.batches[0] == [1]
    assert sorted(device.batches[1]) == [1, 2, 3, 4, 5]
    assert (dispatcher.status().batches, dispatcher.status().queries) == (2, 16)
    assert dispatcher.load == 0


def test_only_equal_searches_are_joined(
    device: Echo, dispatcher: Dispatcher, pool: ThreadPoolExecutor
) -> None:
    """Of one index, one k, one nprobe; the others come after, and get what they asked for."""
    held, _ = blocked(device, dispatcher, pool)
    other = _Held(device)
    asks = [(held, 2, 1), (held, 3, 1), (held, 2, 5), (other, 2, 1), (held, 2, 1)]
    waiting = []
    for number, (of, k, nprobe) in enumerate(asks):
        waiting.append(pool.submit(dispatcher.search, of, asked(number), k, nprobe))
        until(lambda: dispatcher.load == len(waiting))
    device.gate.set()
    for number, ((_, k, nprobe), future) in enumerate(zip(asks, waiting, strict=True)):
        scores, rows = future.result()
        assert scores.tolist() == [[number] * k]
        assert rows.tolist() == [[nprobe] * k]
    assert device.batches[1:] == [[1, 1], [1], [1], [1]]


def test_a_batch_has_a_bound(
    device: Echo, dispatcher: Dispatcher, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In queries and in candidates of all of them; one search alone may be larger."""
    monkeypatch.setattr(gpu_dispatch, "QUERIES_MAX", 10)
    monkeypatch.setattr(gpu_dispatch, "RESULTS_MAX", 60)
    held, _ = blocked(device, dispatcher, pool)
    for k, rows in [(2, 4), (2, 5), (2, 12), (8, 4), (8, 4)]:
        before = dispatcher.load
        pool.submit(dispatcher.search, held, asked(1, rows), k, 1)
        until(lambda before=before, rows=rows: dispatcher.load == before + rows)  # type: ignore[misc]
    device.gate.set()
    until(lambda: len(device.batches) == 5)
    assert device.batches[1:] == [[4, 5], [12], [4], [4]]


def test_the_queue_has_a_bound(
    device: Echo, dispatcher: Dispatcher, pool: ThreadPoolExecutor
) -> None:
    """Beyond it a caller is told at once; that is no fault, and the others are answered."""
    held, _ = blocked(device, dispatcher, pool)
    waiting = [pool.submit(dispatcher.search, held, asked(1, 25), 2, 1) for _ in range(2)]
    until(lambda: dispatcher.load == 50)
    with pytest.raises(GpuFault, match="GPU 7: 50 queries wait already"):
        dispatcher.search(held, asked(1), 2, 1)
    assert dispatcher.status().faults == 0
    device.gate.set()
    assert [len(future.result()[0]) for future in waiting] == [25, 25]
    assert len(dispatcher.search(held, asked(1, 60), 2, 1)[0]) == 60  # alone it may be larger


def test_a_slow_search_is_given_up(
    device: Echo, dispatcher: Dispatcher, pool: ThreadPoolExecutor
) -> None:
    """What waits behind it is dropped unsearched, and who comes later is told at once."""
    held, first = blocked(device, dispatcher, pool)
    dispatcher._wait_s = 0.1
    with pytest.raises(GpuFault, match=r"GPU 7: no answer within 0\.1 s"):
        dispatcher.search(held, asked(1), 2, 1)
    begun = time.monotonic()
    dispatcher.health.refusal = lambda: ""  # type: ignore[method-assign]
    with pytest.raises(GpuFault, match=r"busy with one search for more than 0\.1 s"):
        dispatcher.search(held, asked(1), 2, 1)
    assert time.monotonic() - begun < 5
    device.gate.set()
    first.result()
    until(lambda: dispatcher.load == 0)
    assert device.batches == [[1]]


def test_an_error_reaches_all_of_its_batch_and_no_other(
    device: Echo, dispatcher: Dispatcher, pool: ThreadPoolExecutor
) -> None:
    held, first = blocked(device, dispatcher, pool)
    waiting = [pool.submit(dispatcher.search, held, asked(n), 2, 1) for n in range(3)]
    until(lambda: dispatcher.load == 3)
    device.error = RuntimeError("CUDA error 700")
    device.gate.set()
    for future in (first, *waiting):
        with pytest.raises(GpuFault, match="GPU 7: CUDA error 700"):
            future.result()
    assert dispatcher.status().faults == 1  # the second came before it was to be asked again
    device.error = None
    dispatcher.health._retry_at = 0
    assert dispatcher.search(held, asked(4), 1, 1)[0].tolist() == [[4]]
    assert dispatcher.status().reason == ""


def test_while_an_index_is_loaded_searches_go_elsewhere(
    device: Echo, dispatcher: Dispatcher, pool: ThreadPoolExecutor
) -> None:
    """Loading takes seconds; nobody waits for it, and it is no fault."""
    held = dispatcher.upload(None)
    device.gate.clear()
    device.entered.clear()
    loading = pool.submit(dispatcher.upload, None)
    assert device.entered.wait(20)
    with pytest.raises(GpuFault, match="GPU 7: an index is being loaded"):
        dispatcher.search(held, asked(1), 2, 1)
    device.gate.set()
    loading.result()
    until(lambda: dispatcher.status().reason == "")
    assert dispatcher.search(held, asked(1), 1, 1)[0].tolist() == [[1]]
    assert (dispatcher.status().faults, dispatcher.status().nbytes) == (0, 20)


def test_a_stop_leaves_nobody_waiting(
    device: Echo, dispatcher: Dispatcher, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the device never comes back."""
    monkeypatch.setattr(gpu_dispatch, "STOP_WAIT_S", 0.1)
    held, first = blocked(device, dispatcher, pool)
    waiting = pool.submit(dispatcher.search, held, asked(1), 2, 1)
    until(lambda: dispatcher.load == 1)
    dispatcher.stop()
    with pytest.raises(GpuFault, match="its thread has ended"):
        waiting.result(timeout=10)
    for ask in (lambda: dispatcher.search(held, asked(1), 2, 1), lambda: dispatcher.upload(None)):
        with pytest.raises(GpuFault, match="its thread has ended"):
            ask()
    dropped = [held]
    dispatcher.drop(dropped)
    assert dropped == []
    device.gate.set()
    assert first.result()[0].tolist() == [[0, 0]]
    dispatcher._thread.join(10)
    assert not dispatcher._thread.is_alive()


@pytest.mark.parametrize("where", ["search", "hold"])
def test_nothing_ends_the_thread(device: Echo, dispatcher: Dispatcher, where: str) -> None:
    """An exit inside a library is an error like others."""
    held = dispatcher.upload(None)
    device.error = SystemExit("from inside")
    with pytest.raises(GpuFault, match="from inside"):
        dispatcher.search(held, asked(1), 1, 1) if where == "search" else dispatcher.upload(None)
    assert dispatcher._thread.is_alive()


# ---------------------------------------------------------------- health


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_device_that_fails_on_is_asked_less_and_then_no_more() -> None:
    """The times between double; in each, faults count once."""
    clock = Clock()
    health = Health("GPU 0", clock)
    for wait_s in BACK_OFF_S:
        assert health.refusal() == ""
        for _ in range(16):
            health.fault("out of memory")
        clock.now += wait_s - 0.1
        assert health.refusal() == "GPU 0: out of memory"
        clock.now += 0.1
    health.fault("once more")
    assert health.is_off
    clock.now += 1e9
    assert health.refusal() == "GPU 0: once more"
    health.worked()
    assert health.refusal() == "GPU 0: once more"
    assert health.faults == len(BACK_OFF_S) + 1


def test_one_that_works_again_begins_anew() -> None:
    clock = Clock()
    health = Health("GPU 0", clock)
    for _ in range(20):
        health.fault("out of memory")
        clock.now += BACK_OFF_S[0]
        assert health.refusal() == ""
        health.worked()
    assert not health.is_off


def test_a_reason_has_a_bound() -> None:
    """FAISS's messages hold stack traces."""
    for blame in (Health.fault, Health.off):
        health = Health("GPU 0")
        blame(health, "x" * 10_000)
        assert len(health.refusal()) < 400
