"""What every call promises, against a real server, of the blocking and of the awaited client."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

import simsearch.client
from simsearch.client import AsyncClient, Client, calls
from simsearch.client.calls.rpcs import RPCS
from simsearch.client.credentials import ClientTls
from simsearch.errors import (
    BadContent,
    BadHash,
    BadRequest,
    BankExists,
    BankNotFound,
    EntryRetracted,
    SimsearchError,
    UnknownSpace,
    Unreachable,
)
from simsearch.types import (
    Band,
    Content,
    HashContent,
    ImageContent,
    MatchOptions,
    MatchResult,
    OpinionDraft,
    OpinionKind,
    Priority,
    Signal,
    TextContent,
)
from simsearch.v1 import (
    bank_pb2,
    feedback_pb2,
    index_pb2,
    match_pb2,
    proposal_pb2,
)
from simsearch.wire import policy_to
from tests.client.conftest import EDIT
from tests.client.faulty import Faulty, listening
from tests.client.flavours import Open


def digest(number: int) -> HashContent:
    return HashContent(Signal.SHA256, number.to_bytes(32, "big"))


def test_the_two_clients_have_the_same_methods() -> None:
    """With the same arguments and the same words about them, and no argument is lost."""
    for name, build in vars(calls).items():
        if not inspect.isfunction(build):
            continue
        for client in (Client, AsyncClient):
            method = getattr(client, name)
            assert (inspect.getdoc(method) or "").startswith(inspect.getdoc(build) or "?")
            own = list(inspect.signature(method).parameters)
            assert own == ["self", *inspect.signature(build).parameters]
            assert "deadline_s" in own


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_method_says_what_it_does_and_what_comes_back(
    client: type[Client | AsyncClient],
) -> None:
    """And where that is protobuf, its words say so."""
    methods = {
        name: method
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_")
    }
    assert len(methods) > 30
    for method in methods.values():
        returned = str(inspect.signature(method).return_annotation)
        assert method.__doc__
        assert returned not in (str(inspect.Signature.empty), "")
        assert ("_pb2." in returned) is ("Returns protobuf" in method.__doc__)


def test_every_rpc_has_a_row_and_only_edits_are_not_repeated() -> None:
    """A new method of the protos must be decided about here."""
    rows = {rpc.name: rpc for rpc in RPCS}
    services = [
        service
        for module in (match_pb2, bank_pb2, feedback_pb2, proposal_pb2, index_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    ]
    names = {(service.full_name, method.name) for service in services for method in service.methods}
    assert names | {("grpc.health.v1.Health", "Check")} == {(r.service.name, r.name) for r in RPCS}
    assert {name for name, rpc in rows.items() if not rpc.idempotent} == {
        "CreateBank",
        "UpdateBank",
        "AddEntry",
        "BatchAddEntries",
        "RetractEntry",
    }


def test_a_bans_whole_life(opened: Open, address: str) -> None:
    """Banned, found, listed, extended by nothing, taken back, not found."""
    with opened(address) as client:
        name = f"life-{os.urandom(4).hex()}"
        bank = client.create_bank(name, EDIT, description="of one ban")
        assert client.get_bank(name) == bank
        assert name in [b.name for b in client.list_banks()]
        with pytest.raises(BankExists):
            client.create_bank(name, EDIT)
        update = bank_pb2.UpdateBankRequest(
            name=name, description="still", etag=bank.etag,
            edit=bank_pb2.Edit(actor="me", reason="why"),
        )  # fmt: skip
        assert client.update_bank(update).bank.description == "still"
        key = client.add_entry(name, [digest(1)], EDIT, labels=["x"], note="n").entry.key
        options = MatchOptions((name,), hits_max=3, with_stage_times=True)
        result = client.match(digest(1), options)
        assert (result.verdict, result.hits[0].entry_key) == (Band.BLOCK, key)
        assert result.stage_ms
        assert client.match_hash(Signal.SHA256, digest(1).value, [name]).hits == result.hits
        assert not client.match_hash(Signal.SHA256, digest(1).value, [name]).stage_ms
        assert client.get_entry(name, key).note == "n"
        page = client.list_entries(
            bank_pb2.ListEntriesRequest(bank=name, state=bank_pb2.ENTRY_STATE_ACTIVE)
        )
        assert [e.key for e in page.entries] == [key]
        assert client.extend_entry(name, key, [digest(1)], EDIT).seq == 0
        right = OpinionDraft(OpinionKind.TRUE_POSITIVE, "seen", case_id="c-1")
        opinion = client.give_opinion(name, key, right, EDIT).opinion
        asked = feedback_pb2.ListOpinionsRequest(bank=name, entry_key=key)
        assert list(client.list_opinions(asked).opinions) == [opinion]
        assert not client.list_review(name).items
        assert client.get_entry(name, key).hits.block == 3
        client.retract_entry(name, key, EDIT)
        with pytest.raises(EntryRetracted):
            client.retract_entry(name, key, EDIT)
        assert client.match(digest(1), options).verdict is Band.NONE


def test_lists_have_an_outcome_for_each(opened: Open, address: str) -> None:
    """In order: keys or errors of bans, results or errors of matches."""
    with opened(address) as client:
        bad = HashContent(Signal.SHA256, b"short")
        added = client.add_entries("digests", [digest(10), bad, digest(11)], EDIT)
        assert [type(k) for k in added] == [int, BadHash, int]
        found = client.match_batch([digest(11), bad, digest(12), digest(10)])
        assert [type(f) for f in found] == [MatchResult, BadHash, MatchResult, MatchResult]
        verdicts = [f.verdict for f in found if isinstance(f, MatchResult)]
        assert verdicts == [Band.BLOCK, Band.NONE, Band.BLOCK]
        assert client.match_batch([]) == []


REFUSALS: list[tuple[type[SimsearchError], Callable[..., object]]] = [
    (BadHash, lambda c: c.match_hash(Signal.PDQ, b"1")),
    (BankNotFound, lambda c: c.match_text("hello", ["nowhere"])),
    (BadContent, lambda c: c.match_text("\ud800")),
    (BadContent, lambda c: c.match_image(b"not an image")),
    (UnknownSpace, lambda c: c.match_vector("none", np.eye(1, 8, dtype=np.float32)[0])),
]


@pytest.mark.parametrize(("error", "call"), REFUSALS)
@pytest.mark.parametrize("autobatch", [True, False])
def test_refusals_come_by_name(
    opened: Open,
    address: str,
    error: type[SimsearchError],
    call: Callable[..., object],
    autobatch: bool,
) -> None:
    with opened(address, autobatch=autobatch) as client, pytest.raises(error):
        call(client)


def test_the_server_tells_of_itself(opened: Open, address: str) -> None:
    with opened(address) as client:
        assert client.status().visible_seq >= 1
        assert policy_to(client.default_policy()) == client.status().default_policy
        assert client.is_serving() in (True, False)


def test_a_stream_gives_each_content_its_own_outcome(opened: Open, address: str) -> None:
    """By its number, in whatever order; one bad content is one error."""
    banned = HashContent(Signal.SHA256, os.urandom(32))
    with opened(address) as client:
        key = client.add_entry("digests", [banned], EDIT).entry.key

        def contents() -> list[Content]:
            some: list[Content] = [digest(1000 + n) for n in range(300)]
            some[17], some[40], some[41] = banned, TextContent("\ud800"), ImageContent(b"no")
            return some

        found = dict(client.inner.stream(contents()))
        assert sorted(found) == list(range(300))
        assert [h.entry_key for h in found.pop(17).hits] == [key]
        assert isinstance(found.pop(40), BadContent)
        assert isinstance(found.pop(41), BadContent)
        assert {f.verdict for f in found.values()} == {Band.NONE}
        assert list(client.inner.stream([])) == []


def test_a_stream_that_is_refused_says_why(opened: Open, address: str) -> None:
    with opened(address) as client, pytest.raises(BankNotFound):
        list(client.inner.stream([digest(1)], options=MatchOptions(("nowhere",))))


def test_a_closed_client_says_so(opened: Open, address: str) -> None:
    """Also the second time."""
    with opened(address) as client:
        client.match(digest(1))
        client.close()
        client.close()
        for name, arguments in (("match", [digest(1)]), ("list_banks", [])):
            with pytest.raises(Unreachable, match="closed"):
                getattr(client, name)(*arguments)


def test_several_addresses_of_one_server_are_used(opened: Open) -> None:
    """Calls take turns between them."""
    one, other = Faulty(), Faulty()
    with listening(one) as a, listening(other) as b, opened([a, b], autobatch=False) as client:
        for _ in range(40):
            client.match_text("x")
    assert min(len(one.asked), len(other.asked)) >= 15  # the first calls may find one connection


def test_what_every_call_carries(opened: Open) -> None:
    """The token and the priority; nothing without them."""
    server = Faulty()
    with listening(server) as address:
        with opened(address, token="secret", priority=Priority.BULK) as client:
            client.match_text("x")
            list(client.inner.stream([TextContent("y")]))
        with opened(address) as client:
            client.match_text("z")
    for sent in server.metadata[:2]:
        assert (sent["authorization"], sent["simsearch-priority"]) == ("Bearer secret", "bulk")
    assert not server.metadata[2].keys() & {"authorization", "simsearch-priority"}


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_token_does_not_leave_this_machine_in_clear_text(
    client: type[Client | AsyncClient],
) -> None:
    """Refused when the client is opened, not at its first call; with TLS it may."""
    with pytest.raises(BadRequest, match="clear text"):
        client(["127.0.0.1:1", "matcher.example:50070"], token="secret")
    client("matcher.example:50070", token="secret", tls=ClientTls())


@pytest.mark.parametrize("deadline_s", [0, -1, float("inf"), float("nan")])
def test_a_client_without_a_deadline_is_refused(opened: Open, deadline_s: float) -> None:
    """Everything that waits has a bound."""
    with (
        pytest.raises(BadRequest, match="deadline_s"),
        opened("127.0.0.1:1", deadline_s=deadline_s),
    ):
        pass


def test_the_example_runs(address: str) -> None:
    """The one that the package opens with, as it stands."""
    [example] = re.findall(r"```python\n(.*?)```", simsearch.client.__doc__ or "", re.DOTALL)
    refused: list[object] = []
    with pytest.raises(BadContent):
        exec(
            example.replace("127.0.0.1:50070", address).replace("csam-partners", "digests"),
            {"upload": b"not an image", "refuse": refused.append},
        )
    with Client(address) as client:
        client.add_entry("digests", [HashContent(Signal.SHA256, SHA_OF_GIF)], EDIT)
    exec(
        example.replace("127.0.0.1:50070", address).replace("csam-partners", "digests"),
        {"upload": GIF, "refuse": refused.append},
    )
    assert len(refused) == 1


GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
SHA_OF_GIF = hashlib.sha256(GIF).digest()

CORE = """
import sys
for name in ("torch", "faiss", "lmdb", "PIL", "grpc_reflection"):
    sys.modules[name] = None
import simsearch.client
assert not {m for m in sys.modules if m.startswith(("simsearch.serve", "simsearch.encode"))}
"""


def test_the_core_install_is_enough() -> None:
    """A client needs no server's library, and loads nothing of the server."""
    subprocess.run([sys.executable, "-c", CORE], check=True, timeout=60)
