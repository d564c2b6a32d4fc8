"""Bad input over a real connection: each has one status, one sentence, and changes nothing."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, cast

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.errors import SimsearchError
from simsearch.types import (
    Content,
    CosineRule,
    Edit,
    HammingRule,
    HashContent,
    ImageContent,
    MatchOptions,
    Modality,
    Policy,
    Signal,
    TextContent,
    VectorContent,
)
from simsearch.v1 import bank_pb2, bank_pb2_grpc, match_pb2, match_pb2_grpc
from tests.serve.conftest import EDIT

Call = Callable[[Client, str], Any]


def bomb() -> bytes:
    """A PNG of 100 bytes that claims 50,000 × 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def cut_off_jpeg() -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(out, "JPEG")
    return out.getvalue()[:700]


def vectors(rows: np.ndarray) -> VectorContent:
    return VectorContent("minilm", rows)


UNIT = np.eye(1, 384, dtype=np.float32)
NAN = np.full((1, 384), np.nan, np.float32)


def policy(rule: HammingRule) -> Policy:
    return Policy(hamming=(rule,))


def retract_twice(client: Client, bank: str) -> None:
    key = client.add_entry(bank, [TextContent("an entry to take back twice")], EDIT).entry.key
    client.retract_entry(bank, key, EDIT)
    client.retract_entry(bank, key, EDIT)


def other_banks_entry(client: Client, bank: str) -> None:
    key = client.add_entry(bank, [TextContent("an entry of one bank only")], EDIT).entry.key
    client.create_bank(f"{bank}-other", EDIT)
    client.retract_entry(f"{bank}-other", key, EDIT)


def stale_etag(client: Client, bank: str) -> None:
    request = bank_pb2.UpdateBankRequest(
        name=bank, description="new", etag="v0", edit=bank_pb2.Edit(actor="a", reason="r")
    )
    client.update_bank(request)


REFUSALS: list[tuple[str, str, Call]] = [
    ("an empty image", "EMPTY_CONTENT", lambda c, b: c.match_image(b"")),
    ("an empty text", "EMPTY_CONTENT", lambda c, b: c.match_text("")),
    ("a text of zero-width characters", "EMPTY_CONTENT", lambda c, b: c.match_text("\u200b\u200d")),
    ("bytes that are no image", "BAD_CONTENT", lambda c, b: c.match_image(b"not an image")),
    ("an image cut off", "BAD_CONTENT", lambda c, b: c.match_image(cut_off_jpeg())),
    ("a decompression bomb", "CONTENT_TOO_LARGE", lambda c, b: c.match_image(bomb())),
    ("too much text", "CONTENT_TOO_LARGE", lambda c, b: c.match_text("word " * 5000)),
    ("a vector of another dim", "BAD_VECTOR", lambda c, b: c.match_vector("minilm", UNIT[:, :200])),
    ("a vector with NaN", "BAD_VECTOR", lambda c, b: c.match_vector("minilm", NAN)),
    ("a vector of length 3", "BAD_VECTOR", lambda c, b: c.match_vector("minilm", 3 * UNIT)),
    ("a vector of zeros", "BAD_VECTOR", lambda c, b: c.match_vector("minilm", 0 * UNIT)),
    ("a space that is not here", "UNKNOWN_SPACE", lambda c, b: c.match_vector("clip-xl", UNIT)),
    ("too many vectors", "LIMIT_EXCEEDED",
     lambda c, b: c.match_vector("minilm", np.repeat(UNIT, 300, axis=0))),
    ("a PDQ of 16 bytes", "BAD_HASH", lambda c, b: c.match_hash(Signal.PDQ, bytes(16))),
    ("an MD5 of 32 bytes", "BAD_HASH", lambda c, b: c.match_hash(Signal.MD5, bytes(32))),
    ("a bank that is not there", "BANK_NOT_FOUND", lambda c, b: c.match_text("hello", ["nowhere"])),
    ("adding to no bank", "BANK_NOT_FOUND",
     lambda c, b: c.add_entry("nowhere", [TextContent("some text to ban")], EDIT)),
    ("a bank twice", "BANK_EXISTS", lambda c, b: c.create_bank(b, EDIT)),
    ("a bad bank name", "BAD_BANK_NAME", lambda c, b: c.create_bank("Not A Name", EDIT)),
    ("an etag of yesterday", "BANK_CHANGED", stale_etag),
    ("thresholds out of order", "BAD_POLICY",
     lambda c, b: c.create_bank("x", EDIT, policy=policy(HammingRule(Signal.PDQ, 31, 20)))),
    ("a distance over 256 bits", "BAD_POLICY",
     lambda c, b: c.create_bank("x", EDIT, policy=policy(HammingRule(Signal.PDQ, 300)))),
    ("a cosine over 1", "BAD_POLICY",
     lambda c, b: c.create_bank("x", EDIT, policy=Policy(
         cosine=(CosineRule("minilm", Modality.TEXT, review=1.5),)))),
    ("a rule for no known space", "UNKNOWN_SPACE",
     lambda c, b: c.create_bank("x", EDIT, policy=Policy(
         cosine=(CosineRule("clip-xl", Modality.TEXT, review=0.5),)))),
    ("nobody's edit", "BAD_REQUEST", lambda c, b: c.create_bank("x", Edit("", "why not"))),
    ("an edit without a reason", "BAD_REQUEST", lambda c, b: c.create_bank("x", Edit("me", " "))),
    ("an entry of nothing", "EMPTY_CONTENT", lambda c, b: c.add_entry(b, [], EDIT)),
    ("an entry that is not there", "ENTRY_NOT_FOUND", lambda c, b: c.get_entry(b, 10**9)),
    ("retracting twice", "ENTRY_RETRACTED", retract_twice),
    ("an entry of another bank", "ENTRY_IN_OTHER_BANK", other_banks_entry),
    ("too many hits asked for", "LIMIT_EXCEEDED",
     lambda c, b: c.match(TextContent("hello"), MatchOptions(hits_max=10**6))),
    ("more hits than one answer holds", "LIMIT_EXCEEDED",
     lambda c, b: c.match_batch([TextContent("a b")] * 200, MatchOptions(hits_max=100))),
    ("a page too long", "LIMIT_EXCEEDED",
     lambda c, b: c.list_entries(bank_pb2.ListEntriesRequest(bank=b, page_size=10**6))),
    ("a page token of ours?", "BAD_REQUEST",
     lambda c, b: c.list_entries(bank_pb2.ListEntriesRequest(bank=b, page_token="next"))),
    ("a batch too long", "LIMIT_EXCEEDED", lambda c, b: c.match_batch([TextContent("a b")] * 1025)),
    ("too many labels", "LIMIT_EXCEEDED",
     lambda c, b: c.add_entry(b, [TextContent("some text to ban")], EDIT, labels=["x"] * 40)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reason", "call"), REFUSALS, ids=[r[0] for r in REFUSALS])
def test_bad_input_is_refused_by_name(
    client: Client, bank: str, name: str, reason: str, call: Call
) -> None:
    """Each refusal has its reason, a sentence, and leaves the bank as it was."""
    entries = {b.name: b.active_entries for b in client.list_banks()}
    with pytest.raises(SimsearchError) as refusal:
        call(client, bank)
    assert refusal.value.reason == reason
    assert len(refusal.value.message) > 20
    after = {b.name: b.active_entries for b in client.list_banks()}
    assert {b: n for b, n in after.items() if b in entries} == {
        b: n + (name == "an entry of another bank" and b == bank) for b, n in entries.items()
    }


def test_a_refusal_carries_its_reason_in_the_rich_status(server: ServerProcess) -> None:
    """Any language finds reason and domain in google.rpc.ErrorInfo, beside the status code."""
    with grpc.insecure_channel(server.address) as channel:
        stub = match_pb2_grpc.MatchServiceStub(channel)
        with pytest.raises(grpc.RpcError) as failure:
            stub.Match(match_pb2.MatchRequest(), timeout=10)
        status = rpc_status.from_call(cast(grpc.Call, failure.value))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("EMPTY_CONTENT", "simsearch")
    assert status.message == "the content is empty: set file, image, text, vector or hash"


def test_numbers_that_no_enum_has_are_refused(server: ServerProcess, bank: str) -> None:
    """A field of a newer or a broken client gets a name, never INTERNAL."""
    with grpc.insecure_channel(server.address) as channel:
        stub = bank_pb2_grpc.BankServiceStub(channel)
        for request in (
            bank_pb2.ListEntriesRequest(bank=bank, state=99),  # type: ignore[arg-type]
            bank_pb2.ListEntriesRequest(bank=bank, page_size=-1),
        ):
            with pytest.raises(grpc.RpcError) as failure:
                stub.ListEntries(request, timeout=10)
            assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_bad_item_fails_alone_in_a_match(client: Client) -> None:
    """Items of a batch are judged each on its own."""
    contents: list[Content] = [
        TextContent("a good text"),
        ImageContent(b"no image"),
        TextContent(""),
    ]
    outcomes = client.match_batch([*contents, HashContent(Signal.PDQ, bytes(32))])
    reasons = [o.reason if isinstance(o, SimsearchError) else "" for o in outcomes]
    assert reasons == ["", "BAD_CONTENT", "EMPTY_CONTENT", ""]


def test_a_bad_item_fails_alone_in_a_ban(client: Client, bank: str) -> None:
    """Of a batch of bans the good ones are stored, in order, and the others say why not."""
    contents: list[Content] = [
        TextContent("a text to ban"),
        ImageContent(b"no"),
        TextContent("another one to ban"),
    ]
    added = client.add_entries(bank, contents, EDIT)
    assert isinstance(added[1], SimsearchError)
    assert added[1].reason == "BAD_CONTENT"
    keys = [k for k in added if isinstance(k, int)]
    assert [
        e.key for e in client.list_entries(bank_pb2.ListEntriesRequest(bank=bank)).entries
    ] == keys


def test_no_content_in_any_refusal(server: ServerProcess) -> None:
    """What a caller sent never comes back in a message, nor in the server's log."""
    marker = "planted-marker-7391"
    with Client(server.address) as client:
        for content in (
            ImageContent(b"\x89PNG\r\n\x1a\n" + marker.encode()),
            TextContent(marker * 2000),
        ):
            with pytest.raises(SimsearchError) as refusal:
                client.match(content)
            assert marker not in refusal.value.message
    log = (server.data_dir.parent / "server.log").read_text(encoding="utf-8")
    assert marker not in log


def test_a_bank_that_is_not_there_is_named_among_many_that_are(client: Client) -> None:
    """The refusal keeps its reason however many banks there are and however long the name."""
    for number in range(60):
        client.create_bank(f"one-of-many-banks-with-a-rather-long-name-{number}", EDIT)
    with pytest.raises(SimsearchError) as refusal:
        client.match(TextContent("hello"), MatchOptions(("n" * 20_000,)))
    assert refusal.value.reason == "BANK_NOT_FOUND"
