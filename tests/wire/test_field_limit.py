"""What is counted off a message's bytes is what a parser would make of them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.errors import BadRequest, LimitExceeded
from simsearch.v1 import bank_pb2, content_pb2, match_pb2
from simsearch.wire import field_limit
from simsearch.wire.field_limit import DEPTH_MAX, FIELDS_MAX, can_hold, check_fields

contents = st.one_of(
    st.builds(content_pb2.Content, image=st.binary(max_size=400)),
    st.builds(content_pb2.Content, text=st.text(max_size=200)),
    st.builds(
        content_pb2.Content,
        vector=st.builds(content_pb2.Vector, space=st.text(max_size=5), data=st.binary()),
    ),
    st.just(content_pb2.Content()),
)
drafts = st.builds(
    bank_pb2.EntryDraft,
    contents=st.lists(contents, max_size=4),
    labels=st.lists(st.text(max_size=5), max_size=4),
    note=st.text(max_size=5),
)
batches = st.builds(
    bank_pb2.BatchAddEntriesRequest,
    bank=st.text(max_size=9),
    entries=st.lists(drafts, max_size=6),
    edit=st.builds(bank_pb2.Edit, actor=st.text(max_size=5)),
)


def of(kind: Any) -> Any:
    """What a message, or its type, says of itself."""
    return kind.DESCRIPTOR


def counted(message: Message) -> int:
    """Fields in a message, by parsing."""
    count = 0
    for field, value in message.ListFields():
        values = list(value) if field.is_repeated else [value]
        count += len(values)
        count += sum(counted(each) for each in values if isinstance(each, Message))
    return count


@given(batches)
@settings(max_examples=50, deadline=None)
def test_fields_are_counted_as_they_are_parsed(batch: bank_pb2.BatchAddEntriesRequest) -> None:
    """Exactly as many as there may be go through, and one more does not."""
    raw, count = batch.SerializeToString(), counted(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(field_limit, "FIELDS_MAX", count)
        check_fields(raw, of(batch))
        if count:
            patch.setattr(field_limit, "FIELDS_MAX", count - 1)
            with pytest.raises(LimitExceeded, match="send it in several"):
                check_fields(raw, of(batch))


@given(st.binary(max_size=60) | drafts.map(lambda each: b"\x12" + each.SerializeToString()))
@settings(max_examples=200, deadline=None)
def test_what_is_parsed_is_passed_and_what_is_not_is_no_other_error(raw: bytes) -> None:
    """Groups apart, which no message of ours has."""
    try:
        check_fields(raw, of(bank_pb2.BatchAddEntriesRequest))
    except BadRequest:
        return
    try:
        message = bank_pb2.BatchAddEntriesRequest.FromString(raw)
    except DecodeError:
        return  # text that is none: the walk looks at no text
    assert counted(message) <= FIELDS_MAX


SMALL = {
    "contents": (match_pb2.BatchMatchRequest, b"\x0a\0"),
    "unknown numbers": (match_pb2.MatchRequest, b"\xf8\x07\x01"),
    "unknown strings": (match_pb2.MatchRequest, b"\xfa\x07\0"),
    "fixed numbers": (match_pb2.MatchRequest, b"\xfd\x07\0\0\0\0"),
    "drafts": (bank_pb2.BatchAddEntriesRequest, b"\x12\0"),
}


@pytest.mark.parametrize(("kind", "small"), SMALL.values(), ids=SMALL)
def test_too_many_small_fields_are_refused(kind: type[Message], small: bytes) -> None:
    """At any depth, known or not."""
    check_fields(small * FIELDS_MAX, of(kind))
    with pytest.raises(LimitExceeded):
        check_fields(small * (FIELDS_MAX + 1), of(kind))


@pytest.mark.parametrize("within", [True, False])
def test_names_within_a_message_count(within: bool) -> None:
    """And bytes that only look like fields do not: an image of nothing but zeros is one."""
    banks = match_pb2.MatchOptions(banks=[""] * FIELDS_MAX).SerializeToString()
    request = (
        match_pb2.MatchRequest(options=match_pb2.MatchOptions.FromString(banks))
        if within
        else match_pb2.MatchRequest(content=content_pb2.Content(image=banks + bytes(1 << 20)))
    )
    raw = request.SerializeToString()
    if within:
        with pytest.raises(LimitExceeded):
            check_fields(raw, of(request))
    else:
        check_fields(raw, of(request))


def nested(depth: int) -> bytes:
    value = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    for _ in range(depth):
        value = struct_pb2.Value(list_value=struct_pb2.ListValue(values=[value]))
    return value.SerializeToString()


def test_messages_within_each_other_have_a_bound() -> None:
    """A list is two of them deep."""
    check_fields(nested(DEPTH_MAX // 2), of(struct_pb2.Value))
    with pytest.raises(BadRequest):
        check_fields(nested(DEPTH_MAX // 2 + 1), of(struct_pb2.Value))


GARBLED = {
    "field number 0": b"\0\0",
    "a kind that is none": b"\x0e\0",
    "a group": b"\x0b\x0c",
    "over the end": b"\x0a\x05abc",
    "over the end of what it is in": b"\x0a\x02\x12\x01a",
    "a message over the end of what it is in": b"\x0a\x02\x1a\x01\x08\x01",
    "half a tag": b"\x0a\0\x8a",
    "half a size": b"\x0a\xff",
    "half a number": b"\x08",
    "a number of 11 bytes": b"\x08" + b"\xff" * 10 + b"\x01",
    "a short fixed number": b"\x09\0\0",
}


@pytest.mark.parametrize("raw", GARBLED.values(), ids=GARBLED)
def test_garbled_bytes_are_refused(raw: bytes) -> None:
    """Also in the middle."""
    for before in (b"", b"\x0a\0"):
        with pytest.raises(BadRequest, match="no message of this method"):
            check_fields(before + raw, of(match_pb2.MatchRequest))


def test_which_messages_can_hold_content() -> None:
    """By their types, however deep; a type that holds itself is no endless loop."""
    content = of(content_pb2.Content)
    with_it = (match_pb2.MatchRequest, bank_pb2.BatchAddEntriesRequest, content_pb2.Content)
    without = (bank_pb2.UpdateBankRequest, bank_pb2.ListBanksRequest, struct_pb2.Value)
    assert all(can_hold(of(kind), content) for kind in with_it)
    assert not any(can_hold(of(kind), content) for kind in without)
