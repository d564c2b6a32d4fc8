"""Servers that fail, hang, restart and lie: what the caller gets, and how often it was asked."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from simsearch.client import NO_RETRIES, RetryPolicy, StreamBounds
from simsearch.errors import (
    BadRequest,
    BankNotFound,
    Conflict,
    ContentTooLarge,
    Corrupt,
    EmptyContent,
    Fault,
    InternalFault,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    SimsearchError,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from simsearch.types import TextContent
from tests.client import faulty
from tests.client.conftest import EDIT
from tests.client.faulty import Faulty, fails_with, listening, plainly, rich, slowly
from tests.client.flavours import WAIT_S, Either, Open, until

CODE = grpc.StatusCode
QUICK = RetryPolicy(backoff_s=0.01)
DOWN = plainly(CODE.UNAVAILABLE)
DRAINING = fails_with(NotReady("the server is shutting down: ask another one"))


@pytest.fixture
def port() -> int:
    """One on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    return number


# ------------------------------------------------------------ trying again


@pytest.mark.parametrize("fault", [DOWN, DRAINING, fails_with(Overloaded("full", 20))])
def test_a_passing_failure_is_not_seen(opened: Open, fault: faulty.Fault) -> None:
    """Three failures, then an answer."""
    server = Faulty(fault, fault, fault)
    with listening(server) as address, opened(address, retry=QUICK) as client:
        assert client.match_text("x").snapshot == "x"
    assert len(server.asked) == 4


def test_a_lasting_failure_is_given_up(opened: Open) -> None:
    """After as many attempts as the policy says, with the server's own error."""
    server = Faulty(*[DRAINING] * 9)
    with listening(server) as address, opened(address, retry=QUICK) as client:
        with pytest.raises(NotReady, match="shutting down"):
            client.match_text("x")
        assert len(server.asked) == 4
        with opened(address, retry=NO_RETRIES) as once, pytest.raises(NotReady):
            once.match_text("x")
    assert len(server.asked) == 5


def test_an_edit_is_sent_once(opened: Open) -> None:
    """Whatever it fails with: it may have happened."""
    for fault in (DOWN, DRAINING, fails_with(Overloaded("full", 10))):
        server = Faulty(fault)
        with (
            listening(server) as address,
            opened(address, retry=QUICK) as client,
            pytest.raises(Unavailable),
        ):
            client.add_entry("bank", [], EDIT)
        assert server.edits == 1


@pytest.mark.parametrize("ms", [1, 300])
def test_pushback_is_waited_for(opened: Open, ms: int) -> None:
    """The server says when to come back; nobody comes earlier, or much later."""
    server = Faulty(fails_with(Overloaded("full", ms)))
    with listening(server) as address, opened(address) as client:
        client.match_text("warm")
        server.script.append(fails_with(Overloaded("full", ms)))
        begun = time.monotonic()
        client.match_text("x")
        took_s = time.monotonic() - begun
    assert took_s >= ms / 1000
    assert took_s < ms / 1000 + 1.0


def test_pushback_beyond_the_deadline_is_not_waited_for(opened: Open) -> None:
    """The caller hears at once what it would have heard later: servers know its deadline."""
    server = Faulty(fails_with(Overloaded("full", 20_000)))
    with listening(server) as address, opened(address) as client:
        begun = time.monotonic()
        with pytest.raises(Overloaded) as refusal:
            client.match_text("x", deadline_s=5)
        assert time.monotonic() - begun < 2
    assert refusal.value.retry_after_ms == 20_000
    assert len(server.asked) == 1


@pytest.mark.parametrize("word", ["-1", "later"])
def test_a_server_that_wants_no_retry_gets_none(opened: Open, word: str) -> None:
    """gRPC's rule for a pushback that is negative or no number."""
    server = Faulty(plainly(CODE.UNAVAILABLE, trailers=(("grpc-retry-pushback-ms", word),)))
    with (
        listening(server) as address,
        opened(address, retry=QUICK) as client,
        pytest.raises(Unreachable),
    ):
        client.match_text("x")
    assert len(server.asked) == 1


def test_all_attempts_share_one_deadline(opened: Open) -> None:
    """Each gets what is left of it, and a hanging server cannot hold a caller longer."""
    server = Faulty(DOWN, slowly(1))
    with listening(server) as address, opened(address, retry=RetryPolicy(backoff_s=0.2)) as client:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="DEADLINE_EXCEEDED"):
            client.match_text("x", deadline_s=0.5)
        assert time.monotonic() - begun < 0.9
    first_s, second_s = server.timeouts_s
    assert first_s is not None
    assert second_s is not None
    assert second_s < first_s - 0.05 < 0.5


def test_retries_stop_where_nothing_succeeds(opened: Open) -> None:
    """A hundred calls to a server that is down are not four hundred."""
    server = Faulty(*[DOWN] * 1000)
    policy = RetryPolicy(backoff_s=0.01, budget=20)
    with listening(server) as address, opened(address, retry=policy) as client:
        for _ in range(50):
            with pytest.raises(Unreachable):
                client.match_text("x")
    assert len(server.asked) < 50 + 20


# ------------------------------------------------------------ what failures are called

PLAIN: list[tuple[grpc.StatusCode, str, type[SimsearchError]]] = [
    (CODE.UNAVAILABLE, "by a proxy", Unreachable),
    (CODE.CANCELLED, "by a proxy", Unreachable),
    (CODE.DEADLINE_EXCEEDED, "by a proxy", Unreachable),
    (CODE.RESOURCE_EXHAUSTED, "too many requests", Overloaded),
    (CODE.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 8)", ContentTooLarge),
    (CODE.INVALID_ARGUMENT, "by a proxy", BadRequest),
    (CODE.NOT_FOUND, "by a proxy", NotFound),
    (CODE.ABORTED, "by a proxy", Conflict),
    (CODE.UNAUTHENTICATED, "who are you", Unauthenticated),
    (CODE.PERMISSION_DENIED, "not you", PermissionDenied),
    (CODE.UNIMPLEMENTED, "no such method", Fault),
    (CODE.DATA_LOSS, "by a proxy", Corrupt),
    (CODE.INTERNAL, "by a proxy", InternalFault),
    (CODE.UNKNOWN, "by a proxy", InternalFault),
]


@pytest.mark.parametrize(("code", "words", "kind"), PLAIN)
def test_a_plain_status_has_the_closest_name(
    opened: Open, code: grpc.StatusCode, words: str, kind: type[SimsearchError]
) -> None:
    """As from a proxy, or from gRPC itself: the class tells what to do, the words what happened."""
    server = Faulty(plainly(code, words))
    with (
        listening(server) as address,
        opened(address, retry=NO_RETRIES) as client,
        pytest.raises(SimsearchError) as refusal,
    ):
        client.match_text("x")
    assert type(refusal.value) is kind
    assert address in refusal.value.message


def _with(details: bytes) -> tuple[tuple[str, bytes], ...]:
    return (("grpc-status-details-bin", details),)


def test_a_reason_of_a_newer_server_is_kept(opened: Open) -> None:
    """In words, and in the class that its status has."""
    fault = plainly(
        CODE.INVALID_ARGUMENT, "words", _with(rich(CODE.INVALID_ARGUMENT, "MOON_PHASE"))
    )
    with (
        listening(Faulty(fault)) as address,
        opened(address) as client,
        pytest.raises(BadRequest, match="MOON_PHASE: words"),
    ):
        client.match_text("x")


@pytest.mark.parametrize(
    "details",
    [
        b"\xff\xff\xff garbage",
        b"",
        rich(CODE.NOT_FOUND, "BANK_NOT_FOUND"),  # of another status
        rich(CODE.INVALID_ARGUMENT, "EMPTY_CONTENT", domain="proxy.example"),
    ],
    ids=["garbage", "nothing", "another status", "another domain"],
)
def test_details_that_are_not_the_servers_are_not_believed(opened: Open, details: bytes) -> None:
    """Broken, of a status that somebody changed, or somebody else's: the plain status stands."""
    server = Faulty(plainly(CODE.INVALID_ARGUMENT, "by a proxy", _with(details)))
    with (
        listening(server) as address,
        opened(address) as client,
        pytest.raises(BadRequest, match="by a proxy") as refusal,
    ):
        client.match_text("x")
    assert type(refusal.value) is BadRequest


def test_words_that_a_proxy_changed_do_not_hide_the_reason(opened: Open) -> None:
    """Its code is the server's, so its reason is."""
    fault = plainly(
        CODE.INVALID_ARGUMENT, "cut", _with(rich(CODE.INVALID_ARGUMENT, "EMPTY_CONTENT"))
    )
    with (
        listening(Faulty(fault)) as address,
        opened(address) as client,
        pytest.raises(EmptyContent, match="words"),
    ):
        client.match_text("x")


def test_a_request_too_large_for_one_message_is_named(opened: Open) -> None:
    """gRPC's own refusal has the status of an overload and is none."""
    server = Faulty()
    with (
        listening(server) as address,
        opened(address) as client,
        pytest.raises(ContentTooLarge),
    ):
        client.match_text("x" * (5 << 20))  # gRPC servers take 4 MiB by default
    assert not server.asked


def test_an_answer_too_few_is_nobodys_answer(opened: Open) -> None:
    """Which content it left out cannot be known."""
    server = Faulty()
    server.answers_max = 2
    with (
        listening(server) as address,
        opened(address) as client,
        pytest.raises(InternalFault, match="2 answers to 3 contents"),
    ):
        client.match_batch([TextContent("x")] * 3)


# ------------------------------------------------------------ addresses and connections


def test_a_dead_address_is_not_noticed(opened: Open, port: int) -> None:
    """Every call is answered by the other one, without a backoff."""
    server = Faulty()
    patient = RetryPolicy(backoff_s=5)
    dead = f"127.0.0.1:{port}"
    with listening(server) as address, opened([dead, address], retry=patient) as client:
        begun = time.monotonic()
        for number in range(20):
            assert client.match_text(str(number)).snapshot == str(number)
        assert time.monotonic() - begun < 4
    assert len(server.asked) == 20


def test_a_server_that_is_not_serving_gets_no_calls(opened: Open) -> None:
    """It drains, loads or answers wrongly, and says so to health checks. Edits do not go there
    either: they are not tried again. When it serves, it is one of all again."""
    draining, well = Faulty(), Faulty()
    with listening(draining) as a, listening(well) as b, opened([a, b], autobatch=False) as client:
        client.match_text("first")
        draining.set_serving(False)
        until(lambda: not _asks(client, draining))
        before = len(draining.asked)
        for _ in range(20):
            client.match_text("x")
            client.add_entry("bank", [], EDIT)
        assert len(draining.asked) == before
        draining.set_serving(True)
        until(lambda: _asks(client, draining))


def _asks(client: Either, server: Faulty) -> bool:
    """Whether some of four calls go there."""
    before = len(server.asked)
    for _ in range(4):
        client.match_text("x")
    return len(server.asked) > before


def test_servers_of_which_none_serves_are_not_ready(opened: Open) -> None:
    """That is their name for it, and `is_serving` says no; a server alone answers for itself."""
    one, other = Faulty(), Faulty()
    one.set_serving(False)
    other.set_serving(False)
    with listening(one) as a, listening(other) as b:
        with opened([a, b], retry=QUICK) as client:
            with pytest.raises(NotReady, match="none is ready"):
                client.match_text("x")
            assert client.is_serving() is False
        with opened(a) as alone:
            assert alone.match_text("x").snapshot == "x"
            assert alone.is_serving() is False


def test_a_retry_goes_to_another_server(opened: Open) -> None:
    """Of one that is full: round robin chooses anew for each attempt."""
    full, well = Faulty(*[fails_with(Overloaded("full", 20))] * 50), Faulty()
    with listening(full) as a, listening(well) as b, opened([a, b], autobatch=False) as client:
        for _ in range(20):
            client.match_text("x")


def test_names_and_addresses_may_be_mixed(opened: Open) -> None:
    one, other = Faulty(), Faulty()
    with listening(one) as a, listening(other) as b:
        mixed = [a, "localhost:" + b.rpartition(":")[2]]
        with opened(mixed, autobatch=False) as client:
            until(lambda: _asks(client, one) and _asks(client, other))


def test_a_server_that_restarts_is_found_again(opened: Open, port: int) -> None:
    """On the same port, within a second or so, by the same client."""
    with opened(f"127.0.0.1:{port}") as client:
        with listening(Faulty(), port):
            client.match_text("before")
        with pytest.raises(Unreachable):
            client.match_text("meanwhile", deadline_s=0.2)
        with listening(Faulty(), port):
            begun = time.monotonic()
            while not _answers(client):
                assert time.monotonic() - begun < 8
            assert time.monotonic() - begun < 5


def test_servers_that_restart_in_turn_are_not_noticed(opened: Open, port: int) -> None:
    """One is back, left alone for having failed for long, when the other one goes: the first call
    of all that come finds it."""
    with ExitStack() as other:
        addresses = [f"127.0.0.1:{port}", other.enter_context(listening(Faulty()))]
        with opened(addresses) as client:
            begun = time.monotonic()
            while time.monotonic() < begun + 1.5:
                client.match_text("meanwhile")
            with listening(Faulty(), port):
                other.close()
                for _ in range(20):
                    client.match_text("after")


def _answers(client: object) -> bool:
    try:
        client.match_text("after", deadline_s=5)  # type: ignore[attr-defined]
    except Unreachable:
        return False
    return True


def test_a_connection_that_breaks_in_mid_call_is_replaced(opened: Open) -> None:
    """What listens takes the request and hangs up: another address answers."""
    with (
        listening(Faulty()) as address,
        _hanging_up() as liar,
        opened([liar, address], retry=QUICK) as client,
    ):
        for _ in range(6):
            assert client.match_text("x").snapshot == "x"


@contextmanager
def _hanging_up() -> Iterator[str]:
    """Listens, and closes every connection once something was said."""

    def serve() -> None:
        with contextlib.suppress(OSError):  # the end of the test
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1 << 16)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(WAIT_S)


def test_closing_ends_calls_under_way_by_name(opened: Open) -> None:
    """Those that are sent, those that gather, and those that wait to be tried again."""
    server = Faulty()
    server.gate.clear()
    with listening(server) as address, opened(address, deadline_s=60) as client:
        under_way = [client.start("match_text", str(n)) for n in range(10)]
        under_way.append(client.start("match_batch", [TextContent("x")]))
        for _ in range(3):
            assert server.busy.acquire(timeout=WAIT_S)
        client.close()
        for call in under_way:
            with pytest.raises(Unreachable, match="closed"):
                call.result(WAIT_S)


def test_closing_does_not_wait_out_a_backoff(opened: Open) -> None:
    server = Faulty(fails_with(Overloaded("full", 20_000)))
    with listening(server) as address, opened(address, deadline_s=60) as client:
        call = client.start("match_text", "x")
        assert server.busy.acquire(timeout=WAIT_S)
        time.sleep(0.1)
        begun = time.monotonic()
        client.close()
        with pytest.raises(Unreachable, match="closed"):
            call.result(WAIT_S)
        assert time.monotonic() - begun < 5


# ------------------------------------------------------------ streams


def test_a_stream_goes_on_where_another_ended(opened: Open) -> None:
    """A server that ends it again and again, as one that drains does: all that has no answer goes
    over another connection, and every content has one outcome, its own."""
    server = Faulty()
    server.stream_items_max = 40
    contents = [TextContent(f"text {n}") for n in range(300)]
    with listening(server) as address, opened(address, retry=QUICK) as client:
        found = list(client.inner.stream(contents))
    assert sorted(number for number, _ in found) == list(range(300))
    assert all(outcome.snapshot == f"text {number}" for number, outcome in found)


def test_a_stream_that_gets_nowhere_is_given_up(opened: Open) -> None:
    server = Faulty(*[DOWN] * 50)
    with (
        listening(server) as address,
        opened(address, retry=QUICK) as client,
        pytest.raises(Unreachable),
    ):
        list(client.inner.stream([TextContent("x")]))
    assert len(server.asked) == 4


def test_streams_leave_the_retries_to_others(opened: Open) -> None:
    """Each is ended by this client, which is no failure: the budget stays whole."""
    server = Faulty()
    policy = RetryPolicy(backoff_s=0.01, budget=10)
    with listening(server) as address, opened(address, retry=policy) as client:
        for _ in range(20):
            list(client.inner.stream([TextContent("x")]))
        server.script.append(DOWN)
        assert client.match_text("y").snapshot == "y"


@pytest.mark.parametrize("code", [CODE.UNAVAILABLE, CODE.CANCELLED])
def test_a_stream_that_did_not_begin_is_opened_again(opened: Open, code: grpc.StatusCode) -> None:
    server = Faulty(*[plainly(code)] * 3)
    with listening(server) as address, opened(address, retry=QUICK) as client:
        [(_, found)] = client.inner.stream([TextContent("x")])
    assert found.snapshot == "x"
    assert len(server.asked) == 4


def test_a_refused_stream_is_not_tried_again(opened: Open) -> None:
    server = Faulty(fails_with(BankNotFound("no such bank")))
    with (
        listening(server) as address,
        opened(address, retry=QUICK) as client,
        pytest.raises(BankNotFound),
    ):
        list(client.inner.stream([TextContent("x")]))
    assert len(server.asked) == 1


def test_a_silent_stream_is_given_up(opened: Open) -> None:
    """Answers are owed and do not come."""
    server = Faulty(slowly(3))
    with listening(server) as address, opened(address) as client:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="no answer within"):
            list(client.inner.stream([TextContent("x")], silence_s=0.4))
        assert time.monotonic() - begun < 2.5


def test_a_stream_reads_no_further_ahead_than_its_bounds(opened: Open) -> None:
    """An endless source is fine, and leaving early is."""
    given = 0

    def endless() -> Iterator[TextContent]:
        nonlocal given
        while True:
            given += 1
            yield TextContent("x")

    server = Faulty()
    with listening(server) as address, opened(address) as client:
        answers = client.inner.stream(endless(), bounds=StreamBounds(items_max=10))
        found = [next(answers) for _ in range(25)]
        answers.close()  # type: ignore[attr-defined]
        assert client.match_text("still there").snapshot == "still there"
    assert len({number for number, _ in found}) == 25
    assert given <= 25 + 10


def test_a_source_that_fails_fails_its_stream(opened: Open) -> None:
    """With its own error, after what was answered before."""

    def source() -> Iterator[TextContent]:
        yield TextContent("x")
        raise KeyError("the disk")

    with (
        listening(Faulty()) as address,
        opened(address) as client,
        pytest.raises(KeyError, match="the disk"),
    ):
        list(client.inner.stream(source()))
