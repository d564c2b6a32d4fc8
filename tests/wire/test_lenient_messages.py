"""Lenient messages: one text that is not UTF-8 is an error of its own."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError

from simsearch.errors import BadContent
from simsearch.types import TextContent
from simsearch.v1 import bank_pb2, match_pb2
from simsearch.wire import contents_from
from simsearch.wire.lenient_messages import lenient

HALF_AN_EMOJI = b"\xed\xa0\xbd"


def batch(*texts: str) -> match_pb2.BatchMatchRequest:
    request = match_pb2.BatchMatchRequest()
    for text in texts:
        request.contents.add(text=text)
    return request


def with_half_an_emoji(raw: bytes) -> bytes:
    """Instead of the mark, which is as long."""
    assert raw.count("€".encode()) == 1
    return raw.replace("€".encode(), HALF_AN_EMOJI)


def no_dim(space: str) -> int:
    raise AssertionError(space)


def test_a_text_that_is_not_utf8_is_the_only_one_refused() -> None:
    """The strict parser refuses the message; the lenient one reads the others."""
    raw = with_half_an_emoji(batch("good", "bad €", "größe").SerializeToString())
    with pytest.raises(DecodeError):
        match_pb2.BatchMatchRequest.FromString(raw)
    first, second, third = contents_from(
        lenient(match_pb2.BatchMatchRequest).FromString(raw).contents, no_dim
    )
    assert (first, third) == (TextContent("good"), TextContent("größe"))
    assert isinstance(second, BadContent)
    assert "byte 4" in second.message
    assert "toWellFormed" in second.message


def test_every_other_field_is_as_it_was() -> None:
    """Options, enums, times and bytes."""
    request = bank_pb2.AddEntryRequest(bank="b")
    request.entry.contents.add(image=b"\xff\xd8")
    request.entry.expire_time.FromSeconds(77)
    request.edit.actor = "ann"
    read = lenient(bank_pb2.AddEntryRequest).FromString(request.SerializeToString())
    assert read.SerializeToString() == request.SerializeToString()
    assert read.entry.expire_time.ToSeconds() == 77
    assert lenient(bank_pb2.AddEntryRequest) is lenient(bank_pb2.AddEntryRequest)
