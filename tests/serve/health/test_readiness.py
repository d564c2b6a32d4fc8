"""A whole process as its operator sees it: ready, wrong, draining, gone; and what it says."""

from __future__ import annotations

import asyncio
import contextvars
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec import structs
from PIL import Image, PngImagePlugin

from simsearch.client import Client
from simsearch.config import CacheConfig, CanaryConfig, Config, ServerConfig
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.errors import NotYetVisible, SimsearchError
from simsearch.serve.auth.authorization import Authorization
from simsearch.serve.auth.identity import LOCAL, act_for
from simsearch.serve.banks.bank_service import _create_bank
from simsearch.serve.health.readiness import HealthMonitor
from simsearch.serve.metrics.collector import ServerCollector
from simsearch.serve.scheduling.executor import MatchExecutor
from simsearch.serve.transport.concurrency_limit import ConcurrencyLimit
from simsearch.types import (
    Edit,
    HashContent,
    ImageContent,
    MatchOptions,
    Modality,
    Signal,
    TextContent,
)
from simsearch.v1 import bank_pb2, match_pb2, match_pb2_grpc
from tests.fakes import FakeTextEncoder, unit_of
from tests.serve.fake_process import BROKEN, SLOW, FakeServer, fake_server
from tests.serve.house import _core

EDIT = Edit("ann", "a test")
QUICK = "[canary]\nevery_s = 0.2\n"
REASONS = ("NOT_READY", "OVERLOADED", "INTERNAL")
LONG = 6
"""Times slow: longer than refusals are waited for, once no call is in flight."""
SERVING = health_pb2.HealthCheckResponse.SERVING


def until(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def health_of(server: FakeServer) -> dict[str, bool]:
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        names = ("", "live", "simsearch.v1.MatchService")
        ask = health_pb2.HealthCheckRequest
        return {n: stub.Check(ask(service=n), timeout=10).status == SERVING for n in names}


def test_a_wrong_canary_is_not_ready_and_lives(tmp_path: Path) -> None:
    """Out of rotation and not into a restart: every probe says so, calls are answered all the
    same, the log and GetStatus say why, and it comes back by itself."""
    with fake_server(tmp_path, QUICK) as server, Client(server.address) as client:
        client.create_bank("alpha", EDIT)
        server.turn_vectors()
        until(lambda: server.fetch("/ready")[0] == 503)
        assert server.fetch("/live")[0] == 200
        assert health_of(server) == {"": False, "live": True, "simsearch.v1.MatchService": False}
        client.match(TextContent("whoever asks is answered"))
        status = client.status()
        assert not status.ready
        assert [(f.part, f.signal) for f in status.canary if not f.right] == [
            ("content", "prose@aaaaaaaaaaaa/none/8")
        ]
        server.turn_vectors()
        until(lambda: server.fetch("/ready")[0] == 200)
        assert all(health_of(server).values())
        assert client.status().ready
        said = server.log.read_text()
        assert said.count('"canary_wrong"') == 1
        assert said.count('"canary_right"') == 1


# ---------------------------------------------------------------- the end


def test_a_stop_under_load_loses_no_call(tmp_path: Path) -> None:
    """What was let in is answered, streams to what they have read; what comes later is refused by
    name; meanwhile the process is not ready, lives, and is scraped; then it exits with 0."""
    with (
        fake_server(tmp_path) as server,
        ThreadPoolExecutor(16) as pool,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub: Any = match_pb2_grpc.MatchServiceStub(channel)
        with Client(server.address) as client:
            client.create_bank("alpha", EDIT)
        in_flight = [pool.submit(_slow_call, stub, number) for number in range(4)]
        held = threading.Event()
        streaming = pool.submit(_slow_stream, stub, held)
        until(lambda: "simsearch_match_calls_in_flight 5.0" in server.fetch("/metrics")[1])
        stop = threading.Event()
        hammering = [pool.submit(_hammer, stub, stop) for _ in range(4)]
        begun = time.monotonic()
        server.process.terminate()
        until(lambda: server.fetch("/ready")[0] == 503)
        assert server.fetch("/live")[0] == 200
        assert "simsearch_ready 0.0" in server.fetch("/metrics")[1]
        assert [call.result(20) for call in in_flight] == ["OK"] * 4
        assert streaming.result(20) == (3, "NOT_READY")
        assert server.process.wait(20) == 0
        assert time.monotonic() - begun < 10
        stop.set()
        held.set()
        outcomes = {outcome for each in hammering for outcome in each.result(20)}
        assert outcomes <= {"OK", "OVERLOADED", "NOT_READY", "GONE", "NOT BEGUN"}
        assert "NOT_READY" in outcomes
        said = server.log.read_text()
        assert "server_stopped" in said
        assert "Traceback" not in said
        assert '"ERROR"' not in said


def _outcome(call: Callable[[], object]) -> str:
    """The reason of a refusal; GONE where nobody listens any more, NOT BEGUN where the port was
    closed before the server had taken the call, else LOST."""
    try:
        call()
    except grpc.RpcError as failure:
        said: Any = failure
        for key, value in said.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                return next(
                    r for r in ("NOT_READY", "OVERLOADED", "INTERNAL") if r.encode() in value
                )
        words = str(said.details())
        if said.code() is grpc.StatusCode.CANCELLED:
            return "NOT BEGUN"
        return "GONE" if "failed to connect" in words.lower() else f"LOST: {words}"
    return "OK"


def _request(words: str) -> match_pb2.MatchRequest:
    request = match_pb2.MatchRequest()
    request.content.text = words
    return request


def _slow_call(stub: Any, number: int) -> str:
    times = LONG if number == 0 else 1
    words = f"{f'{SLOW} ' * times} sentence with the number {number}"
    return _outcome(lambda: stub.Match(_request(words), timeout=20))


def _hammer(stub: Any, stop: threading.Event) -> list[str]:
    outcomes = []
    while not stop.is_set():
        outcomes.append(_outcome(lambda: stub.Match(_request("quick"), timeout=20)))
        if outcomes[-1] not in ("OK", "OVERLOADED"):
            time.sleep(0.02)
    return outcomes


def _slow_stream(stub: Any, held: threading.Event) -> tuple[int, str]:
    """How many of its three items a stream had answered that nobody closed, and how it ended."""

    def requests() -> Iterator[match_pb2.StreamMatchRequest]:
        message = match_pb2.StreamMatchRequest()
        for number in range(3):
            item = message.items.add(id=number)
            item.content.text = f"{SLOW} item of a stream, number {number}"
        yield message
        held.wait(20)

    answered = 0

    def read() -> None:
        nonlocal answered
        for response in stub.StreamMatch(requests(), timeout=20):
            answered += len(response.answers)

    outcome = _outcome(read)
    held.set()
    return answered, outcome


# ---------------------------------------------------------------- edits that take too long


def _as_local(core: Any, request: bank_pb2.CreateBankRequest) -> None:
    act_for(LOCAL)
    _create_bank(core, request, LOCAL)


def test_an_edit_that_is_not_seen_in_time_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it is told so by name, and that it must not be sent again."""
    core = _core(tmp_path, EncoderSet({}), CacheConfig(), None)
    hasty = structs.replace(core.config, server=ServerConfig(visible_timeout_s=0.2))
    held = threading.Event()
    step = type(core.follower)._catch_up

    def slow(follower: Any) -> None:
        held.wait(10)
        step(follower)

    monkeypatch.setattr(type(core.follower), "_catch_up", slow)
    request = bank_pb2.CreateBankRequest(
        name="alpha", edit=bank_pb2.Edit(actor="ann", reason="a test")
    )
    try:
        with pytest.raises(NotYetVisible, match="alpha"):
            contextvars.copy_context().run(_as_local, replace(core, config=hasty), request)
        assert [bank.name for bank in core.store.banks()] == ["alpha"]
    finally:
        held.set()
        core.close()


# ---------------------------------------------------------------- ready at last


def test_it_is_announced_when_all_is_right(tmp_path: Path) -> None:
    """Not before the canary is; once; and never again after the drain began."""

    class Broken(FakeTextEncoder):
        turned = True

        def encode_texts(self, texts: Any, call: Any = None) -> Any:
            if self.turned:
                raise RuntimeError("broken")
            return super().encode_texts(texts)

    async def story() -> None:
        prose = Broken()
        loaded = LoadedEncoder("prose", Modality.TEXT, text=prose)
        core = _core(tmp_path, EncoderSet({"prose": loaded}), CacheConfig(), None)
        work, limit = MatchExecutor(ServerConfig()), ConcurrencyLimit(8)
        work.begin(core)
        told: list[bool] = []
        announced: list[None] = []

        async def tell(serving: bool) -> None:
            told.append(serving)

        config = Config(canary=CanaryConfig(every_s=0.05, timeout_s=5))
        collector = ServerCollector(Authorization(), limit, work)
        monitor = HealthMonitor(config, work, core.metrics, collector, tell)
        monitor.open()
        monitor.begin(core, lambda: announced.append(None))
        await asyncio.sleep(0.3)
        assert (told, announced) == ([], [])
        prose.turned = False
        await _until(lambda: core.health.ready)
        prose.turned = True
        await _until(lambda: not core.health.ready)
        prose.turned = False
        await _until(lambda: core.health.ready)
        assert (told, announced) == ([True, False, True], [None])
        await monitor.drain()
        await asyncio.sleep(0.2)
        assert told == [True, False, True, False]
        assert not core.health.ready
        assert work.close(10)
        monitor.forget_core()
        core.close()
        families = {family.name: family for family in collector.collect()}
        assert [sample.value for sample in families["simsearch_ready"].samples] == [0]
        assert families["simsearch_index_visible_seq"].samples == []  # nothing of a closed core
        monitor.close()

    asyncio.run(story())


async def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


# ---------------------------------------------------------------- nothing of content gets out

MARK = "xylophonequartz"


def _marked_image() -> bytes:
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", MARK)
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "PNG", pnginfo=note)
    return out.getvalue()


def _refused(call: Callable[[], object]) -> None:
    with pytest.raises(SimsearchError):
        call()


@pytest.mark.parametrize("log_format", ["json", "lines"])
def test_no_content_is_logged_or_counted(tmp_path: Path, log_format: str) -> None:
    """Marked content, notes, sources, tokens and broken requests go through everything, failures
    of an encoder included: no mark, no vector and no score is in the log or on the page."""
    with fake_server(tmp_path, QUICK, log_format) as server, Client(server.address) as client:
        client.create_bank("alpha", EDIT, description=f"about {MARK}")
        banned = TextContent(f"{MARK} in a banned sentence of some length, with boats")
        entry = client.add_entry(
            "alpha", [banned], Edit("ann", f"because of {MARK}"), labels=[MARK], note=MARK,
            source=MARK, source_id=MARK,
        ).entry  # fmt: skip
        image = ImageContent(_marked_image())
        client.add_entry("alpha", [image], EDIT)
        client.match_batch([banned, image, TextContent(f"{MARK} that is harmless")])
        for bad in (
            TextContent(f"{BROKEN} {MARK}"),
            TextContent(MARK * 3_000),
            ImageContent(b"\x89PNG\r\n\x1a\n" + MARK.encode() * 9),
            HashContent(Signal.PDQ, MARK.encode()),
        ):
            _refused(lambda bad=bad: client.match(bad))  # type: ignore[misc]
            _refused(lambda bad=bad: client.add_entry("alpha", [bad], EDIT))  # type: ignore[misc]
        _refused(lambda: client.match(banned, MatchOptions(banks=(f"no-{MARK}",))))
        _refused(lambda: client.create_bank(f"{MARK} {MARK}", EDIT))
        _raw(server, MARK.encode(), (("simsearch-priority", MARK), ("authorization", MARK)))
        _raw(server, _request(MARK).SerializeToString(), (("simsearch-priority", MARK),))
        client.retract_entry("alpha", entry.key, Edit("ann", MARK))
        server.turn_vectors()
        until(lambda: server.fetch("/ready")[0] == 503)
        page = server.fetch("/metrics")[1]
        assert server.stop() == 0
        said = server.log.read_text()
    assert "encoder_failed" in said
    assert "canary_wrong" in said
    for written in (said, page):
        assert MARK not in written
        assert MARK.encode().hex() not in written
    assert "cosine" not in said
    assert "hamming" not in said
    vector = unit_of(banned.text.lower())
    assert f"{vector[0]:.4f}" not in said


def _raw(server: FakeServer, message: bytes, metadata: tuple[tuple[str, str], ...]) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.unary_unary("/simsearch.v1.MatchService/Match", None, None)
        with pytest.raises(grpc.RpcError):
            call(message, metadata=metadata, timeout=10)
