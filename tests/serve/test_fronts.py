"""Fronts before an engine: the wire between them, over a real socket, in one event loop."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from simsearch.config import Config, ServerConfig
from simsearch.internal.v1 import relay_pb2
from simsearch.match.matcher import Outcome
from simsearch.serve import engine as engines
from simsearch.serve import front as fronts
from simsearch.serve import link as links
from simsearch.serve import relay
from simsearch.serve.arena import Arena, ArenaView
from simsearch.serve.core import Core
from simsearch.serve.directory import load_directory
from simsearch.serve.engine import EngineDoor
from simsearch.serve.front import Front, FrontGuard
from simsearch.serve.handlers import EngineGuard, RelayedContext
from simsearch.serve.hits import HitCounter
from simsearch.serve.identity import LOCAL, Identity, Quota
from simsearch.serve.interceptors import Gate
from simsearch.serve.metrics import Server
from simsearch.serve.observing import Observer
from simsearch.serve.relay import Inflow, Outflow, caller_from, caller_to
from simsearch.serve.reloading import Reloading
from simsearch.serve.reports import GONE_KEPT, Endings, FrontCounts, Reports
from simsearch.serve.stream import ANSWER_BYTES
from simsearch.serve.tally import Answers
from simsearch.serve.work import Work
from simsearch.types import BankAccess, CallContext, Content, ImageContent, MatchOptions, Role
from simsearch.v1 import content_pb2, match_pb2, match_pb2_grpc
from tests.serve.callers import Callers
from tests.serve.test_stream import (
    WAIT_S,
    FakeMatcher,
    answers,
    details,
    failure,
    hashed,
    tell,
    until,
)

MATCH = match_pb2.MatchRequest(content=hashed(7))


@dataclass
class Seeing(FakeMatcher):
    """Remembers the contents that it was given."""

    contents: list[Content] = field(default_factory=list)

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext
    ) -> list[Outcome]:
        self.contents += contents
        return super().match(contents, options, call)


@dataclass
class Relayed:
    """An engine, started and stopped by the test, and fronts with a channel to each."""

    config: Config
    path: Path
    matcher: Seeing = field(default_factory=Seeing)
    asks: bool = False
    observer: Observer = field(default_factory=Observer)
    gate: Gate = field(default_factory=lambda: Gate(9))
    fronts: list[Front] = field(default_factory=list)
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    engine: EngineDoor | None = None
    work: Work | None = None

    async def start(self) -> EngineDoor:
        core = SimpleNamespace(
            config=self.config,
            matcher=self.matcher,
            answers=Answers(),
            hits=HitCounter(),
            dim_of=lambda space: 4,
        )
        self.work = Work(self.config.server)
        self.work.begin(cast(Core, core))
        guard = EngineGuard(asks=self.asks)
        door = EngineDoor(
            self.config, self.work, self.gate, [self.observer], path=self.path, guard=guard
        )
        await door.open()
        await door.set_serving(True)
        self.engine = door
        for front in self.fronts:
            await until(lambda front=front: front.link.serving)  # type: ignore[misc]
        return door

    async def crash(self) -> None:
        """As if the engine's process had ended: nobody is told anything."""
        assert self.engine
        assert self.work
        engine, self.engine = self.engine, None
        engine._fronts.clear()
        await engine.close(None)
        self.matcher.released.set()
        assert await asyncio.to_thread(self.work.close, WAIT_S)

    def page(self) -> dict[tuple[str, ...], float]:
        """What is scraped: samples by name and the values of their labels."""
        assert self.engine
        assert self.work
        seen = Server(self.observer, self.engine.guard, self.gate, self.work, self.engine.at_fronts)
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in seen.collect()
            for sample in family.samples
        }

    def ended(self) -> dict[tuple[str, str], float]:
        """Calls by RPC and outcome, as the page has them."""
        name = "simsearch_call_seconds_count"
        return {key[1:]: value for key, value in self.page().items() if key[0] == name}  # type: ignore[misc]

    def stub(self, front: int = 0) -> Any:
        return match_pb2_grpc.MatchServiceStub(self.channels[front])

    async def is_serving(self) -> bool:
        stub: Any = health_pb2_grpc.HealthStub(self.channels[0])
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def relayed(
    path: Path, count: int = 1, callers: Callers | None = None, **settings: Any
) -> AsyncIterator[Relayed]:
    server = replace(ServerConfig(match_threads=1, listen="127.0.0.1:0"), **settings)
    world = Relayed(Config(server), path / "engine", asks=callers is not None)
    world.matcher.released.set()
    async with AsyncExitStack() as undo:
        for _ in range(count):
            front = Front(world.config, world.path, _guard(callers))
            address = await front.open()
            undo.push_async_callback(front.close, None)
            world.fronts.append(front)
            world.channels.append(
                await undo.enter_async_context(grpc.aio.insecure_channel(address))
            )
        await world.start()
        yield world
        if world.engine:
            await world.crash()


def _guard(callers: Callers | None) -> FrontGuard:
    if callers is None:
        return FrontGuard()
    read = partial(load_directory, callers.path)
    return FrontGuard(Reloading("identities", [callers.path], read, every_s=0.0))


def reason(failed: grpc.aio.AioRpcError) -> str:
    return str(details(failed.trailing_metadata())[0].reason)


# ---------------------------------------------------------------- an engine comes and goes


def test_without_an_engine_a_front_is_not_ready(tmp_path: Path) -> None:
    """By name, and health says so, too; it serves as soon as there is one."""

    async def story() -> None:
        async with relayed(tmp_path) as world:
            await world.crash()
            await until(lambda: not world.fronts[0].link.serving)
            failed = await failure(world.stub().Match(MATCH, timeout=5))
            assert (failed.code(), reason(failed)) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
            assert not await world.is_serving()
            await world.start()
            assert (await world.stub().Match(MATCH, timeout=5)).result.hits[0].entry_key == 7
            assert await world.is_serving()
            assert world.fronts[0].link.report.refused_not_ready == 1

    tell(story)


def test_calls_that_an_engine_took_with_it_are_lost_by_name(tmp_path: Path) -> None:
    """At once, single ones and streams; the next engine is not asked for them again."""

    async def story() -> None:
        async with relayed(tmp_path) as world:
            world.matcher.released.clear()
            single = world.stub().Match(MATCH, timeout=WAIT_S)
            stream = world.stub().StreamMatch(timeout=WAIT_S)
            await stream.write(match_pb2.StreamMatchRequest(items=[_item(1)]))
            await until(lambda: len(world.matcher.asked) == 1)
            await world.crash()
            failed = await failure(single)
            assert (failed.code(), reason(failed)) == (grpc.StatusCode.UNAVAILABLE, "UNREACHABLE")
            assert "look before you repeat" in str(failed.details())
            assert await answers(stream) == []
            assert details(await stream.trailing_metadata())[0].reason == "UNREACHABLE"
            asked = len(world.matcher.asked)
            await world.start()
            await asyncio.sleep(0.1)
            assert len(world.matcher.asked) == asked
            assert world.fronts[0].link.report.lost == 2

    tell(story)


def _item(number: int) -> match_pb2.StreamMatchItem:
    return match_pb2.StreamMatchItem(id=number, content=hashed(number))


def test_what_was_not_yet_sent_is_never_sent_to_the_next_engine(tmp_path: Path) -> None:
    """It was answered as lost: a ban that an analyst then repeats must not be made twice."""

    async def story() -> None:
        async with relayed(tmp_path) as world:
            link = world.fronts[0].link
            await world.crash()
            await until(lambda: not link.serving)
            link.standing = relay_pb2.STANDING_SERVING  # the news that it is gone has not come
            call = world.stub().Match(MATCH, timeout=WAIT_S)
            await until(lambda: len(link._calls) == 1)
            link._renew()
            assert reason(await failure(call)) == "UNREACHABLE"
            await world.start()
            assert (await world.stub().Match(MATCH, timeout=5)).result.hits
            assert len(world.matcher.asked) == 1

    tell(story)


def test_a_front_of_another_release_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its messages mean is not known."""

    async def story() -> None:
        monkeypatch.setattr(links, "__version__", "0.0.0")
        world = Relayed(Config(ServerConfig(listen="127.0.0.1:0")), tmp_path / "engine")
        await world.start()
        front = Front(world.config, world.path, FrontGuard())
        address = await front.open()
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.sleep(0.2)
            stub: Any = match_pb2_grpc.MatchServiceStub(channel)
            assert reason(await failure(stub.Match(MATCH, timeout=5))) == "NOT_READY"
        assert world.engine
        assert world.engine.counts.fronts == 0
        await front.close(None)
        await world.crash()

    tell(story)


# ---------------------------------------------------------------- a front comes and goes


def test_a_dead_fronts_calls_are_dropped(tmp_path: Path) -> None:
    """What it waited for is not worked on, as soon as it is noticed."""

    async def story() -> None:
        async with relayed(tmp_path, count=2) as world:
            world.matcher.released.clear()
            calls = [world.stub(0).Match(MATCH, timeout=WAIT_S) for _ in range(4)]
            await until(lambda: world.work is not None and world.work.counts.in_flight == 4)
            link = world.fronts[0].link
            assert link._wire
            link._wire.close()  # and nothing is said
            await asyncio.sleep(0.1)
            world.matcher.released.set()
            assert world.work
            await until(lambda: world.work is not None and world.work.counts.in_flight == 0)
            assert world.work.counts.cancelled >= 2
            assert world.engine
            assert world.engine.counts.fronts == 1
            for call in calls:
                call.cancel()
            link._wire = None
            assert (await world.stub(1).Match(MATCH, timeout=5)).result.hits

    tell(story)


def test_a_silent_front_is_taken_for_dead_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was only held up begins anew, and loses what it had under way."""
    monkeypatch.setattr(engines, "SILENCE_MAX_S", 0.3)
    monkeypatch.setattr(engines, "WATCH_S", 0.05)
    monkeypatch.setattr(fronts, "REPORT_S", 0.7)

    async def story() -> None:
        async with relayed(tmp_path) as world:
            assert world.engine
            world.matcher.released.clear()
            call = world.stub().Match(MATCH, timeout=WAIT_S)
            await until(lambda: bool(world.engine and world.engine.counts.fronts == 0))
            assert world.work
            await until(lambda: world.work is not None and world.work.counts.in_flight == 0)
            assert reason(await failure(call)) == "UNREACHABLE"
            monkeypatch.setattr(engines, "SILENCE_MAX_S", 60.0)
            world.matcher.released.set()
            await until(lambda: bool(world.engine and world.engine.counts.fronts == 1))
            await until(lambda: world.fronts[0].link.serving)
            assert (await world.stub().Match(MATCH, timeout=5)).result.hits

    tell(story)


# ---------------------------------------------------------------- calls


def test_a_call_that_is_given_up_ends_in_the_engine(tmp_path: Path) -> None:
    """Its ticket comes back, and what had not begun never does."""

    async def story() -> None:
        async with relayed(tmp_path) as world:
            world.matcher.released.clear()
            calls = [world.stub().Match(MATCH, timeout=WAIT_S) for _ in range(3)]
            await until(lambda: world.work is not None and world.work.counts.in_flight == 3)
            for call in calls:
                call.cancel()
            assert world.work
            await until(lambda: world.work is not None and world.work.counts.in_flight == 0)
            assert world.work.counts.cancelled == 3
            assert world.fronts[0].link.report.given_up == 3
            assert world.fronts[0].link._calls == {}
            assert world.fronts[0].link._nbytes == 0

    tell(story)


def test_a_front_refuses_what_it_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, by number and by bytes; nothing waits in a queue of ZeroMQ."""
    monkeypatch.setattr(links, "CALLS_MAX", 2)

    async def story() -> None:
        async with relayed(tmp_path) as world:
            link = world.fronts[0].link
            world.matcher.released.clear()
            calls = [world.stub().Match(MATCH, timeout=WAIT_S) for _ in range(2)]
            await until(lambda: len(link._calls) == 2)
            failed = await failure(world.stub().Match(MATCH, timeout=5))
            assert failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "grpc-retry-pushback-ms" in dict(cast(Any, failed.trailing_metadata()))
            world.matcher.released.set()
            for call in calls:
                await call
            link._nbytes_max = 8
            assert reason(await failure(world.stub().Match(MATCH, timeout=5))) == "OVERLOADED"
            assert link.report.refused_full == 2

    tell(story)


def test_answers_that_nobody_takes_stay_few(tmp_path: Path) -> None:
    """A front holds a window of a stream's answers and the engine makes no more; taken, they all
    come."""

    async def story() -> None:
        async with relayed(tmp_path, stream_window_items=4_096) as world:
            world.matcher.hits, world.matcher.label = 100, "x" * 1_000
            call = world.stub().StreamMatch(timeout=3 * WAIT_S)
            for number in range(0, 1_024, 32):
                items = [_item(n) for n in range(number, number + 32)]
                await call.write(match_pb2.StreamMatchRequest(items=items))
            await call.done_writing()
            await asyncio.sleep(1.0)
            [stream] = world.fronts[0].link._calls.values()
            waiting = cast(Any, stream).responses._waiting
            assert 0 < sum(map(len, waiting)) < relay.WINDOW_BYTES + 8 * ANSWER_BYTES
            assert sorted(a.id for a in await answers(call)) == list(range(1_024))

    tell(story)


def test_a_large_payload_goes_through_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, in single calls and streams; and where there is no room, through the
    socket."""
    written: list[int] = []

    class Watched(Arena):
        def put(self, payload: bytes) -> Any:
            block = super().put(payload)
            written.append(-1 if block is None else block.offset)
            return block

    monkeypatch.setattr(links, "arena", lambda: Watched(5 << 20))
    pictures = [bytes([n]) * (2 << 20) for n in range(3)] + [b"\x09" * (6 << 20), b"small"]

    async def story() -> None:
        async with relayed(tmp_path) as world:
            for picture in pictures:
                request = match_pb2.MatchRequest(content=content_pb2.Content(image=picture))
                await world.stub().Match(request, timeout=WAIT_S)
            call = world.stub().StreamMatch(timeout=WAIT_S)
            for number, picture in enumerate(pictures):
                content = content_pb2.Content(image=picture)
                item = match_pb2.StreamMatchItem(id=number, content=content)
                await call.write(match_pb2.StreamMatchRequest(items=[item]))
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
            seen = [c.data for c in world.matcher.contents if isinstance(c, ImageContent)]
            assert seen[: len(pictures)] == pictures
            assert sorted(seen[len(pictures) :]) == sorted(pictures)  # in the order of their turns
            assert len(written) == 8
            assert written.count(-1) >= 2
            assert written.count(0) >= 2
            memory = cast(Arena, world.fronts[0].link._arena)
            await until(lambda: memory.nbytes_used == 0)

    tell(story)


# ---------------------------------------------------------------- who calls


def test_a_share_is_one_over_all_fronts(tmp_path: Path) -> None:
    """Items a second and calls at a time, whichever front they come in through."""
    callers = Callers(tmp_path / "identities.toml")
    callers.add("slow", "ingest", items_per_s=0.001)
    callers.add("one", "ingest", in_flight_max=1)

    def metadata(name: str) -> Any:
        return (("authorization", f"Bearer {callers.tokens[name]}"),)

    async def story() -> None:
        async with relayed(tmp_path, count=2, callers=callers) as world:
            await world.stub(0).Match(MATCH, timeout=5, metadata=metadata("slow"))
            failed = await failure(world.stub(1).Match(MATCH, timeout=5, metadata=metadata("slow")))
            assert reason(failed) == "OVERLOADED"
            world.matcher.released.clear()
            first = world.stub(0).Match(MATCH, timeout=5, metadata=metadata("one"))
            await until(lambda: len(world.matcher.asked) == 2)
            failed = await failure(world.stub(1).Match(MATCH, timeout=5, metadata=metadata("one")))
            assert reason(failed) == "OVERLOADED"
            world.matcher.released.set()
            await first

    tell(story)


def test_strangers_end_at_the_front(tmp_path: Path) -> None:
    """The engine hears nothing of them but how many there were."""
    callers = Callers(tmp_path / "identities.toml")
    callers.add("auditor", "auditor")

    async def story() -> None:
        async with relayed(tmp_path, callers=callers) as world:
            assert reason(await failure(world.stub().Match(MATCH))) == "UNAUTHENTICATED"
            token = (("authorization", f"Bearer {callers.tokens['auditor']}"),)
            failed = await failure(world.stub().Match(MATCH, metadata=token))
            assert reason(failed) == "PERMISSION_DENIED"
            link = world.fronts[0].link
            assert link.report.relayed == 0
            assert world.engine
            door = world.engine
            await until(lambda: door._refused_at_fronts().unauthenticated == 1)
            assert door._refused_at_fronts().denied == 1

    tell(story)


def test_an_engine_that_asks_takes_no_call_of_nobody(tmp_path: Path) -> None:
    """A front that was started without the identities lets nobody in by that."""

    async def story() -> None:
        async with relayed(tmp_path) as world:
            await world.crash()
            world.asks = True
            await world.start()
            assert reason(await failure(world.stub().Match(MATCH, timeout=5))) == "UNAUTHENTICATED"

    tell(story)


def test_a_token_stays_at_the_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine learns the name that it proved, and every other header."""
    callers = Callers(tmp_path / "identities.toml")
    callers.add("ingest", "ingest")
    seen: list[Any] = []
    before = RelayedContext.__init__

    def noting(self: Any, opening: Any) -> None:
        before(self, opening)
        seen.append((self.caller.name, dict(self.invocation_metadata()), opening))

    monkeypatch.setattr(RelayedContext, "__init__", noting)

    async def story() -> None:
        async with relayed(tmp_path, callers=callers) as world:
            metadata = (("authorization", f"Bearer {callers.tokens['ingest']}"), ("x-trace", "t"))
            await world.stub().Match(MATCH, timeout=5, metadata=metadata)
            [(name, headers, opening)] = seen
            assert (name, headers["x-trace"]) == ("ingest", "t")
            assert callers.tokens["ingest"].encode() not in opening.SerializeToString()

    tell(story)


@pytest.mark.parametrize(
    "caller",
    [
        Identity("a", frozenset({Role.INGEST}), BankAccess(("x*", "y")), BankAccess(())),
        Identity("b", frozenset(Role), BankAccess(()), BankAccess(("z",)), True, Quota(0.5, 3), 7),
        Identity("c", frozenset({Role.ADMIN}), BankAccess(), BankAccess(), False, Quota(None, 1)),
    ],
)
def test_a_caller_is_the_same_behind_the_front(caller: Identity) -> None:
    """Every right and every bound."""
    assert caller_from(caller_to(caller)) == caller
    assert {f for f in caller.__dataclass_fields__} == {
        "name", "roles", "reads", "edits", "scores", "quota", "edits_per_day",
    }  # fmt: skip


def test_local_is_local_and_nobody_is_nobody() -> None:
    """Who has no name may do nothing."""
    assert caller_from(caller_to(LOCAL)) is LOCAL
    nobody = caller_from(caller_to(replace(LOCAL, name="", roles=frozenset())))
    assert nobody is not LOCAL
    assert nobody.roles == frozenset()


# ---------------------------------------------------------------- the page of metrics


MATCHES, STREAMS = "MatchService/Match", "MatchService/StreamMatch"


def test_calls_that_end_at_a_front_are_counted_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, by RPC and outcome, wherever it ended: strangers, those who may not, and those
    whom the front had no room for; with how long they took."""
    monkeypatch.setattr(fronts, "REPORT_S", 0.05)
    callers = Callers(tmp_path / "identities.toml")
    callers.add("auditor", "auditor")
    callers.add("ingest", "ingest")

    def metadata(name: str) -> Any:
        return (("authorization", f"Bearer {callers.tokens[name]}"),)

    async def story() -> None:
        async with relayed(tmp_path, count=2, callers=callers) as world:
            for number in (0, 1):
                await failure(world.stub(number).Match(MATCH))
            await failure(world.stub(0).Match(MATCH, metadata=metadata("auditor")))
            stream = world.stub(1).StreamMatch(timeout=WAIT_S)
            assert await answers(stream) == []
            for number in (0, 1, 1):
                await world.stub(number).Match(MATCH, timeout=5, metadata=metadata("ingest"))
            world.fronts[0].link._nbytes_max = 8
            await failure(world.stub(0).Match(MATCH, metadata=metadata("ingest")))
            expected = {
                (MATCHES, "OK"): 3,
                (MATCHES, "UNAUTHENTICATED"): 2,
                (MATCHES, "PERMISSION_DENIED"): 1,
                (MATCHES, "OVERLOADED"): 1,
                (STREAMS, "UNAUTHENTICATED"): 1,
            }
            await until(lambda: sum(world.ended().values()) == 8)
            assert world.ended() == expected
            page = world.page()
            assert 0 < page["simsearch_call_seconds_sum", MATCHES, "UNAUTHENTICATED"] < WAIT_S
            assert page["simsearch_call_seconds_bucket", MATCHES, "UNAUTHENTICATED", "+Inf"] == 2
            assert page["simsearch_fronts",] == 2
            await until(lambda: world.page()["simsearch_front_calls_total", "relayed"] == 3)
            assert world.page()["simsearch_calls_refused_total", "front", "full"] == 1
            assert world.engine
            for front in list(world.engine._fronts.values()):  # taken for dead: they come back
                world.engine._drop(front)
            assert world.page()["simsearch_fronts",] == 0
            assert world.ended() == expected
            await until(lambda: world.page()["simsearch_fronts",] == 2)
            await asyncio.sleep(0.2)
            assert world.ended() == expected

    tell(story)


def test_calls_that_an_engine_took_with_it_are_counted_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those that came when there was none."""
    monkeypatch.setattr(fronts, "REPORT_S", 0.05)

    async def story() -> None:
        async with relayed(tmp_path) as world:
            world.matcher.released.clear()
            single = world.stub().Match(MATCH, timeout=WAIT_S)
            stream = world.stub().StreamMatch(timeout=WAIT_S)
            await stream.write(match_pb2.StreamMatchRequest(items=[_item(1)]))
            await until(lambda: len(world.matcher.asked) == 1)
            await world.crash()
            await failure(single)
            assert await answers(stream) == []
            await failure(world.stub().Match(MATCH, timeout=5))
            world.observer = Observer()  # that of another process
            await world.start()
            expected = {
                (MATCHES, "UNREACHABLE"): 1,
                (STREAMS, "UNREACHABLE"): 1,
                (MATCHES, "NOT_READY"): 1,
            }
            await until(lambda: sum(world.ended().values()) == 3)
            assert world.ended() == expected
            page = world.page()
            assert page["simsearch_front_calls_total", "lost"] == 2
            assert page["simsearch_calls_refused_total", "front", "not_ready"] == 1

    tell(story)


def test_a_call_that_is_given_up_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the engine, as CANCELLED."""
    monkeypatch.setattr(fronts, "REPORT_S", 0.05)

    async def story() -> None:
        async with relayed(tmp_path) as world:
            world.matcher.released.clear()
            call = world.stub().Match(MATCH, timeout=WAIT_S)
            await until(lambda: len(world.matcher.asked) == 1)
            call.cancel()
            await until(lambda: bool(world.ended()))
            await asyncio.sleep(0.2)
            assert world.ended() == {(MATCHES, "CANCELLED"): 1}

    tell(story)


def test_a_stream_whose_caller_may_no_longer_is_counted_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, although its first answers are the engine's and its end is the front's."""
    monkeypatch.setattr(fronts, "REPORT_S", 0.05)
    callers = Callers(tmp_path / "identities.toml")
    callers.add("ingest", "ingest")

    async def story() -> None:
        async with relayed(tmp_path, callers=callers) as world:
            metadata = (("authorization", f"Bearer {callers.tokens['ingest']}"),)
            stream = world.stub().StreamMatch(timeout=WAIT_S, metadata=metadata)
            await stream.write(match_pb2.StreamMatchRequest(items=[_item(1)]))
            first = await stream.read()
            assert [answer.id for answer in first.answers] == [1]
            monkeypatch.setattr(
                world.fronts[0].guard, "permitted", lambda context, method: replace(LOCAL, name="x")
            )
            await stream.write(match_pb2.StreamMatchRequest(items=[_item(2)]))
            assert await answers(stream) == []
            assert details(await stream.trailing_metadata())[0].reason == "UNAUTHENTICATED"
            await until(lambda: bool(world.ended()))
            await asyncio.sleep(0.2)
            assert world.ended() == {(STREAMS, "UNAUTHENTICATED"): 1}

    tell(story)


def test_of_fronts_that_went_long_ago_the_sum_is_kept() -> None:
    """However many there were, and none is counted twice."""
    reports, calls = Reports(), Endings()
    calls._calls.observe((MATCHES, "NOT_READY"), 0.5)
    for number in range(3 * GONE_KEPT):
        report = relay_pb2.Report(relayed=2, denied=1)
        calls.report(report)
        reports.take(str(number), report)
        reports.take(str(number), report)
        reports.forget_but({"0"})
    assert len(reports._by_front) == GONE_KEPT + 1
    sums = reports.sums(1)
    assert sums.counts == FrontCounts(fronts=1, relayed=6 * GONE_KEPT)
    assert sums.refused.denied == 3 * GONE_KEPT
    spread = sums.calls[MATCHES, "NOT_READY"]
    assert sum(spread.counts) == 3 * GONE_KEPT
    assert spread.total == 1.5 * GONE_KEPT


# ---------------------------------------------------------------- parts


def test_a_window_closes_and_opens_again() -> None:
    """A sender is ahead of the reader by a window and at most one message more."""

    async def story() -> None:
        out = Outflow()
        into = Inflow(out.grow)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(1_000):
                await out.take(100_000)
                into.put(number.to_bytes(4, "big") + bytes(99_996))
                sent += 1
            into.put(None)

        sending = asyncio.create_task(send())
        taken = 0
        async for message in into:
            assert int.from_bytes(message[:4], "big") == taken
            taken += 1
            await asyncio.sleep(0)
            ahead = (sent - taken) * 100_000
            assert ahead <= relay.WINDOW_BYTES + 100_000 + relay.WINDOW_BYTES // 4
        await sending
        assert taken == 1_000

    tell(story)


def test_small_messages_are_bounded_by_their_number() -> None:
    """A window is not filled with a million empty messages."""

    async def story() -> None:
        out, sent = Outflow(), 0

        async def send() -> None:
            nonlocal sent
            while True:
                await out.take(0)
                sent += 1

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.05)
        sending.cancel()
        assert sent == relay.WINDOW_BYTES // relay.MESSAGE_COST_MIN

    tell(story)


def test_blocks_never_overlap() -> None:
    """Payloads of any size, released in any order, are read as they were written."""
    chance = random.Random(5)
    memory = Arena(1 << 20)
    view = ArenaView(memory.path)
    held: dict[int, tuple[Any, bytes]] = {}
    full = 0
    for step in range(2_000):
        if held and chance.random() < 0.45:
            offset = chance.choice(list(held))
            block, payload = held.pop(offset)
            assert view.read(block) == payload
            memory.release(offset)
        else:
            payload = step.to_bytes(4, "big") * chance.randrange(1, 40_000)
            placed = memory.put(payload)
            if placed is None:
                full += 1
                assert memory.nbytes_used + len(payload) > (1 << 20) // 8
            else:
                assert placed.offset not in held
                held[placed.offset] = placed, payload
    assert full > 10
    assert all(view.read(block) == payload for block, payload in held.values())
    assert memory.nbytes_used == sum(len(payload) for _, payload in held.values())
    view.close()
    memory.close()


def test_a_front_knows_neither_models_nor_banks() -> None:
    """Nor does the parent: they are started in an instant, and stay small."""
    words = (
        "import simsearch.serve.front, simsearch.serve.supervisor, simsearch.serve.child, sys; "
        "print([m for m in ('torch', 'faiss', 'lmdb', 'PIL', 'open_clip', 'simsearch.bank', "
        "'simsearch.encode', 'simsearch.index', 'simsearch.match', 'prometheus_client') "
        "if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_the_bounds_fit_together() -> None:
    """ZeroMQ's queues hold everything that may be under way."""
    streams = relay.CALLS_MAX * (relay.WINDOW_BYTES // relay.MESSAGE_COST_MIN)
    assert streams + 4 * relay.CALLS_MAX <= 2 * relay.MESSAGES_MAX
