"""The book-keeping of a stream alone: every content one outcome, whatever breaks on the way."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.client.calls import Outcome
from simsearch.client.streaming.send_window import MESSAGE_ITEMS_MAX, SendWindow, StreamBounds
from simsearch.client.transport.service_config import RetryPolicy
from simsearch.errors import BadContent, EmptyContent, InternalFault, Overloaded, SimsearchError
from simsearch.serve.transport.status_codes import item_error
from simsearch.types import MatchOptions, MatchResult, TextContent
from simsearch.v1 import match_pb2

RETRY = RetryPolicy()
FULL = item_error(Overloaded("full"))


def window(items_max: int = 100, bytes_max: int = 1 << 20) -> SendWindow:
    return SendWindow(MatchOptions(("bank",)), StreamBounds(items_max, bytes_max), RETRY)


def reply(*answers: match_pb2.StreamMatchAnswer) -> match_pb2.StreamMatchResponse:
    return match_pb2.StreamMatchResponse(answers=answers)


def judged(number: int, text: str) -> match_pb2.StreamMatchAnswer:
    result = match_pb2.MatchResult(verdict=match_pb2.VERDICT_NO_MATCH, snapshot=text)
    return match_pb2.StreamMatchAnswer(id=number, result=result)


@given(
    st.integers(0, 60),
    st.integers(1, 12),
    st.integers(0, 1 << 32),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
)
def test_every_content_gets_its_own_outcome_once(
    count: int, items_max: int, seed: int, breaks: float, refusals: float
) -> None:
    """Streams end anywhere, items are put off, answers come in any order: what is reported for a
    number is about that content, each number comes once, and no more than the bound is open."""
    book, chance = window(items_max), random.Random(seed)
    given_count, now = 0, 0.0
    open_items: list[match_pb2.StreamMatchItem] = []
    found: dict[int, Outcome] = {}
    first_message = True
    while given_count < count or not book.is_answered:
        while given_count < count and book.has_room:
            assert book.give(TextContent(f"text {given_count}")) == given_count
            given_count += 1
        assert given_count - len(found) <= items_max
        while message := book.message(now, is_more_coming=given_count < count):
            assert message.HasField("options") is first_message
            assert 0 < len(message.items) <= MESSAGE_ITEMS_MAX
            first_message = False
            open_items += message.items
        if chance.random() < breaks:
            book.restart()
            open_items, first_message = [], True
            continue
        now += book.due_s(now) or 0.0
        chance.shuffle(open_items)
        for item in open_items[: chance.randint(0, 5)]:
            open_items.remove(item)
            answer = judged(item.id, item.content.text)
            if chance.random() < refusals:
                answer = match_pb2.StreamMatchAnswer(id=item.id, error=FULL)
            for number, outcome in book.outcomes(reply(answer), now):
                assert number not in found
                found[number] = outcome
    assert sorted(found) == list(range(count))
    for number, outcome in found.items():
        if isinstance(outcome, MatchResult):
            assert outcome.snapshot == f"text {number}"
        else:
            assert isinstance(outcome, Overloaded)


def test_bytes_are_bounded_too() -> None:
    """Of what is open, and of one message."""
    book = window(bytes_max=9 << 20)
    while book.has_room:
        book.give(TextContent("x" * (3 << 20)))
    assert book.last == 2
    sizes = []
    while message := book.message(0.0, is_more_coming=True):
        sizes.append(len(message.items))
    assert sizes == [1, 1, 1]
    assert not list(book.outcomes(reply(), 0.0))
    assert not book.has_room
    assert list(book.outcomes(reply(judged(1, "x")), 0.0))
    assert book.has_room


def test_an_item_is_put_off_as_often_as_the_policy_says() -> None:
    """With waits that double; then its refusal is its outcome."""
    book = window()
    book.give(TextContent("a"))
    now, waits = 0.0, []
    for _ in range(RETRY.attempts_max - 1):
        assert book.message(now, is_more_coming=False)
        assert list(book.outcomes(reply(match_pb2.StreamMatchAnswer(id=0, error=FULL)), now)) == []
        waits.append(book.due_s(now))
        assert book.message(now, is_more_coming=False) is None
        now += waits[-1] or 0.0
    assert waits == pytest.approx([0.1, 0.2, 0.4])
    assert book.message(now, is_more_coming=False)
    [(number, outcome)] = book.outcomes(reply(match_pb2.StreamMatchAnswer(id=0, error=FULL)), now)
    assert number == 0
    assert isinstance(outcome, Overloaded)
    assert book.is_answered


def test_an_items_own_error_is_its_outcome() -> None:
    book = window()
    book.give(TextContent(""))
    book.message(0.0, is_more_coming=False)
    error = item_error(EmptyContent("nothing there"))
    [(_, outcome)] = book.outcomes(reply(match_pb2.StreamMatchAnswer(id=0, error=error)), 0.0)
    assert isinstance(outcome, EmptyContent)


def test_an_answer_that_nobody_waits_for_is_a_fault() -> None:
    """Of another number, or for the second time: it might be somebody else's."""
    book = window()
    book.give(TextContent("a"))
    book.message(0.0, is_more_coming=False)
    with pytest.raises(InternalFault, match="number 7"):
        list(book.outcomes(reply(judged(7, "a")), 0.0))
    list(book.outcomes(reply(judged(0, "a")), 0.0))
    with pytest.raises(InternalFault):
        list(book.outcomes(reply(judged(0, "a")), 0.0))


def test_what_no_message_can_hold_has_a_number_too() -> None:
    book = window()
    with pytest.raises(BadContent):
        book.give(TextContent("\ud800"))
    assert book.last == 0
    assert book.is_answered
    assert book.give(TextContent("good")) == 1


def test_messages_fill_up_while_the_server_is_busy() -> None:
    """The first content goes at once; those that come meanwhile go together."""
    book = window()
    book.give(TextContent("0"))
    first = book.message(0.0, is_more_coming=True)
    assert first is not None
    for number in range(1, MESSAGE_ITEMS_MAX):
        book.give(TextContent(str(number)))
        assert book.message(0.0, is_more_coming=True) is None
    book.give(TextContent("one more"))
    full = book.message(0.0, is_more_coming=True)
    assert full is not None
    assert len(full.items) == MESSAGE_ITEMS_MAX
    book.give(TextContent("the last"))
    assert book.message(0.0, is_more_coming=False) is not None


def test_an_unknown_error_of_an_item_keeps_its_words() -> None:
    book = window()
    book.give(TextContent("a"))
    book.message(0.0, is_more_coming=False)
    error = item_error(EmptyContent("what to do"))
    error.reason = 999  # type: ignore[assignment]
    [(_, outcome)] = book.outcomes(reply(match_pb2.StreamMatchAnswer(id=0, error=error)), 0.0)
    assert isinstance(outcome, SimsearchError)
    assert "999" in outcome.message
    assert "what to do" in outcome.message
