"""MatchExecutor that nobody waits for any more costs nothing more."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any, cast

import pytest

from simsearch.config import ServerConfig
from simsearch.errors import BankNotFound, DeadlinePassed, NotReady
from simsearch.serve.core.server_core import Core
from simsearch.serve.matching.match_steps import STEP_COSTS, slices
from simsearch.serve.scheduling.admission import Demand
from simsearch.serve.scheduling.executor import MatchExecutor, Task
from simsearch.serve.scheduling.scheduler import Steps
from simsearch.serve.transport.status_codes import trailers_of, words_of
from simsearch.types import (
    CallContext,
    Content,
    HashContent,
    ImageContent,
    Priority,
    Signal,
    TextContent,
)
from simsearch.wire.request_weight import Weight

CORE = cast(Core, object())
ONE = Weight(items=1, ready=1)


class Request:
    """Something large that a waiting call holds."""


def work(timeout_s: float = 30, default_s: float = 20) -> MatchExecutor:
    config = ServerConfig(
        match_threads=1, match_timeout_s=timeout_s, default_deadline_s=min(default_s, timeout_s)
    )
    made = MatchExecutor(config)
    made.begin(CORE)
    return made


def waiting_for(release: threading.Event) -> Task[str]:
    """A task of one step, which ends when it is told to."""

    def task(core: Core, call: CallContext) -> Steps[str]:
        release.wait(10)
        return "done"
        yield

    return task


async def match(
    pool: MatchExecutor, task: Task[Any], priority: Priority = Priority.INTERACTIVE
) -> Any:
    return await pool.match(task, pool.demand(ONE, priority, None))


def test_a_call_that_is_given_up_lets_go_of_its_request() -> None:
    """Also while it waits behind another one: memory is bounded by the calls somebody awaits."""

    async def story() -> None:
        pool, release = work(), threading.Event()
        busy = asyncio.create_task(match(pool, waiting_for(release)))
        await asyncio.sleep(0.05)
        request = Request()
        seen = weakref.ref(request)
        waiting = asyncio.create_task(_holding(pool, request))
        del request
        await asyncio.sleep(0.05)
        assert len(pool._scheduler) == 1
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        del waiting
        gc.collect()
        assert seen() is None
        assert len(pool._scheduler) == 0
        assert pool.counts.in_flight == 1
        release.set()
        await busy
        assert pool.close(5)

    asyncio.run(story())


async def _holding(pool: MatchExecutor, request: Request) -> None:
    def task(core: Core, call: CallContext) -> Steps[int]:
        return id(request)
        yield

    await match(pool, task)


def test_a_running_call_is_told_to_stop() -> None:
    """Between two steps of its work nobody waits for it any more, and it is not resumed; what it
    has called meanwhile can ask."""
    calls: list[CallContext] = []
    steps: list[bool] = []

    def endless(core: Core, call: CallContext) -> Steps[None]:
        calls.append(call)
        while True:
            time.sleep(0.001)
            steps.append(call.is_wanted())
            yield

    async def story() -> None:
        pool = work()
        call = asyncio.create_task(match(pool, endless))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.02)
        taken = len(steps)
        await asyncio.sleep(0.05)
        assert len(steps) == taken > 1
        assert not calls[0].is_wanted()
        assert pool.counts.cancelled == 1
        assert pool.counts.in_flight == 0
        assert pool.close(5)

    asyncio.run(story())


def test_a_call_without_a_deadline_gets_one() -> None:
    """The server's default, and never more than the longest that one call may take."""
    pool = work(timeout_s=30, default_s=5)
    now = time.monotonic()
    for remaining_s, expected_s in ((None, 5), (2, 2), (300, 30)):
        demand = pool.demand(ONE, Priority.BULK, remaining_s)
        assert demand.deadline - now == pytest.approx(expected_s, abs=0.5)
        assert demand.priority is Priority.BULK
    assert pool.close(5)


def test_a_call_ends_at_its_deadline() -> None:
    """A caller cannot hold on for ever; the ticket is back when the refusal is out."""

    async def story() -> None:
        pool, release = work(timeout_s=0.05), threading.Event()
        with pytest.raises(DeadlinePassed, match="less at once"):
            await match(pool, waiting_for(release))
        assert (pool.counts.expired, pool.counts.in_flight) == (1, 0)
        release.set()
        assert pool.close(5)

    asyncio.run(story())


def test_an_expired_call_costs_nothing() -> None:
    """One whose deadline passed while it queued is never begun."""
    begun = []

    def task(core: Core, call: CallContext) -> Steps[None]:
        begun.append(call)
        return
        yield

    async def story() -> None:
        pool, release = work(), threading.Event()
        busy = asyncio.create_task(match(pool, waiting_for(release)))
        await asyncio.sleep(0.02)
        late = asyncio.create_task(pool.match(task, pool.demand(ONE, Priority.INTERACTIVE, 0.05)))
        await asyncio.sleep(0.01)
        time.sleep(0.1)  # noqa: ASYNC251  # the loop cannot notice: the match thread must
        release.set()
        with pytest.raises(DeadlinePassed):
            await late
        await busy
        assert begun == []
        assert pool.close(5)

    asyncio.run(story())


def test_the_earliest_deadline_goes_first_and_bulk_goes_last() -> None:
    """Whatever the order they came in."""
    order: list[str] = []

    def named(name: str) -> Task[None]:
        def task(core: Core, call: CallContext) -> Steps[None]:
            order.append(name)
            return
            yield

        return task

    async def story() -> None:
        pool, release = work(), threading.Event()
        busy = asyncio.create_task(match(pool, waiting_for(release)))
        await asyncio.sleep(0.02)
        asked = [
            ("bulk", Priority.BULK, 5.0),
            ("later", Priority.INTERACTIVE, 20.0),
            ("sooner", Priority.INTERACTIVE, 10.0),
        ]
        tasks = [
            asyncio.create_task(pool.match(named(name), pool.demand(ONE, priority, s)))
            for name, priority, s in asked
        ]
        await asyncio.sleep(0.02)
        release.set()
        await asyncio.gather(busy, *tasks)
        assert order == ["sooner", "later", "bulk"]
        assert pool.close(5)

    asyncio.run(story())


def test_an_upload_overtakes_a_long_batch_between_two_steps() -> None:
    """And bulk work is not forgotten over it: it gets a part of the time."""
    order: list[str] = []

    def steps_of(name: str, count: int) -> Task[None]:
        def task(core: Core, call: CallContext) -> Steps[None]:
            for _ in range(count):
                time.sleep(0.002)
                order.append(name)
                yield

        return task

    async def story() -> None:
        pool = work()
        bulk = asyncio.create_task(match(pool, steps_of("bulk", 12), Priority.BULK))
        await asyncio.sleep(0.008)
        await match(pool, steps_of("upload", 1))
        assert order[-1] == "upload"
        assert len(order) < 12
        more = asyncio.create_task(match(pool, steps_of("upload", 300)))
        await bulk
        assert not more.done()  # it was not held back until there was nothing else
        await more
        assert pool.close(5)

    asyncio.run(story())


def test_who_waits_for_room_gets_in_when_there_is() -> None:
    """And is neither refused nor counted as refused."""

    async def story() -> None:
        pool = MatchExecutor(ServerConfig(match_threads=1, items_in_flight_max=2))
        pool.begin(CORE)
        release = threading.Event()
        demand = Demand(ONE, Priority.BULK, time.monotonic() + 20)
        busy = asyncio.create_task(pool.match_in_turn(waiting_for(release), demand))
        await asyncio.sleep(0.02)
        patient = asyncio.create_task(pool.match_in_turn(waiting_for(release), demand))
        await asyncio.sleep(0.02)
        assert pool.counts.in_flight == 1
        release.set()
        assert (await busy, await patient) == ("done", "done")
        assert sum(pool.counts.refused.values()) == 0
        assert pool.close(5)

    asyncio.run(story())


def test_closing_is_bounded() -> None:
    """MatchExecutor that will not stop is reported, not waited for; its caller is told."""
    release = threading.Event()

    async def story() -> bool:
        pool = work()
        call = asyncio.create_task(match(pool, waiting_for(release)))
        await asyncio.sleep(0.05)
        ended = pool.close(0.05)
        with pytest.raises(NotReady):
            await call
        release.set()
        return ended

    assert asyncio.run(story()) is False


def test_before_it_begins_nothing_is_answered() -> None:
    """Loading: NotReady, never an empty answer."""

    async def story() -> None:
        pool = MatchExecutor(ServerConfig())
        with pytest.raises(NotReady):
            await match(pool, waiting_for(threading.Event()))
        assert pool.close(5)

    asyncio.run(story())


def test_slices_are_all_contents_in_order() -> None:
    """Small ones go together, a large one alone; none is lost."""
    cost_max = STEP_COSTS[Priority.INTERACTIVE]
    small: Content = HashContent(Signal.PDQ, bytes(32))
    large: Content = TextContent("x" * (cost_max - 1))
    picture: Content = ImageContent(bytes(cost_max * 200))
    contents = [small, small, large, picture, small]
    parts = [list(part) for part in slices(contents, cost_max)]
    assert [content for part in parts for content in part] == contents
    assert [len(part) for part in parts] == [2, 1, 1, 1]
    assert [list(part) for part in slices([], cost_max)] == [[]]


@pytest.mark.parametrize("name", ["x" * 100_000, "\U0001f600" * 50_000])
def test_a_refusal_fits_into_a_trailer(name: str) -> None:
    """Whatever a message quotes: over 8 KiB gRPC would drop reason and status."""
    error = BankNotFound(f"there is no bank {name}")
    percent_encoded = 3 * len(words_of(error).encode())
    trailers: list[Any] = [value for _, value in trailers_of(error)]
    assert percent_encoded + sum(len(value) * 4 // 3 for value in trailers) < 8192
