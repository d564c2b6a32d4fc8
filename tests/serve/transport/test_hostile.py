"""Images and connections that mean harm: each comes to its end, and nobody else waits for it."""

from __future__ import annotations

import gzip
import itertools
import os
import queue
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from simsearch.client.credentials import ClientTls, channel_credentials
from simsearch.config import TlsConfig
from simsearch.errors import BadInput, Overloaded, SimsearchError
from simsearch.serve.auth.authorization import Authorization
from simsearch.serve.auth.identity import Identity
from simsearch.serve.transport import port
from simsearch.serve.transport.certificates import ServerTls
from simsearch.types import ImageContent
from simsearch.v1 import match_pb2
from simsearch.wire import content_to
from tests.serve.attacked import BANNED, IDLE_S, Target, attacked, target
from tests.serve.callers import code_of, guarded, one_of_each
from tests.serve.certificates import Authority, Pair
from tests.serve.fuzzing import memory_kib, peak_kib, reason_of
from tests.serve.hostile_images import hostile_images
from tests.serve.http2 import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    Kind,
    Raw,
    block,
    frame,
    header,
    message,
    opening,
)

__all__ = ["target"]

LATE_S = 5.0
"""However busy the machine is: a hash takes a millisecond."""

STATUS_RPC = "/simsearch.v1.IndexService/GetStatus"
MATCH_RPC = "/simsearch.v1.MatchService/Match"
STREAM_RPC = "/simsearch.v1.MatchService/StreamMatch"
IMAGES = hostile_images()

MIB = 1 << 20


@contextmanager
def answering(target: Target) -> Iterator[list[float]]:
    """Somebody asks for hashes all the while, and none is refused or late. Gives the seconds that
    each took."""
    took: list[float] = []
    faults: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        with target.client("ingest") as client:
            while not over.is_set():
                took.append(_timed(lambda: client.match(BANNED), faults))
                over.wait(0.01)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield took
    finally:
        over.set()
        asking.join()
    assert faults == []
    assert took
    assert max(took) < LATE_S


def _timed(call: Callable[[], object], faults: list[BaseException]) -> float:
    begun = time.perf_counter()
    try:
        call()
    except SimsearchError as fault:
        faults.append(fault)
    return time.perf_counter() - begun


# ---------------------------------------------------------------- images


def test_hostile_images_are_answered_or_refused_by_name(target: Target) -> None:
    """Bombs, polyglots, animations, odd modes, nothing at all: as each says of itself."""
    with target.client() as client:
        outcomes = client.match_batch([ImageContent(data) for data, _ in IMAGES.values()])
        came = [o.reason if isinstance(o, SimsearchError) else "" for o in outcomes]
        assert dict(zip(IMAGES, came, strict=True)) == {n: end for n, (_, end) in IMAGES.items()}
    page = target.server.fetch("/metrics")[1]
    for kind in ("crashes", "timeouts", "starved"):
        assert f'simsearch_images_total{{outcome="{kind}"}} 0.0' in page


def flood(target: Target, over: threading.Event, number: int) -> None:
    """One caller's, each image a new one: nothing is known of it."""
    images = [data for data, _ in IMAGES.values() if data]
    with target.client("ingest") as client:
        for count in itertools.count():
            if over.is_set():
                return
            data = images[count % len(images)] + struct.pack("<II", number, count)
            with suppress(BadInput, Overloaded):
                client.match_image(data)


@contextmanager
def flooded(target: Target, callers: int) -> Iterator[None]:
    over = threading.Event()
    floods = [threading.Thread(target=flood, args=(target, over, n)) for n in range(callers)]
    for each in floods:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in floods:
            each.join()


def test_a_flood_of_them_keeps_nobody_waiting(target: Target) -> None:
    """Hashes are answered meanwhile, every one and none of them late."""
    with flooded(target, 3), answering(target) as took:
        time.sleep(0.8)
    assert len(took) > 5


@pytest.mark.slow
def test_how_long_others_wait_in_a_flood(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Quiet and flooded windows by turns; the ratio of their 99th percentiles is recorded. On a
    machine with a core to spare for decode workers it is to be 1.1 at most."""
    with attacked(tmp_path) as target:
        quiet: list[float] = []
        loud: list[float] = []
        for _ in range(6):
            quiet += _window(target)
            with flooded(target, 4):
                loud += _window(target)
        at = [statistics.quantiles(each, n=100)[98] * 1e3 for each in (quiet, loud)]
        medians = [statistics.median(each) * 1e3 for each in (quiet, loud)]
        record_property("p50_ms", [round(each, 2) for each in medians])
        record_property("p99_ms", [round(each, 2) for each in at])
        record_property("p99_ratio", round(at[1] / at[0], 2))
        target.check_alive()


def _window(target: Target) -> list[float]:
    with answering(target) as took:
        time.sleep(4)
    return took


# ---------------------------------------------------------------- connections


def test_what_is_no_http2_is_hung_up_on(target: Target) -> None:
    """HTTP/1, TLS, noise, and noise after the right greeting."""
    noise = os.urandom(1 << 16)
    tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise[:500]
    with answering(target):
        for said in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", tls, noise, PREFACE + noise):
            with Raw(target.address) as raw:
                raw.send(said)
                assert raw.is_closed()


def test_a_thousand_connections_that_say_nothing_hold_nobody_up(target: Target) -> None:
    """Half of them greet first; each costs the server less than 64 KiB."""
    pid = target.server.process.pid
    before = memory_kib(pid)
    with answering(target), ExitStack() as held:
        idle = [held.enter_context(Raw(target.address)) for _ in range(1_000)]
        for raw in idle[::2]:
            assert raw.send(opening())
        target.check_judges()
        assert memory_kib(pid) - before < 64 * len(idle)


def test_a_client_that_dribbles_holds_nobody_up(target: Target) -> None:
    """A call that comes byte by byte is answered when it is there; others are, meanwhile."""
    request = match_pb2.MatchRequest(content=content_to(BANNED)).SerializeToString()
    headers = frame(Kind.HEADERS, END_HEADERS, 1, block(MATCH_RPC, target.metadata("ingest")))
    said = opening() + headers + frame(Kind.DATA, END_STREAM, 1, message(request))
    with answering(target), ExitStack() as held:
        slow = [held.enter_context(Raw(target.address)) for _ in range(20)]
        for byte in said:
            assert all(raw.send(bytes([byte])) for raw in slow)
        for raw in slow:
            assert _ended(raw) == "0"


def test_a_stream_that_takes_no_answer_is_ended(target: Target) -> None:
    """With a window of nothing on its side: its place is given to others after a while."""
    items = [match_pb2.StreamMatchItem(id=1, content=content_to(BANNED))] * 64
    body = message(match_pb2.StreamMatchRequest(items=items).SerializeToString())
    with answering(target), Raw(target.address) as raw:
        raw.send(opening(window=0))
        raw.send(frame(Kind.HEADERS, END_HEADERS, 1, block(STREAM_RPC, target.metadata())))
        raw.send(frame(Kind.DATA, 0, 1, body))
        _until(lambda: "simsearch_streams_open 1.0" in target.server.fetch("/metrics")[1])
        _until(lambda: "simsearch_streams_open 0.0" in target.server.fetch("/metrics")[1])
        assert _reset(raw, 1) == {1}  # or gRPC would hold the answer still


def test_answers_that_nobody_takes_are_given_up(target: Target) -> None:
    """With a window of nothing and no deadline: none of them stays, and nothing is lost of what
    others ask."""
    contents = [content_to(BANNED)] * 64
    body = message(match_pb2.BatchMatchRequest(contents=contents).SerializeToString())
    calls = range(1, 17, 2)
    with answering(target), Raw(target.address) as raw:
        raw.send(opening(window=0))
        for number in calls:
            raw.send(
                frame(Kind.HEADERS, END_HEADERS, number, block(BATCH_RPC, target.metadata())),
                frame(Kind.DATA, END_STREAM, number, body),
            )
        assert _reset(raw, len(calls)) == set(calls)


def _reset(raw: Raw, count: int) -> set[int]:
    """The calls that the server ends without an answer, up to so many."""
    ended: set[int] = set()
    for came in raw.frames():
        if came.kind == Kind.RST_STREAM:
            ended.add(came.stream)
        if len(ended) == count:
            break
    return ended


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(lambda _: frame(Kind.PING, payload=bytes(8)), id="pings"),
        pytest.param(lambda _: frame(Kind.SETTINGS), id="settings"),
        pytest.param(lambda _: frame(Kind.DATA, 0, 1), id="empty data"),
        pytest.param(lambda _: frame(Kind.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"), id="window updates"),
        pytest.param(lambda n: _begun_and_reset(n), id="calls that are taken back"),
    ],
)
def test_floods_of_small_frames(target: Target, flood: Callable[[int], bytes]) -> None:
    """Allowed one by one: they end with the connection or go on, and nobody else notices."""
    with answering(target), Raw(target.address) as raw:
        raw.send(opening(), frame(Kind.HEADERS, END_HEADERS, 1, block(STATUS_RPC)))
        for begin in range(0, 3_000, 100):
            if not raw.send(*map(flood, range(begin, begin + 100))):
                break


def _begun_and_reset(number: int) -> bytes:
    stream = 3 + 2 * number
    cancel = b"\0\0\0\x08"
    headers = frame(Kind.HEADERS, END_HEADERS, stream, block(STATUS_RPC))
    return headers + frame(Kind.RST_STREAM, 0, stream, cancel)


def test_headers_are_bounded(target: Target) -> None:
    """Too many in one call are refused; without an end, or pointing at each other, they cost the
    server no more than a few times what was sent."""
    with grpc.insecure_channel(target.address) as channel:
        call: Any = channel.unary_unary(STATUS_RPC)
        for bomb in ([("x-long", "a" * 17_000)], [(f"x-{n}", "a" * 20) for n in range(300)]):
            for _ in range(5):  # and not by chance
                with pytest.raises(grpc.RpcError) as refused:
                    call(b"", metadata=[*target.metadata(), *bomb], timeout=10)
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call(b"", metadata=[*target.metadata(), ("x-long", "a" * 15_000)], timeout=10)
    pid = target.server.process.pid
    before = memory_kib(pid)
    with answering(target):
        _headers_without_end(target)
        _headers_that_point(target)
    assert memory_kib(pid) - before < 64 * 1_024


def _headers_without_end(target: Target) -> None:
    more = block("/", [(f"x-{n}", "v" * 1_000) for n in range(15)])
    with Raw(target.address) as raw:
        raw.send(opening(), frame(Kind.HEADERS, 0, 1, block(STATUS_RPC)))
        for _ in range(8 * MIB // len(more)):
            if not raw.send(frame(Kind.CONTINUATION, 0, 1, more)):
                return


def _headers_that_point(target: Target) -> None:
    """One of 3 KiB that is to be kept, and then 10,000 times "that one" in each of ten calls."""
    keep, that_one, flags = b"\x40", b"\xbe", END_HEADERS | END_STREAM
    calls = [block(STATUS_RPC) + that_one * 10_000] * 10
    with Raw(target.address) as raw:
        raw.send(opening())
        first = block(STATUS_RPC) + keep + header("x-kept", "v" * 3_000)
        for number, headers in enumerate([first, *calls]):
            raw.send(frame(Kind.HEADERS, flags, 1 + 2 * number, headers))
        assert [_ended(raw) for _ in calls] == ["8"] * 10


SQUEEZED = gzip.compress(bytes(64 * MIB))

BAD_CALLS: list[tuple[str, list[tuple[str, str]], bytes, str]] = [
    ("a length of 2 GiB", [], b"\0" + struct.pack(">I", 1 << 31) + b"abc", "8"),
    ("a length that is too short", [], b"\0" + struct.pack(">I", 1) + b"\x0abcdef", "3"),
    ("more than one message", [], message(b"\xff") * 2, "3"),
    ("squeezed by nothing", [], b"\1" + struct.pack(">I", 3) + b"abc", "13"),
    ("squeezed by gzip?", [("grpc-encoding", "gzip")], b"\1" + struct.pack(">I", 3) + b"abc", "13"),
    ("64 MiB in 64 KiB", [("grpc-encoding", "gzip")],
     b"\1" + struct.pack(">I", len(SQUEEZED)) + SQUEEZED, "8"),
    ("no deadline", [("grpc-timeout", "soon")], message(b""), "13"),
    ("a deadline of yesterday", [("grpc-timeout", "0n")], message(b""), "4"),
    ("a header that is no base64", [("x-bin", "!!!")], message(b""), "13"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "body", "status"), [c[1:] for c in BAD_CALLS], ids=[c[0] for c in BAD_CALLS]
)
def test_calls_that_are_none(
    target: Target, headers: list[tuple[str, str]], body: bytes, status: str
) -> None:
    """gRPC itself ends most of them, in statuses of its own, before there is a request; what is
    squeezed is never unpacked beyond what a message may be."""
    pid = target.server.process.pid
    before = memory_kib(pid)
    with answering(target), Raw(target.address) as raw:
        said = block(STATUS_RPC, [*target.metadata(), *headers])
        raw.send(opening(), frame(Kind.HEADERS, END_HEADERS, 1, said))
        for begin in range(0, len(body), 1 << 14):
            raw.send(frame(Kind.DATA, 0, 1, body[begin : begin + (1 << 14)]))
        raw.send(frame(Kind.DATA, END_STREAM, 1))
        assert _ended(raw) == status
    assert memory_kib(pid) - before < 40 * 1_024


BANK = "/simsearch.v1.BankService/"
BATCH_RPC = "/simsearch.v1.MatchService/BatchMatch"

SMALL_FIELDS = {
    "contents": (BATCH_RPC, b"", b"\x0a\0", "LIMIT_EXCEEDED"),
    "numbers that are not known": (MATCH_RPC, b"", b"\xf8\x07\x01", "LIMIT_EXCEEDED"),
    "zeros": (MATCH_RPC, b"", b"\0", "BAD_REQUEST"),
    "names of banks": (MATCH_RPC, b"\x12", b"\x0a\0", "LIMIT_EXCEEDED"),
    "drafts": (f"{BANK}BatchAddEntries", b"", b"\x12\0", "LIMIT_EXCEEDED"),
    "labels": (f"{BANK}AddEntry", b"\x12", b"\x12\0", "LIMIT_EXCEEDED"),
    "rules": (f"{BANK}UpdateBank", b"\x1a", b"\x0a\0", "LIMIT_EXCEEDED"),
    "nothing that is known": (STATUS_RPC, b"", b"\xfa\x07\0", "LIMIT_EXCEEDED"),
}
"""RPC, the tag of what the fields are in, one of them, and what is said of many."""


def _many(within: bytes, small: bytes, nbytes: int) -> bytes:
    fields = small * (nbytes // len(small))
    return within + _number(len(fields)) + fields if within else fields


def _number(value: int) -> bytes:
    low = b""
    while value > 0x7F:
        low, value = low + bytes([value & 0x7F | 0x80]), value >> 7
    return low + bytes([value])


def _refused(channel: grpc.Channel, target: Target, rpc: str, raw: bytes) -> str:
    """The reason."""
    call: Any = channel.unary_unary(rpc)
    with pytest.raises(grpc.RpcError) as refused:
        call(raw, metadata=target.metadata(), timeout=100)
    return reason_of(refused.value)


@pytest.mark.parametrize(
    ("rpc", "within", "small", "reason"), SMALL_FIELDS.values(), ids=SMALL_FIELDS
)
def test_a_large_message_of_small_fields_is_refused(
    target: Target, rpc: str, within: bytes, small: bytes, reason: str
) -> None:
    """By name, whoever asks."""
    with answering(target), grpc.insecure_channel(target.address) as channel:
        assert _refused(channel, target, rpc, _many(within, small, 2 * MIB)) == reason


def test_one_message_of_a_stream_is_looked_at_like_a_call(target: Target) -> None:
    """It is no way around."""
    with grpc.insecure_channel(target.address) as channel:
        call: Any = channel.stream_stream(STREAM_RPC)
        answers = call(iter([_many(b"", b"\x12\0", 2 * MIB)]), metadata=target.metadata())
        with pytest.raises(grpc.RpcError):
            next(answers)
        assert reason_of(answers) == "LIMIT_EXCEEDED"


@pytest.mark.slow
def test_a_message_of_nothing_but_small_fields(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """As many as a message has room for: refused, in little time and memory, holding up nobody."""
    with attacked(tmp_path) as target:
        pid = target.server.process.pid
        with grpc.insecure_channel(target.address) as channel:
            for name, (rpc, within, small, reason) in SMALL_FIELDS.items():
                raw = _many(within, small, 31 * MIB)
                with answering(target) as took:
                    assert _refused(channel, target, rpc, raw) == reason, name
                record_property(name, round(max(took), 3))
                assert max(took) < 1.0, name
        record_property("peak_mib", peak_kib(pid) >> 10)
        assert peak_kib(pid) < 512 * 1_024


# ---------------------------------------------------------------- certificates and their age


@contextmanager
def over_tls(directory: Path, authority: Authority, pair: Pair) -> Iterator[Call]:
    """A server with this certificate, as a raw GetStatus and StreamMatch of its admin."""
    callers = one_of_each(directory / "identities.toml")
    tls = ServerTls(TlsConfig(pair.cert, pair.key))
    trusting = channel_credentials(ClientTls(authority.ca))
    with (
        guarded(directory / Path(pair.cert).stem, callers, tls=tls) as served,
        grpc.secure_channel(served.address, trusting) as channel,
    ):
        known = served.metadata("admin")
        yield Call(channel, known)


@dataclass(frozen=True)
class Call:
    channel: grpc.Channel
    known: tuple[tuple[str, str], ...]

    def status(self) -> object:
        call: Any = self.channel.unary_unary(STATUS_RPC)
        return call(b"", metadata=self.known, timeout=10)

    def stream(self, requests: Iterator[bytes]) -> Any:
        call: Any = self.channel.stream_stream(STREAM_RPC)
        return call(requests, metadata=self.known, timeout=20)


def test_a_server_whose_certificate_has_expired_is_not_trusted(tmp_path: Path) -> None:
    """By a client that trusts whoever gave it."""
    authority = Authority(tmp_path, "servers")
    good, old = authority.server(), authority.server("old", valid_days=-1)
    for pair, ended in ((good, grpc.StatusCode.OK), (old, grpc.StatusCode.UNAVAILABLE)):
        with over_tls(tmp_path, authority, pair) as call:
            assert code_of(call.status) is ended


def test_an_old_connection_ends_and_its_calls_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So certificates are looked at again: calls after it come over a new connection, and a stream
    that was open goes on over the old one."""
    monkeypatch.setattr(port, "TLS_OPTIONS", (("grpc.max_connection_age_ms", 200),))
    peers: set[str] = set()
    caller_of = Authorization.caller_of

    def noting(authorization: Authorization, context: Any) -> Identity:
        peers.add(context.peer())
        return caller_of(authorization, context)

    monkeypatch.setattr(Authorization, "caller_of", noting)
    item = match_pb2.StreamMatchItem(id=7, content=content_to(BANNED))
    request = match_pb2.StreamMatchRequest(items=[item]).SerializeToString()
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    authority = Authority(tmp_path, "servers")
    with over_tls(tmp_path, authority, authority.server()) as call:
        answers = call.stream(iter(requests.get, None))
        deadline = time.monotonic() + 10
        while len(peers) < 3 and time.monotonic() < deadline:
            requests.put(request)
            assert match_pb2.StreamMatchResponse.FromString(next(answers)).answers[0].id == 7
            call.status()
            time.sleep(0.05)
        requests.put(None)
        assert list(answers) == []
    assert len(peers) == 3


def _ended(raw: Raw) -> str:
    """The grpc-status of a call, however its trailers are written."""
    for came in raw.frames():
        if came.kind == Kind.HEADERS and b"grpc-status" in came.payload:
            after = came.payload.partition(b"grpc-status")[2]
            return after[1 : 1 + after[0]].decode()
    return ""


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20 * IDLE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
