"""Match calls over a real connection, with a matcher that the tests hold and let go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from simsearch.config import Config, ServerConfig
from simsearch.errors import BadHash, BankNotFound, DeadlinePassed, Overloaded
from simsearch.match.matcher import Outcome
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.core.hit_counts import HitCounter
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.admission import Cause
from simsearch.serve.scheduling.executor import Executors
from simsearch.serve.transport.concurrency_limit import ConcurrencyLimit
from simsearch.types import (
    Band,
    CallContext,
    Content,
    Evidence,
    HashContent,
    Hit,
    MatchOptions,
    MatchResult,
    Priority,
)
from simsearch.v1 import content_pb2, error_pb2, match_pb2, match_pb2_grpc
from tests.serve.house import opened

WAIT_S = 10.0
"""Until a test gives up; none should come near it."""


@dataclass
class FakeMatcher:
    """Answers a hash with a hit whose key is its first four bytes, once it is `released`."""

    released: threading.Event = field(default_factory=threading.Event)
    fails: Callable[[Sequence[Content]], Exception | None] = lambda contents: None
    hits: int = 1
    label: str = "a label"
    asked: list[tuple[int, MatchOptions, CallContext]] = field(default_factory=list)

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext
    ) -> list[Outcome]:
        self.asked.append((len(contents), options, call))
        assert self.released.wait(WAIT_S)
        if failure := self.fails(contents):
            raise failure
        return [self._outcome(content) for content in contents]

    def _outcome(self, content: Content) -> Outcome:
        if not isinstance(content, HashContent):
            return MatchResult(Band.NONE, (), False, True, (), "fake", 1)
        if len(content.value) != 32:
            return BadHash("not 32 bytes")
        key = int.from_bytes(content.value[:4], "big")
        hit = Hit("bank", key, Band.BLOCK, (Evidence("sha256", Band.BLOCK),), (self.label,))
        return MatchResult(Band.BLOCK, (hit,) * self.hits, False, True, (), "fake", 1)


@dataclass
class House:
    """A server and what it is made of."""

    matcher: FakeMatcher
    executors: Executors
    limit: ConcurrencyLimit
    stub: Any
    channel: grpc.aio.Channel

    def drain(self) -> None:
        self.limit.drain()
        self.executors.matches.drain()

    async def asked(self, calls: int) -> None:
        """Returns once the matcher has been called so often."""
        await until(lambda: len(self.matcher.asked) >= calls)


@asynccontextmanager
async def house(released: bool = True, **settings: Any) -> AsyncIterator[House]:
    config = Config(ServerConfig(**({"match_threads": 1} | settings)))
    matcher = FakeMatcher()
    if released:
        matcher.released.set()
    core = SimpleNamespace(
        config=config,
        matcher=matcher,
        metrics=EventMetrics(),
        hits=HitCounter(),
        dim_of=lambda space: 4,
    )
    executors = Executors(config.server)
    executors.begin(cast(Core, core))
    limit = ConcurrencyLimit(config.server.requests_max, config.server.streams_max)
    try:
        async with (
            opened(config, executors, limit) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            stub: Any = match_pb2_grpc.MatchServiceStub(channel)
            yield House(matcher, executors, limit, stub, channel)
            matcher.released.set()
    finally:
        matcher.released.set()
        assert await asyncio.to_thread(executors.close, WAIT_S)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110  # what is waited for is no event of ours
            await asyncio.sleep(0.005)


def tell(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * WAIT_S):
            await story()

    asyncio.run(bounded())


def hashed(number: int) -> content_pb2.Content:
    value = number.to_bytes(4, "big") + bytes(28)
    signal = content_pb2.HASH_SIGNAL_SHA256
    return content_pb2.Content(hash=content_pb2.Hash(signal=signal, value=value))


def message(*numbers: int, banks: Sequence[str] = ()) -> match_pb2.StreamMatchRequest:
    options = match_pb2.MatchOptions(banks=banks) if banks else None
    items = [match_pb2.StreamMatchItem(id=n, content=hashed(n)) for n in numbers]
    return match_pb2.StreamMatchRequest(items=items, options=options)


async def answers(call: Any) -> list[match_pb2.StreamMatchAnswer]:
    """All that come, and then `call.code()` is known."""
    found: list[match_pb2.StreamMatchAnswer] = []
    with suppress(grpc.aio.AioRpcError):
        while (response := await call.read()) is not grpc.aio.EOF:
            found += response.answers
    return found


def ids(found: Sequence[match_pb2.StreamMatchAnswer]) -> list[int]:
    return sorted(answer.id for answer in found)


async def reason(call: Any) -> str:
    """The ErrorInfo in the trailers of a call that failed."""
    info, _ = details(await call.trailing_metadata())
    return str(info.reason)


def details(trailers: Any) -> tuple[Any, Any]:
    """ErrorInfo and RetryInfo."""
    raw = next(v for k, v in trailers if k == "grpc-status-details-bin")
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status_pb2.Status.FromString(raw).details:
        detail.Unpack(info)
        detail.Unpack(retry)
    return info, retry


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


# ---------------------------------------------------------------- a stream


def test_every_item_is_answered_by_its_id() -> None:
    """Under ids that the caller chose, in messages of any size; closing ends it with OK."""

    async def story() -> None:
        async with house() as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            sizes, number = [1, 7, 64, 1, 1, 100, 0, 26], 0
            for size in sizes:
                await call.write(message(*range(number, number + size)))
                number += size
            await call.done_writing()
            found = await answers(call)
            assert ids(found) == list(range(sum(sizes)))
            assert all(a.result.hits[0].entry_key == a.id for a in found)
            assert await call.code() is grpc.StatusCode.OK
            await until(lambda: here.limit.in_flight == 0)
            assert here.executors.matches.counts.items == sum(sizes)

    tell(story)


def test_an_empty_stream_ends_with_ok() -> None:
    """Nothing asked, nothing answered."""

    async def story() -> None:
        async with house() as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            await call.done_writing()
            assert await answers(call) == []
            assert await call.code() is grpc.StatusCode.OK

    tell(story)


def test_what_has_arrived_goes_together() -> None:
    """While the threads are busy single items gather, and go to the matcher as one batch."""

    async def story() -> None:
        async with house(released=False) as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            for number in range(60):
                await call.write(message(number))
            await call.done_writing()
            await here.asked(1)
            await asyncio.sleep(0.1)
            here.matcher.released.set()
            assert ids(await answers(call)) == list(range(60))
            assert len(here.matcher.asked) <= 5
            assert max(count for count, _, _ in here.matcher.asked) > 20

    tell(story)


def test_a_bad_item_fails_alone() -> None:
    """By its id, with the error that it would have failed with by itself."""

    async def story() -> None:
        async with house() as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            request = match_pb2.StreamMatchRequest(items=[match_pb2.StreamMatchItem(id=4)])
            request.MergeFrom(message(1, 2, 3))
            request.items[2].content.hash.value = b"short"
            await call.write(request)
            await call.done_writing()
            found = {a.id: a for a in await answers(call)}
            assert found[2].error.reason == error_pb2.ERROR_REASON_BAD_HASH
            assert found[4].error.reason == error_pb2.ERROR_REASON_EMPTY_CONTENT
            assert {i for i, a in found.items() if a.HasField("result")} == {1, 3}
            assert await call.code() is grpc.StatusCode.OK

    tell(story)


def test_the_server_reads_no_more_than_it_works_on() -> None:
    """With a matcher that stands still the sender comes to stand still, and goes on with it."""
    sent = 0

    async def send(call: Any) -> None:
        nonlocal sent
        picture = content_pb2.Content(image=bytes(200_000))
        for number in range(300):
            item = match_pb2.StreamMatchItem(id=number, content=picture)
            await call.write(match_pb2.StreamMatchRequest(items=[item]))
            sent += 1
        await call.done_writing()

    async def story() -> None:
        async with house(released=False, stream_window_items=16) as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            sending = asyncio.create_task(send(call))
            await asyncio.sleep(0.5)
            assert sent < 150
            assert here.executors.matches.counts.items_in_flight <= 16
            here.matcher.released.set()
            assert ids(await answers(call)) == list(range(300))
            await sending

    tell(story)


def test_a_stream_is_bulk_and_waits_for_room() -> None:
    """Where others fill the server it is not refused: its items are answered when there is room."""

    async def story() -> None:
        async with house(released=False, items_in_flight_max=8) as here:
            first = here.stub.StreamMatch(timeout=WAIT_S)
            await first.write(message(1, 2, 3))
            await here.asked(1)
            second = here.stub.StreamMatch(timeout=WAIT_S)
            await second.write(message(4, 5, 6))
            for call in (first, second):
                await call.done_writing()
            await asyncio.sleep(0.2)
            assert here.executors.matches.counts.items_in_flight == 3
            here.matcher.released.set()
            assert ids(await answers(first)) == [1, 2, 3]
            assert ids(await answers(second)) == [4, 5, 6]
            assert [call.priority for _, _, call in here.matcher.asked] == [Priority.BULK] * 2
            assert sum(here.executors.matches.counts.refused.values()) == 0

    tell(story)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (Overloaded("full"), error_pb2.ERROR_REASON_OVERLOADED),
        (DeadlinePassed("late"), error_pb2.ERROR_REASON_DEADLINE_PASSED),
    ],
)
def test_overload_refuses_items_and_not_the_stream(error: Exception, number: int) -> None:
    """The items that were not judged say so, and the next ones are."""

    async def story() -> None:
        async with house() as here:
            here.matcher.fails = lambda contents: error
            call = here.stub.StreamMatch(timeout=WAIT_S)
            await call.write(message(1, 2))
            found = list((await call.read()).answers)
            assert [a.error.reason for a in found] == [number] * 2
            here.matcher.fails = lambda contents: None
            await call.write(message(3))
            await call.done_writing()
            [answer] = await answers(call)
            assert (answer.id, answer.HasField("result")) == (3, True)
            assert await call.code() is grpc.StatusCode.OK

    tell(story)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(BankNotFound("no bank"), "BANK_NOT_FOUND"), (RuntimeError("secret"), "INTERNAL")],
)
def test_what_concerns_the_whole_stream_ends_it(error: Exception, expected: str) -> None:
    """By name, and without the words of a bug of ours."""

    async def story() -> None:
        async with house() as here:
            here.matcher.fails = lambda contents: error
            call = here.stub.StreamMatch(timeout=WAIT_S)
            await call.write(message(1, banks=["nowhere"]))
            assert await answers(call) == []
            assert await reason(call) == expected
            assert "secret" not in (await call.details())
            assert here.matcher.asked[0][1].banks == ("nowhere",)
            await until(lambda: here.limit.in_flight == 0)

    tell(story)


def test_garbled_bytes_end_the_stream_after_its_answers() -> None:
    """BAD_REQUEST, and what was in flight is answered all the same."""

    async def story() -> None:
        async with house(released=False) as here:
            channel: Any = here.channel
            call = channel.stream_stream("/simsearch.v1.MatchService/StreamMatch")(timeout=WAIT_S)
            await call.write(message(1, 2).SerializeToString())
            await here.asked(1)
            await call.write(b"\xff\xff")
            await asyncio.sleep(0.1)
            here.matcher.released.set()
            response = match_pb2.StreamMatchResponse.FromString(await call.read())
            assert ids(response.answers) == [1, 2]
            assert await answers(call) == []
            assert await reason(call) == "BAD_REQUEST"

    tell(story)


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([message(1), message(2, banks=["b"])], "BAD_REQUEST"),
        ([message(*range(257))], "LIMIT_EXCEEDED"),
    ],
    ids=["options twice", "a message too long"],
)
def test_messages_out_of_bounds_end_the_stream(
    requests: Sequence[match_pb2.StreamMatchRequest], expected: str
) -> None:
    """Named, with what to do."""

    async def story() -> None:
        async with house() as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            for request in requests:
                await call.write(request)
            await answers(call)
            assert await reason(call) == expected

    tell(story)


def test_a_draining_server_answers_what_it_works_on() -> None:
    """Then NOT_READY: every item was answered, or can be sent elsewhere."""

    async def story() -> None:
        async with house(released=False) as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            await call.write(message(1, 2, 3))
            await here.asked(1)
            here.drain()
            await asyncio.sleep(0.1)
            await call.write(message(4, 5, 6))
            await asyncio.sleep(0.1)
            here.matcher.released.set()
            assert ids(await answers(call)) == [1, 2, 3]
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert await reason(call) == "NOT_READY"
            async with asyncio.timeout(WAIT_S):
                await here.limit.idle()
            late = here.stub.StreamMatch(timeout=WAIT_S)
            assert await answers(late) == []
            assert await reason(late) == "NOT_READY"
            assert here.limit.counts.refused_draining == 1

    tell(story)


def test_a_draining_server_ends_a_silent_stream() -> None:
    """At once: nothing is in flight for it, and nobody would send the word that ends it."""

    async def story() -> None:
        async with house() as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            await call.write(message(1))
            assert ids((await call.read()).answers) == [1]
            here.drain()
            async with asyncio.timeout(WAIT_S / 2):
                assert await answers(call) == []
                assert await reason(call) == "NOT_READY"

    tell(story)


def test_an_idle_stream_is_ended() -> None:
    """Nobody holds a place by saying nothing; one that is worked for is not idle."""

    async def story() -> None:
        async with house(released=False, stream_idle_s=0.2) as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            await call.write(message(1))
            await here.asked(1)
            await asyncio.sleep(0.5)
            await call.write(message(2))
            await asyncio.sleep(0.05)
            here.matcher.released.set()
            assert ids(await answers(call)) == [1, 2]
            assert await reason(call) == "NOT_READY"
            assert "idle" in await call.details()

    tell(story)


def test_a_stream_whose_answers_nobody_takes_is_ended() -> None:
    """It must not hold what it has in flight for ever."""

    async def story() -> None:
        async with house(stream_idle_s=0.3) as here:
            here.matcher.hits, here.matcher.label = 300, "x" * 1_000
            call = here.stub.StreamMatch(timeout=6 * WAIT_S)
            await call.write(message(*range(64)))
            await until(lambda: here.limit.counts.streams == 1)
            await until(lambda: here.limit.counts.streams == 0)
            assert here.executors.matches.counts.in_flight == 0

    tell(story)


def test_a_stream_that_is_given_up_leaves_nothing() -> None:
    """Its tickets come back, and what it had queued is never begun."""

    async def story() -> None:
        async with house(released=False) as here:
            call = here.stub.StreamMatch(timeout=WAIT_S)
            await call.write(message(1))
            await here.asked(1)
            await call.write(message(*range(2, 60)))
            await until(lambda: here.executors.matches.counts.in_flight == 2)
            call.cancel()
            await until(lambda: here.executors.matches.counts.in_flight == 0)
            assert here.limit.counts.streams == 0
            assert not here.matcher.asked[0][2].is_wanted()
            here.matcher.released.set()
            assert here.executors.matches.counts.cancelled == 2
            await asyncio.sleep(0.05)
            assert len(here.matcher.asked) == 1

    tell(story)


def test_streams_are_bounded() -> None:
    """One too many is refused at once, and is welcome when another has ended."""

    async def story() -> None:
        async with house(streams_max=1) as here:
            first = here.stub.StreamMatch(timeout=WAIT_S)
            await first.write(message(1))
            await first.read()
            second = here.stub.StreamMatch(timeout=WAIT_S)
            assert await answers(second) == []
            assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await first.done_writing()
            assert await answers(first) == []
            third = here.stub.StreamMatch(timeout=WAIT_S)
            await third.done_writing()
            assert await answers(third) == []
            assert await third.code() is grpc.StatusCode.OK

    tell(story)


# ---------------------------------------------------------------- single calls and batches


def test_a_full_server_refuses_at_once_and_says_when_to_come_back() -> None:
    """RESOURCE_EXHAUSTED with RetryInfo and pushback, while those before it still wait."""

    async def story() -> None:
        async with house(released=False, items_in_flight_max=4) as here:
            request = match_pb2.BatchMatchRequest(contents=[hashed(n) for n in range(4)])
            first = here.stub.BatchMatch(request, timeout=WAIT_S)
            await here.asked(1)
            begun = time.monotonic()
            failed = await failure(here.stub.Match(match_pb2.MatchRequest(content=hashed(9))))
            assert time.monotonic() - begun < 1
            assert failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            trailers: Any = failed.trailing_metadata()
            info, retry = details(trailers)
            assert info.reason == "OVERLOADED"
            pushback_ms = int(dict(trailers)["grpc-retry-pushback-ms"])
            assert retry.retry_delay.ToMilliseconds() == pushback_ms >= 10
            assert here.executors.matches.counts.refused[Cause.SPACE] == 1
            here.matcher.released.set()
            assert len((await first).items) == 4
            assert len(here.matcher.asked) == 1

    tell(story)


def test_an_expired_call_is_told_so() -> None:
    """Also one whose caller set no deadline: the server sets one."""

    async def story() -> None:
        async with house(released=False, default_deadline_s=0.2) as here:
            failed = await failure(here.stub.Match(match_pb2.MatchRequest(content=hashed(1))))
            assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert details(failed.trailing_metadata())[0].reason == "DEADLINE_PASSED"
            assert here.executors.matches.counts.expired == 1
            left_s = here.matcher.asked[0][2].deadline - time.monotonic()
            assert -1 < left_s < 0.2

    tell(story)


@pytest.mark.parametrize(
    ("metadata", "priority"),
    [
        ((), Priority.INTERACTIVE),
        ((("simsearch-priority", "bulk"),), Priority.BULK),
        ((("simsearch-priority", "interactive"),), Priority.INTERACTIVE),
    ],
)
def test_the_caller_may_choose_the_lane(metadata: Any, priority: Priority) -> None:
    """Of a batch and of a single call; the matcher is told, and the caller's deadline too."""

    async def story() -> None:
        async with house() as here:
            batch = match_pb2.BatchMatchRequest(contents=[hashed(1)])
            await here.stub.BatchMatch(batch, timeout=5, metadata=metadata)
            single = match_pb2.MatchRequest(content=hashed(1))
            await here.stub.Match(single, timeout=5, metadata=metadata)
            for _, _, call in here.matcher.asked:
                assert call.priority is priority
                assert call.deadline - time.monotonic() == pytest.approx(5, abs=2)

    tell(story)


def test_a_lane_that_is_not_there_is_refused() -> None:
    """A misspelt priority must not go unnoticed."""

    async def story() -> None:
        async with house() as here:
            failed = await failure(
                here.stub.Match(
                    match_pb2.MatchRequest(content=hashed(1)),
                    metadata=(("simsearch-priority", "bulky"),),
                )
            )
            assert details(failed.trailing_metadata())[0].reason == "BAD_REQUEST"

    tell(story)


def test_a_batch_of_1024_is_answered_in_order() -> None:
    """With the hits that are the default."""

    async def story() -> None:
        async with house() as here:
            request = match_pb2.BatchMatchRequest(contents=[hashed(n) for n in range(1024)])
            response = await here.stub.BatchMatch(request, timeout=WAIT_S)
            assert [i.result.hits[0].entry_key for i in response.items] == list(range(1024))

    tell(story)


def test_an_answer_too_large_for_a_message_is_refused_by_name() -> None:
    """Not by gRPC, without a reason."""

    async def story() -> None:
        async with house(message_bytes_max=10_000) as here:
            here.matcher.hits = 1_000
            request = match_pb2.BatchMatchRequest(contents=[hashed(1)])
            failed = await failure(here.stub.BatchMatch(request, timeout=WAIT_S))
            assert details(failed.trailing_metadata())[0].reason == "LIMIT_EXCEEDED"
            assert "ask for fewer hits" in str(failed.details())

    tell(story)


@pytest.mark.parametrize(
    "method",
    [
        "MatchService/Match",
        "MatchService/BatchMatch",
        "BankService/GetBank",
        "BankService/AddEntry",
    ],
)
@pytest.mark.parametrize("raw", [b"\xff\xff", b"\x0a\x05ab"])
def test_garbled_requests_are_bad_requests(method: str, raw: bytes) -> None:
    """Of any service: named, and no fault of the server's."""

    async def story() -> None:
        async with house() as here:
            failed = await failure(
                cast(Any, here.channel).unary_unary(f"/simsearch.v1.{method}")(raw)
            )
            assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert details(failed.trailing_metadata())[0].reason == "BAD_REQUEST"

    tell(story)
