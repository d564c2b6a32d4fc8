"""Over the wire: files of any kind, and texts that are not UTF-8."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import grpc
import pytest

from simsearch.client import Client
from simsearch.types import (
    Band,
    Edit,
    FileContent,
    HashContent,
    MatchOptions,
    MatchResult,
    Signal,
    SignalState,
)
from simsearch.v1 import bank_pb2, error_pb2, match_pb2
from tests.encode.pictures import landscape, saved
from tests.fakes import FakeTextEncoder, encoders
from tests.serve.house import served

EDIT = Edit("ann", "a test")
VIDEO = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 8
PICTURE = saved(landscape(7, (256, 256)), "PNG")
HALF_AN_EMOJI = b"\xed\xa0\xbd"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    loaded = {e.name: e for e in encoders(FakeTextEncoder())}
    with served(tmp_path_factory.mktemp("files"), loaded) as address:
        with Client(address) as client:
            client.create_bank("files", EDIT)
            client.add_entry(
                "files", [HashContent(Signal.SHA256, hashlib.sha256(VIDEO).digest())], EDIT
            )
            client.add_entry("files", [FileContent(PICTURE)], EDIT)
        yield address


def test_a_file_is_asked_by_digest_and_by_what_it_shows(address: str) -> None:
    """One batch: a banned video, a banned picture, and neither."""
    with Client(address) as client:
        outcomes = client.match_batch(
            [FileContent(VIDEO), FileContent(PICTURE), FileContent(b"%PDF-1.7")],
            MatchOptions(("files",)),
        )
    results = [o for o in outcomes if isinstance(o, MatchResult)]
    assert [r.verdict for r in results] == [Band.BLOCK, Band.BLOCK, Band.NONE]
    assert [r.complete for r in results] == [False, True, False]
    [pdq] = [r for r in results[0].signals if r.signal == "pdq"]
    assert pdq.state is SignalState.NOT_COMPUTED


def raw_with_half_an_emoji(request: object) -> bytes:
    raw: bytes = request.SerializeToString()  # type: ignore[attr-defined]
    return raw.replace("€".encode(), HALF_AN_EMOJI)


def batch() -> match_pb2.BatchMatchRequest:
    request = match_pb2.BatchMatchRequest()
    for text in ("a good text of a few words", "a cut text €", "another good text of words"):
        request.contents.add(text=text)
    return request


def test_a_cut_text_fails_alone_in_a_batch(address: str) -> None:
    """By name; the others are answered."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/simsearch.v1.MatchService/BatchMatch",
            request_serializer=raw_with_half_an_emoji,
            response_deserializer=match_pb2.BatchMatchResponse.FromString,
        )
        items = call(batch(), timeout=10).items
    assert [item.WhichOneof("outcome") for item in items] == ["result", "error", "result"]
    assert items[1].error.reason == error_pb2.ERROR_REASON_BAD_CONTENT
    assert "UTF-8" in items[1].error.message


def test_a_cut_text_fails_alone_in_a_stream(address: str) -> None:
    """The stream goes on."""

    def requests() -> Iterator[match_pb2.StreamMatchRequest]:
        for number, content in enumerate(batch().contents):
            yield match_pb2.StreamMatchRequest(
                items=[match_pb2.StreamMatchItem(id=number, content=content)]
            )

    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(
            "/simsearch.v1.MatchService/StreamMatch",
            request_serializer=raw_with_half_an_emoji,
            response_deserializer=match_pb2.StreamMatchResponse.FromString,
        )
        answers = {a.id: a for response in call(requests(), timeout=10) for a in response.answers}
    assert {n: a.WhichOneof("outcome") for n, a in answers.items()} == {
        0: "result",
        1: "error",
        2: "result",
    }


def test_a_cut_text_alone_is_refused_by_name(address: str) -> None:
    """In a match of its own and in a ban; a good entry of the same call is stored."""
    drafts = bank_pb2.BatchAddEntriesRequest(bank="files")
    drafts.edit.actor, drafts.edit.reason = "ann", "a test"
    for text in ("one banned text of five words", "a cut text €"):
        drafts.entries.add().contents.add(text=text)
    with grpc.insecure_channel(address) as channel:
        match = channel.unary_unary(
            "/simsearch.v1.MatchService/Match",
            request_serializer=raw_with_half_an_emoji,
            response_deserializer=match_pb2.MatchResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as refused:
            match(match_pb2.MatchRequest(content=batch().contents[1]), timeout=10)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "UTF-8" in str(refused.value.details())
        add = channel.unary_unary(
            "/simsearch.v1.BankService/BatchAddEntries",
            request_serializer=raw_with_half_an_emoji,
            response_deserializer=bank_pb2.BatchAddEntriesResponse.FromString,
        )
        items = add(drafts, timeout=10).items
    assert items[0].key
    assert items[1].error.reason == error_pb2.ERROR_REASON_BAD_CONTENT
