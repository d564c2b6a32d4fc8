"""What a request weighs by its bytes is what it weighs when it is parsed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.errors import BadRequest, LimitExceeded
from simsearch.v1 import content_pb2, match_pb2
from simsearch.wire.field_limit import FIELDS_MAX
from simsearch.wire.request_weight import Weight, weighed_batch, weighed_match, weighed_stream

contents = st.one_of(
    st.builds(content_pb2.Content, image=st.binary(max_size=400)),
    st.builds(content_pb2.Content, text=st.text(max_size=200)),
    st.builds(
        content_pb2.Content,
        vector=st.builds(content_pb2.Vector, space=st.text(max_size=5), data=st.binary()),
    ),
    st.builds(content_pb2.Content, hash=st.builds(content_pb2.Hash, value=st.binary())),
    st.just(content_pb2.Content()),
)
options = st.none() | st.builds(
    match_pb2.MatchOptions, banks=st.lists(st.text(max_size=9)), hits_max=st.integers(0, 2**31 - 1)
)


def counted(messages: list[content_pb2.Content]) -> tuple[int, int, int, int]:
    """Items, images, texts and others, by parsing."""
    kinds = [message.WhichOneof("kind") for message in messages]
    images, texts = kinds.count("image"), kinds.count("text")
    return len(kinds), images, texts, len(kinds) - images - texts


def of(weight: Weight) -> tuple[int, int, int, int]:
    return weight.items, weight.images, weight.texts, weight.ready


@given(st.lists(contents, max_size=20), options)
@settings(deadline=None)
def test_a_batch_weighs_its_contents(
    messages: list[content_pb2.Content], asked: match_pb2.MatchOptions | None
) -> None:
    """By kind, with the bytes of each kind."""
    raw = match_pb2.BatchMatchRequest(contents=messages, options=asked).SerializeToString()
    request = weighed_batch(raw)
    assert of(request.weight) == counted(messages)
    assert len(request.contents) == len(messages)
    assert request.weight.nbytes == len(raw)
    by_kind = {"image": 0, "text": 0}
    for message in messages:
        kind = message.WhichOneof("kind")
        if kind in by_kind:
            by_kind[kind] += message.ByteSize()
    assert (request.weight.image_bytes, request.weight.text_bytes) == tuple(by_kind.values())
    assert request.parse().SerializeToString() == raw


@given(st.lists(contents, max_size=9), st.lists(st.integers(0, 2**64 - 1), min_size=9), options)
@settings(deadline=None)
def test_a_message_of_a_stream_weighs_its_contents(
    messages: list[content_pb2.Content], ids: list[int], asked: match_pb2.MatchOptions | None
) -> None:
    """Whatever the ids; its options are found and left as they are."""
    items = [
        match_pb2.StreamMatchItem(id=i, content=c) for i, c in zip(ids, messages, strict=False)
    ]
    raw = match_pb2.StreamMatchRequest(items=items, options=asked).SerializeToString()
    request = weighed_stream(raw)
    assert of(request.weight) == counted(messages)
    assert len(request.items) == len(messages)
    expected = None if asked is None else asked.SerializeToString()
    assert request.options == expected


@given(contents, options)
@settings(deadline=None)
def test_a_match_weighs_one(
    message: content_pb2.Content, asked: match_pb2.MatchOptions | None
) -> None:
    """Also where its content is missing: it is refused, and that is work too."""
    raw = match_pb2.MatchRequest(content=message, options=asked).SerializeToString()
    assert weighed_match(raw).weight.items == 1
    assert weighed_match(b"").weight.items == 1


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_weighed_or_refused_by_name(raw: bytes) -> None:
    """No other error, and no endless loop; what is parsed was weighed right."""
    for weighed in (weighed_match, weighed_batch, weighed_stream):
        try:
            request = weighed(raw)
            message: Message = request.parse()
        except BadRequest:
            continue
        if isinstance(message, match_pb2.BatchMatchRequest):
            assert request.weight.items == len(message.contents)
        if isinstance(message, match_pb2.StreamMatchRequest):
            assert request.weight.items == len(message.items)


def test_unknown_fields_of_a_newer_client_are_passed_over() -> None:
    """Numbers and bytes of any field number."""
    raw = match_pb2.BatchMatchRequest(contents=[content_pb2.Content(text="a")]).SerializeToString()
    newer = b"\xf8\x07\x01" + b"\xfa\x07\x02hi" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4)
    assert weighed_batch(newer + raw).weight.texts == 1


@pytest.mark.parametrize("size", [*range(126, 134), *range(16_380, 16_392), 2_097_150])
@pytest.mark.parametrize("after", [b"", b"\x12\1b", b"\x78\1"])
def test_a_field_that_spans_its_content_is_told_from_one_that_does_not(
    size: int, after: bytes
) -> None:
    """At the sizes where the length takes a byte more."""
    raw = content_pb2.Content(image=bytes(size)).SerializeToString() + after
    weight = weighed_batch(b"\x0a" + _varint(len(raw)) + raw).weight
    assert of(weight) == counted([content_pb2.Content.FromString(raw)])
    assert weight.image_bytes + weight.text_bytes == len(raw)


def _varint(value: int) -> bytes:
    return (bytes([value & 0x7F | 0x80]) + _varint(value >> 7)) if value > 0x7F else bytes([value])


def test_a_content_weighs_what_a_parser_takes_it_for() -> None:
    """Of two kinds in one content the last counts: an empty hash does not make an image cheap."""
    cheap = content_pb2.Content(hash=content_pb2.Hash()).SerializeToString()
    image = content_pb2.Content(image=bytes(20_000)).SerializeToString()
    content = cheap + image
    assert content_pb2.Content.FromString(content).WhichOneof("kind") == "image"
    size = len(content)
    raw = b"\x0a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + content
    assert of(weighed_batch(raw).weight) == of(weighed_match(raw).weight) == (1, 1, 0, 0)


@pytest.mark.parametrize("raw", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\xff" * 12, b"\x0a\xff"])
def test_garbled_bytes_are_refused(raw: bytes) -> None:
    """Before anything is parsed."""
    with pytest.raises(BadRequest, match="no message of this method"):
        weighed_batch(raw)


@pytest.mark.parametrize(
    ("weighed", "raw"),
    [
        (weighed_match, b"\xf8\x07\x01" * (FIELDS_MAX + 1)),
        (weighed_batch, b"\x0a\0" * (FIELDS_MAX + 1)),
        (weighed_stream, b"\x12\0" * (FIELDS_MAX + 1)),
        (weighed_stream, (b"\x12\x10" + b"\x12\0" * 8) * (FIELDS_MAX // 8)),
    ],
    ids=["unknown numbers", "contents", "empty items", "fields of items"],
)
def test_a_walk_over_small_fields_has_an_end(
    weighed: Callable[[bytes], object], raw: bytes
) -> None:
    """Those of a stream's items count together with the items."""
    with pytest.raises(LimitExceeded, match="send it in several"):
        weighed(raw)


def test_as_many_contents_as_there_is_room_for_are_weighed() -> None:
    """The bound is not below what it says."""
    assert weighed_batch(b"\x0a\0" * FIELDS_MAX).weight.items == FIELDS_MAX
