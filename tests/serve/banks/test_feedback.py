"""Opinions, review and hit counts over a real port: who may, what others see, what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from simsearch.client import Client
from simsearch.errors import (
    BadHash,
    BadRequest,
    BankNotFound,
    EntryNotFound,
    LimitExceeded,
    PermissionDenied,
)
from simsearch.types import (
    Band,
    Edit,
    EntryState,
    HashContent,
    MatchOptions,
    OpinionDraft,
    OpinionKind,
    Signal,
)
from simsearch.v1 import bank_pb2, feedback_pb2
from tests.serve.callers import Callers, Served, code_of, guarded

SIGNED = Edit("", "looked at it")
SHA, PDQ = HashContent(Signal.SHA256, b"\x01" * 32), HashContent(Signal.PDQ, b"\x96" * 32)
WRONG = OpinionDraft(OpinionKind.FALSE_POSITIVE, "a sunset", b"\x02" * 32, "case-9")
RIGHT = OpinionDraft(OpinionKind.TRUE_POSITIVE)

Calls = Callable[[str], Client]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Served]:
    """Entry 1 is in `scams`, entry 2 in `secret`, which half a caller may not read."""
    callers = Callers(tmp_path / "identities.toml")
    for name in ("ann", "bob", "cid"):
        callers.add(name, "analyst", "ingest")
    callers.add("admin", "admin")
    callers.add("auditor", "auditor", edit_banks=[])
    callers.add("half", "analyst", banks=["scams"], edit_banks=["scams"])
    callers.add("ingest", "ingest")
    with guarded(tmp_path, callers) as served:
        with connected(served, "admin") as admin:
            for bank in ("scams", "secret"):
                admin.create_bank(bank, SIGNED)
                admin.add_entry(bank, [SHA, PDQ], SIGNED)
        yield served


def connected(served: Served, name: str) -> Client:
    return Client(served.address, token=served.callers.tokens[name], deadline_s=10)


@pytest.fixture
def as_(world: Served) -> Iterator[Calls]:
    clients: dict[str, Client] = {}

    def get(name: str) -> Client:
        return clients.setdefault(name, connected(world, name))

    yield get
    for each in clients.values():
        each.close()


def listed(client: Client, **asked: object) -> list[feedback_pb2.Opinion]:
    """Of every page."""
    request = feedback_pb2.ListOpinionsRequest(**({"bank": "scams"} | asked))  # type: ignore[arg-type]
    found: list[feedback_pb2.Opinion] = []
    while True:
        page = client.list_opinions(request)
        found += page.opinions
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def test_an_opinion_is_given_and_listed_with_who_and_why(as_: Calls) -> None:
    """Signed with the caller's name, whole, and read by who audits."""
    given = as_("ann").give_opinion("scams", 1, WRONG, SIGNED)
    [seen] = listed(as_("auditor"))
    assert seen == given.opinion
    assert (seen.bank, seen.entry_key, seen.kind) == (
        "scams", 1, feedback_pb2.OPINION_KIND_FALSE_POSITIVE,
    )  # fmt: skip
    assert (seen.note, seen.content_sha256, seen.case_id) == ("a sunset", b"\x02" * 32, "case-9")
    assert (seen.change.actor, seen.change.reason) == ("ann", "looked at it")
    assert (seen.change.seq, given.disputed) == (given.seq, False)
    assert as_("ann").give_opinion("scams", 1, WRONG, SIGNED) == given
    [change] = as_("admin").list_changes(bank_pb2.ListChangesRequest(actor="ann")).changes
    assert (change.kind, change.entry_key) == (bank_pb2.CHANGE_KIND_OPINION_GIVEN, 1)


def test_three_people_make_an_entry_disputed_and_a_person_decides(as_: Calls) -> None:
    """Its hits are reviewed from the answer on; it waits in the list until somebody moves it."""
    assert as_("ann").match(SHA, MatchOptions(("scams",))).verdict is Band.BLOCK
    given = [as_(n).give_opinion("scams", 1, WRONG, SIGNED) for n in ("ann", "bob", "cid")]
    assert [each.disputed for each in given] == [False, False, True]
    result = as_("ann").match(SHA, MatchOptions(("scams",)))
    assert (result.verdict, result.hits[0].disputed) == (Band.REVIEW, True)
    [waiting] = as_("auditor").list_review().items
    assert (waiting.entry.key, waiting.entry.bank) == (1, "scams")
    assert (waiting.since.seq, waiting.since.actor) == (given[2].seq, "simsearch")
    assert waiting.since.reason == "held a false positive by ann, bob and cid"
    assert [opinion.change.actor for opinion in waiting.opinions] == ["ann", "bob", "cid"]
    assert waiting.entry.hits.block == 1
    as_("bob").move_entry("scams", 1, EntryState.ACTIVE, SIGNED)
    assert not as_("auditor").list_review().items
    assert as_("ann").match(SHA, MatchOptions(("scams",))).verdict is Band.BLOCK


def test_opinions_are_chosen(as_: Calls) -> None:
    as_("ann").give_opinion("scams", 1, WRONG, SIGNED)
    as_("bob").give_opinion("scams", 1, RIGHT, SIGNED)
    as_("ann").give_opinion("scams", 1, RIGHT, SIGNED)
    auditor = as_("auditor")
    everything = listed(auditor)
    assert [each.superseded for each in everything] == [True, False, False]
    assert listed(auditor, page_size=1) == everything
    wrong, second = feedback_pb2.OPINION_KIND_FALSE_POSITIVE, everything[1].change.time
    assert listed(auditor, kind=wrong) == everything[:1]
    assert listed(auditor, actor="bob") == everything[1:2]
    assert listed(auditor, since=second) == everything[1:]
    assert listed(auditor, until=second) == everything[:1]
    assert listed(auditor, entry_key=1) == everything
    assert listed(auditor, entry_key=2) == listed(auditor, bank="secret") == []
    assert listed(auditor, since=Timestamp(seconds=10**10)) == []


def test_what_is_asked_for_wrongly_is_refused(as_: Calls) -> None:
    ann = as_("ann")
    for said, refusal in (
        (OpinionDraft(OpinionKind.OTHER, content_sha256=b"short"), BadHash),
        (OpinionDraft(OpinionKind.OTHER, "x" * 5_000), LimitExceeded),
    ):
        with pytest.raises(refusal):
            ann.give_opinion("scams", 1, said, SIGNED)
    for asked in (
        {"page_token": "1"}, {"page_token": "x-1"}, {"page_token": f"1-{2**64 - 1}"},
        {"kind": 99}, {"entry_key": 2**64 - 1},
    ):  # fmt: skip
        with pytest.raises(BadRequest):
            listed(ann, **asked)
    with pytest.raises(LimitExceeded):
        listed(ann, page_size=10**6)
    with pytest.raises(LimitExceeded):
        ann.list_review(page_size=-1)
    with pytest.raises(BadRequest):
        ann.list_review(page_token="x")
    with pytest.raises(BankNotFound):
        ann.list_review("absent")


@pytest.mark.parametrize("kind", [0, 99])
def test_a_kind_that_there_is_not_is_refused(world: Served, kind: int) -> None:
    request = feedback_pb2.GiveOpinionRequest(
        bank="scams", entry_key=1, kind=kind, edit=bank_pb2.Edit(reason="why")  # type: ignore[arg-type]
    )  # fmt: skip
    with grpc.insecure_channel(world.address) as channel:
        call: Any = channel.unary_unary("/simsearch.v1.FeedbackService/GiveOpinion")
        raw, metadata = request.SerializeToString(), world.metadata("ann")
        code = code_of(lambda: call(raw, metadata=metadata, timeout=10))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_banks_of_others_are_not_told_of(as_: Calls) -> None:
    """Their entries are not listed, have no opinions, and answer like keys that there are not."""
    for name in ("ann", "bob", "cid"):
        as_(name).give_opinion("secret", 2, WRONG, SIGNED)
    assert [each.entry.bank for each in as_("admin").list_review().items] == ["secret"]
    assert not as_("half").list_review().items
    with pytest.raises(EntryNotFound):
        as_("half").give_opinion("scams", 2, WRONG, SIGNED)
    with pytest.raises(BankNotFound):
        listed(as_("half"), bank="secret")
    with pytest.raises(PermissionDenied):
        as_("auditor").give_opinion("scams", 1, WRONG, SIGNED)
    with pytest.raises(PermissionDenied):
        as_("ingest").list_review()


def test_an_entry_says_how_often_it_was_hit(as_: Calls) -> None:
    """Alone and in a list, by band; near ones have no equal digest; those of the shadow apart."""
    ann, scams = as_("ann"), MatchOptions(("scams",))
    near = HashContent(Signal.PDQ, b"\x96" * 31 + b"\x97")
    for content in (SHA, PDQ, near):
        assert ann.match(content, scams).hits
    ann.match_batch([SHA, HashContent(Signal.SHA256, b"\x09" * 32)], scams)
    hits = ann.get_entry("scams", 1).hits
    assert (hits.total, hits.near, hits.shadow) == (4, 2, 0)
    assert hits.total == hits.block + hits.review + hits.log
    assert hits.last_time.seconds > 1_700_000_000
    assert ann.get_entry("secret", 2).hits.total == 0
    ann.move_entry("scams", 1, EntryState.SHADOW, SIGNED)
    ann.match(SHA, scams)
    [entry] = ann.list_entries(bank_pb2.ListEntriesRequest(bank="scams")).entries
    assert (entry.hits.total, entry.hits.shadow) == (4, 1)
