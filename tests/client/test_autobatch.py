"""Calls that go together: everybody gets what is their own, and nobody waits for others' sake."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from simsearch.client import AsyncClient, AutoBatch, Client, RetryPolicy
from simsearch.errors import (
    BadContent,
    BankNotFound,
    ContentTooLarge,
    EmptyContent,
    InternalFault,
    LimitExceeded,
    NotReady,
    Overloaded,
    SimsearchError,
    Unreachable,
)
from simsearch.types import Band, HashContent, MatchOptions, Signal, TextContent
from tests.client.conftest import EDIT
from tests.client.faulty import Faulty, fails_with, listening
from tests.client.flavours import WAIT_S, Awaited, Either, Open, until

ONE = AutoBatch(in_flight_max=1)
QUICK = RetryPolicy(backoff_s=0.01)


@contextmanager
def held(server: Faulty, client: Either) -> Iterator[None]:
    """One call is under way while the block runs, so that others gather."""
    server.gate.clear()
    under_way = client.start("match_text", "first")
    assert server.busy.acquire(timeout=WAIT_S)
    yield
    server.gate.set()
    assert under_way.result(WAIT_S).snapshot == "first"


def gathered(client: Either, count: int) -> None:
    """Returns once so many calls wait."""
    until(lambda: len(client.batcher._queue) == count)


def test_what_comes_while_a_call_is_under_way_goes_together(opened: Open) -> None:
    """In one request; each caller gets the answer about its own content."""
    server = Faulty()
    with listening(server) as address, opened(address, autobatch=ONE) as client:
        with held(server, client):
            calls = {str(n): client.start("match_text", str(n)) for n in range(20)}
            gathered(client, 20)
        for text, call in calls.items():
            assert call.result(WAIT_S).snapshot == text
        counts = client.counts
    assert [len(asked) for asked in server.asked] == [1, 20]
    assert (counts.batches, counts.batched) == (1, 20)


def test_a_lone_call_goes_by_itself_at_once(opened: Open) -> None:
    """As Match, as it would without auto-batching."""
    server = Faulty()
    with listening(server) as address, opened(address) as client:
        for number in range(5):
            client.match_text(str(number))
        assert client.counts.batches == 0
    assert server.asked == [[str(n)] for n in range(5)]


def test_without_autobatch_calls_stay_alone(opened: Open) -> None:
    server = Faulty()
    with listening(server) as address, opened(address, autobatch=False) as client:
        calls = [client.start("match_text", str(n)) for n in range(20)]
        assert {call.result(WAIT_S).snapshot for call in calls} == {str(n) for n in range(20)}
    assert all(len(asked) == 1 for asked in server.asked)


def test_only_calls_with_equal_options_go_together(opened: Open) -> None:
    """What one asks for is not another's answer."""
    server = Faulty()
    with listening(server) as address, opened(address, autobatch=ONE) as client:
        with held(server, client):
            calls = [
                client.start("match", TextContent(f"{bank} {n}"), MatchOptions((bank,)))
                for n in range(4)
                for bank in ("a", "b")
            ]
            gathered(client, 8)
        for call in calls:
            call.result(WAIT_S)
    kinds = [{text[0] for text in asked} for asked in server.asked[1:]]
    assert sorted(map(sorted, kinds)) == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("bounds", "options", "largest"),
    [
        (AutoBatch(in_flight_max=1, items_max=7), MatchOptions(), 7),
        (AutoBatch(in_flight_max=1, bytes_max=50), MatchOptions(), 5),
        (AutoBatch(in_flight_max=1), MatchOptions(hits_max=1000), 10),  # of 10,000 in one answer
    ],
)
def test_a_batch_keeps_its_bounds(
    opened: Open, bounds: AutoBatch, options: MatchOptions, largest: int
) -> None:
    """Items, bytes (a content of eight letters takes ten), and hits that may come back."""
    server = Faulty()
    with listening(server) as address, opened(address, autobatch=bounds) as client:
        with held(server, client):
            texts = [f"{n:08d}" for n in range(20)]
            calls = [client.start("match", TextContent(text), options) for text in texts]
            gathered(client, 20)
        assert sorted(call.result(WAIT_S).snapshot for call in calls) == texts
    sizes = [len(asked) for asked in server.asked[1:]]
    assert max(sizes) == largest
    assert len(sizes) == -(-20 // largest)


def test_too_many_that_wait_are_refused(opened: Open) -> None:
    """By name, at once; those that wait are answered."""
    server = Faulty()
    bounds = AutoBatch(in_flight_max=1, waiting_max=3)
    with listening(server) as address, opened(address, autobatch=bounds) as client:
        with held(server, client):
            calls = [client.start("match_text", "x") for _ in range(3)]
            gathered(client, 3)
            with pytest.raises(Overloaded, match="wait in this client"):
                client.match_text("one more")
        for call in calls:
            call.result(WAIT_S)


# ------------------------------------------------------------ errors


def test_a_bad_content_fails_its_own_caller_only(opened: Open) -> None:
    server = Faulty()
    server.bad = {"bad": BadContent("no image"), "void": EmptyContent("nothing")}
    with listening(server) as address, opened(address, autobatch=ONE) as client:
        with held(server, client):
            calls = {t: client.start("match_text", t) for t in ("a", "bad", "b", "void", "c")}
            gathered(client, 5)
        for text in ("a", "b", "c"):
            assert calls[text].result(WAIT_S).snapshot == text
        with pytest.raises(BadContent, match="no image"):
            calls["bad"].result(WAIT_S)
        with pytest.raises(EmptyContent, match="nothing"):
            calls["void"].result(WAIT_S)


def test_a_failed_batch_fails_all_of_its_callers_by_name(opened: Open) -> None:
    """Each with an error of its own: one object raised in many threads would mix their traces."""
    server = Faulty()
    with listening(server) as address, opened(address, autobatch=ONE, retry=QUICK) as client:
        with held(server, client):
            server.script.append(lambda context: None)  # of the call that is under way
            server.script.append(fails_with(BankNotFound("no such bank")))
            calls = [client.start("match_text", str(n)) for n in range(5)]
            gathered(client, 5)
        errors = [call.exception(WAIT_S) for call in calls]
    assert [type(error) for error in errors] == [BankNotFound] * 5
    assert len({id(error) for error in errors}) == 5
    assert len(server.asked) == 2


def test_a_batch_is_tried_again_as_any_call(opened: Open) -> None:
    server = Faulty()
    with listening(server) as address, opened(address, autobatch=ONE, retry=QUICK) as client:
        with held(server, client):
            server.script.append(lambda context: None)
            server.script.append(fails_with(NotReady("loading")))
            calls = {str(n): client.start("match_text", str(n)) for n in range(5)}
            gathered(client, 5)
        for text, call in calls.items():
            assert call.result(WAIT_S).snapshot == text
    assert [len(asked) for asked in server.asked] == [1, 5, 5]


@pytest.mark.parametrize(
    "blame", [LimitExceeded("too many"), ContentTooLarge("too much"), InternalFault("fell over")]
)
def test_what_may_be_the_batchs_own_fault_is_asked_one_by_one(
    opened: Open, blame: SimsearchError
) -> None:
    """A server with smaller batches, an answer that is too large, a content that breaks the
    server: nobody fails for having gone with others."""
    server = Faulty()
    server.bad = {"3": BadContent("no image")}
    with listening(server) as address, opened(address, autobatch=ONE) as client:
        with held(server, client):
            server.script.append(lambda context: None)
            server.script.append(fails_with(blame))
            calls = {str(n): client.start("match_text", str(n)) for n in range(5)}
            gathered(client, 5)
        with pytest.raises(BadContent):
            calls.pop("3").result(WAIT_S)
        for text, call in calls.items():
            assert call.result(WAIT_S).snapshot == text
    assert sorted(len(asked) for asked in server.asked) == [1, 1, 1, 1, 1, 1, 5]


def test_an_item_that_was_not_judged_is_tried_again_alone(opened: Open) -> None:
    """As its own call would have been, four attempts long; after that its refusal is final."""
    server = Faulty()
    server.bad = {"late": Overloaded("full", 10)}
    with listening(server) as address, opened(address, autobatch=ONE, retry=QUICK) as client:
        with held(server, client):
            late, well = client.start("match_text", "late"), client.start("match_text", "well")
            gathered(client, 2)
        assert well.result(WAIT_S).snapshot == "well"
        with pytest.raises(Overloaded):
            late.result(WAIT_S)
        asked = sum("late" in contents for contents in server.asked)
    assert asked == 1 + 4


# ------------------------------------------------------------ leaving


def test_a_deadline_passes_without_harm_to_others(opened: Open) -> None:
    """Of a caller that waits to be sent, and of one that is sent."""
    server = Faulty()
    with listening(server) as address, opened(address, autobatch=ONE) as client:
        with held(server, client):
            begun = time.monotonic()
            patient = client.start("match_text", "patient")
            with pytest.raises(Unreachable, match="DEADLINE_EXCEEDED"):
                client.match_text("hasty", deadline_s=0.2)
            assert time.monotonic() - begun < 2
        assert patient.result(WAIT_S).snapshot == "patient"
        assert all("hasty" not in asked for asked in server.asked)

        with held(server, client):
            patient = client.start("match_text", "patient")
            hasty = client.start("match_text", "hasty", deadline_s=0.6)
            gathered(client, 2)
            server.script.append(lambda context: None)
            server.script.append(lambda context: time.sleep(1))
        with pytest.raises(Unreachable):
            hasty.result(WAIT_S)
        assert not patient.done()
        assert patient.result(WAIT_S).snapshot == "patient"


def test_a_cancelled_task_leaves_the_others_alone() -> None:
    """Whether it waits or is sent; its content is not sent if it was not yet."""
    server = Faulty()
    with listening(server) as address, _asyncio(address, autobatch=ONE) as client:
        with held(server, client):
            gone, stays = client.start("match_text", "gone"), client.start("match_text", "stays")
            gathered(client, 2)
            gone.cancel()
            gathered(client, 1)
        assert stays.result(WAIT_S).snapshot == "stays"
        assert all("gone" not in asked for asked in server.asked)
        assert gone.cancelled()


def test_a_batch_that_nobody_waits_for_is_cancelled() -> None:
    """The server hears of it, and the next ones go out."""
    server = Faulty()
    with listening(server) as address, _asyncio(address, autobatch=ONE) as client:
        with held(server, client):
            calls = [client.start("match_text", str(n)) for n in range(3)]
            gathered(client, 3)
            server.script.append(lambda context: None)
            server.script.append(lambda context: until(lambda: not context.is_active()))
        assert server.busy.acquire(timeout=WAIT_S)
        until(lambda: not server.script)
        calls[0].cancel()
        time.sleep(0.1)
        assert client.batcher._under_way
        for call in calls:
            call.cancel()
        assert client.match_text("next", deadline_s=5).snapshot == "next"
    assert [len(asked) for asked in server.asked] == [1, 3, 1]


@contextmanager
def _asyncio(*args: object, **kwargs: object) -> Iterator[Either]:
    either = Either(Awaited, *args, **kwargs)
    try:
        yield either
    finally:
        either.inner.close()


# ------------------------------------------------------------ many at once, on a real server


def test_sixty_four_threads_get_what_is_theirs(address: str) -> None:
    """Banned, unknown and broken digests mixed: every answer is the one of its content."""
    with Client(address) as client:
        keys = {n: client.add_entry("digests", [_content(n)], EDIT).entry.key for n in range(20)}
        wrong: list[str] = []

        def ask(thread: int) -> None:
            for turn in range(12):
                wrong.extend(_wrong(client, (thread * 7 + turn * 3) % 40, keys))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert wrong == []
        assert client.counts.batched > 64 * 12 / 2


def _content(number: int) -> HashContent:
    return HashContent(Signal.SHA256, b"autobatch" + bytes([number]) * 23)


def _wrong(client: Client, number: int, keys: dict[int, int]) -> Iterator[str]:
    """What does not fit: 0-19 are banned, 20-29 are not, 30-39 are too short."""
    if number >= 30:
        try:
            client.match_hash(Signal.SHA256, bytes(number + 3))
            yield f"{number}: judged"
        except SimsearchError as error:
            if str(number + 3) not in error.message.rpartition("not ")[2]:
                yield f"{number}: {error}"
        return
    result = client.match(_content(number))
    found = [hit.entry_key for hit in result.hits]
    if found != ([keys[number]] if number in keys else []):
        yield f"{number}: {found}"


def test_a_thousand_tasks_get_what_is_theirs(address: str) -> None:
    async def ask() -> None:
        async with AsyncClient(address) as client:
            await client.add_entry("digests", [HashContent(Signal.SHA256, b"t" * 32)], EDIT)
            values = [b"t" * 32 if n % 3 else b"u" * 32 for n in range(1000)]
            calls = [client.match_hash(Signal.SHA256, value) for value in values]
            results = await asyncio.gather(*calls)
            expected = [Band.BLOCK if value[0] == ord("t") else Band.NONE for value in values]
            assert [r.verdict for r in results] == expected
            assert 1000 - client.counts.batched + client.counts.batches < 60  # requests

    asyncio.run(ask())
