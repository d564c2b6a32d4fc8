"""What a known caller sees and may do: banks, scores, its own name, its share; over a real port."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_status import rpc_status

from simsearch.client import Client
from simsearch.errors import (
    BadRequest,
    BankNotFound,
    EntryNotFound,
    PermissionDenied,
    SimsearchError,
    Unauthenticated,
)
from simsearch.serve.auth.redaction import can_hold_scores
from simsearch.types import (
    Band,
    Decision,
    Edit,
    EntryState,
    Evidence,
    HashContent,
    MatchOptions,
    MatchResult,
    OpinionDraft,
    OpinionKind,
    Signal,
    TextContent,
)
from simsearch.v1 import (
    bank_pb2,
    content_pb2,
    feedback_pb2,
    match_pb2,
    match_pb2_grpc,
    proposal_pb2,
)
from simsearch.wire import content_to, edit_to
from tests.serve.auth.test_permissions import RPCS
from tests.serve.callers import Callers, Served, code_of, guarded

SIGNED = Edit("", "a test")
HASH = HashContent(Signal.PDQ, b"\x96" * 32)
NEAR = HashContent(Signal.PDQ, b"\x96" * 31 + b"\x97")
TEXT = TextContent("send one coin to this address and you will get two of them back today")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Served]:
    """Two banks with the same two items; `scams` is open to some, `secret` to the admin alone."""
    directory = tmp_path_factory.mktemp("guard")
    callers = Callers(directory / "identities.toml")
    callers.add("admin", "admin", "ingest")
    callers.add("analyst", "analyst", banks=["scams", "mine-*"], edit_banks=["scams", "mine-*"])
    callers.add("reader", "analyst", banks=["scams"], edit_banks=[])
    callers.add("ingest", "ingest", banks=["scams"], edit_banks=[])
    callers.add("trusted", "ingest", banks=["scams"], edit_banks=[], scores=True)
    callers.add("outsider", "ingest", "analyst", banks=["elsewhere-*"], edit_banks=[])
    with guarded(directory, callers, clock) as served:
        with client(served, "admin") as admin:
            for bank in ("scams", "secret"):
                admin.create_bank(bank, SIGNED)
                admin.add_entry(bank, [HASH], SIGNED, labels=["coin"], source="partner")
                admin.add_entry(bank, [TEXT], SIGNED)
        yield served


def client(served: Served, name: str) -> Client:
    return Client(served.address, token=served.callers.tokens[name], deadline_s=10)


Calls = Callable[[str], Client]


@pytest.fixture
def as_(world: Served) -> Iterator[Calls]:
    """`as_("analyst")` is a client of that name."""
    open_clients: dict[str, Client] = {}

    def get(name: str) -> Client:
        if name not in open_clients:
            open_clients[name] = client(world, name)
        return open_clients[name]

    yield get
    for each in open_clients.values():
        each.close()


def banks_hit(result: object) -> set[str]:
    assert isinstance(result, MatchResult)
    return {hit.bank for hit in result.hits}


# ---------------------------------------------------------------- banks


def test_all_banks_means_all_of_mine(as_: Calls) -> None:
    """Alone, in a batch and in a stream; and the counts and lists hold no others."""
    both = {"scams", "secret"}
    for name, mine in (("admin", both), ("analyst", {"scams"}), ("ingest", {"scams"})):
        caller = as_(name)
        assert banks_hit(caller.match(HASH)) == mine
        assert [banks_hit(o) for o in caller.match_batch([TEXT, HASH])] == [mine, mine]
        assert [banks_hit(o) for _, o in caller.match_stream([TEXT, HASH])] == [mine, mine]
        assert {b.name for b in caller.status().banks} == mine
    assert {b.name for b in as_("analyst").list_banks()} == {"scams"}
    assert {b.name for b in as_("admin").list_banks()} >= both


def test_an_answer_given_to_one_is_not_given_to_another(as_: Calls) -> None:
    """What is remembered of content seen before belongs to those who may see the same banks."""
    for name, mine in (("admin", {"scams", "secret"}), ("ingest", {"scams"}), ("admin", None)):
        found = as_(name).match(TEXT)
        assert banks_hit(found) == (mine or {"scams", "secret"})


def test_who_may_ask_no_bank_is_not_told_that_nothing_matched(as_: Calls) -> None:
    """An empty world is not a clean upload: the answer is not complete."""
    result = as_("outsider").match(HASH)
    assert (result.verdict, result.hits, result.complete) == (Band.NONE, (), False)


def importing(bank: str, edit: Edit) -> bank_pb2.ImportEntriesRequest:
    hashes = bank_pb2.HashRows(
        signal=content_pb2.HASH_SIGNAL_PDQ,
        values=bytes(32),
        abouts=[bank_pb2.ImportItem()],
        about_of=[0],
    )
    return bank_pb2.ImportEntriesRequest(
        bank=bank, import_id="list", hashes=hashes, edit=edit_to(edit)
    )


def reverting(bank: str, edit: Edit) -> bank_pb2.RevertChangesRequest:
    return bank_pb2.RevertChangesRequest(
        changes_of="analyst", since=Timestamp(seconds=1), bank=bank, edit=edit_to(edit)
    )


WRONG = OpinionDraft(OpinionKind.FALSE_POSITIVE)

READS: dict[str, Callable[[Client, str], object]] = {
    "GetBank": lambda c, bank: c.get_bank(bank),
    "GetEntry": lambda c, bank: c.get_entry(bank, 1),
    "ListEntries": lambda c, bank: c.list_entries(bank_pb2.ListEntriesRequest(bank=bank)),
    "ListOpinions": lambda c, bank: c.list_opinions(feedback_pb2.ListOpinionsRequest(bank=bank)),
    "ListReview": lambda c, bank: c.list_review(bank),
    "ListProposals": lambda c, bank: c.list_proposals(proposal_pb2.ListProposalsRequest(bank=bank)),
    "CompareEntries": lambda c, bank: c.compare_entries(bank, 1, 1),
    "Match": lambda c, bank: c.match(HASH, MatchOptions((bank,))),
    "BatchMatch": lambda c, bank: c.match_batch([HASH], MatchOptions((bank,))),
    "StreamMatch": lambda c, bank: list(c.match_stream([HASH], MatchOptions((bank,)))),
}
EDITS: dict[str, Callable[[Client, str], object]] = {
    "AddEntry": lambda c, bank: c.add_entry(bank, [HASH], SIGNED),
    "BatchAddEntries": lambda c, bank: c.add_entries(bank, [HASH], SIGNED),
    "ExtendEntry": lambda c, bank: c.extend_entry(bank, 1, [HASH], SIGNED),
    "GiveOpinion": lambda c, bank: c.give_opinion(bank, 1, WRONG, SIGNED),
    "ImportEntries": lambda c, bank: c.import_entries(importing(bank, SIGNED)),
    "MoveEntry": lambda c, bank: c.move_entry(bank, 1, EntryState.SHADOW, SIGNED),
    "RetractEntry": lambda c, bank: c.retract_entry(bank, 1, SIGNED),
}
AUDITS: dict[str, Callable[[Client, str], object]] = {
    "ListChanges": lambda c, bank: c.list_changes(bank_pb2.ListChangesRequest(bank=bank)),
}
POLICIES: dict[str, Callable[[Client, str], object]] = {
    "CreateBank": lambda c, bank: c.create_bank(bank, SIGNED),
    "UpdateBank": lambda c, bank: c.update_bank(
        bank_pb2.UpdateBankRequest(name=bank, description="x", edit=bank_pb2.Edit(reason="r"))
    ),
    "RevertChanges": lambda c, bank: c.revert_changes(reverting(bank, SIGNED)),
    "DecideProposal": lambda c, bank: c.decide_proposal(1, Decision.APPROVE, SIGNED, bank=bank),
    "ExportEntries": lambda c, bank: c.export_entries(exporting(bank)),
}


def exporting(bank: str) -> bank_pb2.ExportEntriesRequest:
    return bank_pb2.ExportEntriesRequest(bank=bank, edit=bank_pb2.Edit(reason="r"))


def refusal_of(call: Callable[[], object]) -> SimsearchError:
    with pytest.raises(SimsearchError) as refusal:
        call()
    return refusal.value


def test_every_rpc_that_names_a_bank_is_tried_here() -> None:
    """Below, that is: one that is missing could tell of a bank."""
    named = {
        name.rpartition("/")[2]
        for name, method in RPCS.items()
        if name.startswith("/simsearch.")
        and {"bank", "name", "options"} & {f.name for f in method.input_type.fields}
    }
    assert named == READS.keys() | EDITS.keys() | POLICIES.keys() | AUDITS.keys()


@pytest.mark.parametrize("rpc", [*READS, *EDITS, *POLICIES, *AUDITS])
def test_a_bank_of_others_answers_like_one_that_is_not_there(
    world: Served, as_: Calls, rpc: str
) -> None:
    """The same error and the same words, but for the name that was asked for."""
    approved = rpc in POLICIES | AUDITS
    if approved:
        world.callers.add("approver", "approver", banks=["scams"], edit_banks=["scams"])
    caller = as_("approver" if approved else "analyst")
    call = (READS | EDITS | POLICIES | AUDITS)[rpc]
    hidden = refusal_of(lambda: call(caller, "secret"))
    absent = refusal_of(lambda: call(caller, "absent"))
    assert type(hidden) is type(absent)
    assert hidden.message.replace("secret", "absent") == absent.message
    assert type(hidden) is (BankNotFound if rpc in READS | AUDITS else PermissionDenied)


def test_no_refusal_lists_banks_of_others(as_: Calls) -> None:
    """Who misspells a bank is told of the banks that are there for him."""
    words = refusal_of(lambda: as_("analyst").match(HASH, MatchOptions(("mine-absent",)))).message
    assert "scams" in words
    assert "secret" not in words


def test_a_key_does_not_tell_of_a_bank(as_: Calls) -> None:
    """An entry of a bank that is not there for me answers like a key that was never given."""
    key = as_("admin").list_entries(bank_pb2.ListEntriesRequest(bank="secret")).entries[0].key
    for call in (
        lambda k: as_("analyst").get_entry("scams", k),
        lambda k: as_("analyst").retract_entry("scams", k, SIGNED),
        lambda k: as_("analyst").extend_entry("scams", k, [HASH], SIGNED),
        lambda k: as_("analyst").give_opinion("scams", k, WRONG, SIGNED),
    ):
        hidden, absent = (refusal_of(partial(call, k)) for k in (key, 10**6))
        assert type(hidden) is EntryNotFound
        assert hidden.message.replace(str(key), str(10**6)) == absent.message
    assert refusal_of(lambda: as_("admin").get_entry("scams", key)).reason == "ENTRY_IN_OTHER_BANK"


@pytest.mark.parametrize("rpc", list(EDITS))
def test_to_read_is_not_to_edit(as_: Calls, rpc: str) -> None:
    """A bank that I may only read can be read, and every edit of it is refused."""
    before = as_("reader").get_bank("scams").active_entries
    refusal = refusal_of(lambda: EDITS[rpc](as_("reader"), "scams"))
    assert type(refusal) is PermissionDenied
    assert "edit_banks" in refusal.message
    assert as_("reader").get_bank("scams").active_entries == before


def test_a_bank_of_a_pattern_of_mine_can_be_made_and_used(as_: Calls, world: Served) -> None:
    """And one outside of it cannot, whether there is one of that name or not."""
    world.callers.add("approver", "approver", banks=[], edit_banks=["mine-*"])
    as_("approver").create_bank("mine-new", SIGNED)
    as_("analyst").add_entry("mine-new", [HASH], SIGNED)
    assert banks_hit(as_("analyst").match(HASH)) == {"scams", "mine-new"}
    for name in ("secret", "not-mine"):
        refusal = refusal_of(partial(as_("approver").create_bank, name, SIGNED))
        assert type(refusal) is PermissionDenied


# ---------------------------------------------------------------- whose edit it is


def test_an_edit_is_signed_with_the_callers_name(as_: Calls) -> None:
    """Nobody has to say who they are, and saying it rightly is no mistake."""
    for actor in ("", "analyst"):
        added = as_("analyst").add_entry("scams", [HASH], Edit(actor, "case 4711"))
        entry = as_("admin").get_entry("scams", added.entry.key)
        assert (entry.added.actor, entry.added.reason) == ("analyst", "case 4711")


@pytest.mark.parametrize("rpc", [*EDITS])
def test_nobody_signs_as_another(as_: Calls, rpc: str) -> None:
    """Refused by name, and nothing is written."""
    forged = Edit("admin", "case 4711")
    caller, before = as_("analyst"), as_("analyst").status().durable_seq
    call = {
        "AddEntry": lambda: caller.add_entry("scams", [HASH], forged),
        "BatchAddEntries": lambda: caller.add_entries("scams", [HASH], forged),
        "ExtendEntry": lambda: caller.extend_entry("scams", 1, [HASH], forged),
        "GiveOpinion": lambda: caller.give_opinion("scams", 1, WRONG, forged),
        "ImportEntries": lambda: caller.import_entries(importing("scams", forged)),
        "MoveEntry": lambda: caller.move_entry("scams", 1, EntryState.SHADOW, forged),
        "RetractEntry": lambda: caller.retract_entry("scams", 1, forged),
    }[rpc]
    refusal = refusal_of(call)
    assert type(refusal) is PermissionDenied
    assert "cannot sign as 'admin'" in refusal.message
    assert caller.status().durable_seq == before


def test_a_reason_is_still_needed(as_: Calls) -> None:
    """The name is given by the server, the reason is not."""
    refusal = refusal_of(lambda: as_("analyst").add_entry("scams", [HASH], Edit("", " ")))
    assert type(refusal) is BadRequest


# ---------------------------------------------------------------- scores


def judged(caller: Client) -> list[MatchResult]:
    """One question, asked in each of the ways there are."""
    streamed = [outcome for _, outcome in caller.match_stream([NEAR])]
    results = [caller.match(NEAR), *caller.match_batch([NEAR]), *streamed]
    assert len(results) == 3
    return cast(list[MatchResult], results)


def test_ingest_sees_verdict_bands_and_keys(as_: Calls) -> None:
    """And no measure, threshold, count of rows or source: however it asks."""
    as_admin = as_("admin").match(NEAR, MatchOptions(("scams",))).hits[0]
    for result in judged(as_("ingest")):
        assert (result.verdict, result.complete, result.seq > 0) == (Band.BLOCK, True, True)
        hit = result.hits[0]
        assert (hit.bank, hit.entry_key, hit.band) == ("scams", as_admin.entry_key, Band.BLOCK)
        assert (hit.labels, hit.source, hit.source_id) == (("coin",), "", "")
        assert hit.evidence == (Evidence("pdq", Band.BLOCK, rows=0, withheld=True),)


@pytest.mark.parametrize("name", ["trusted", "analyst", "admin"])
def test_scores_where_they_are_granted(as_: Calls, name: str) -> None:
    """By name, or by a role that decides with them."""
    for result in judged(as_(name)):
        hit = next(h for h in result.hits if h.bank == "scams")
        (evidence,) = hit.evidence
        assert (evidence.hamming, evidence.threshold, evidence.rows) == (1, 31.0, 1)
        assert not evidence.withheld
        assert hit.source == "partner"


def test_an_equal_digest_is_withheld_too(as_: Calls) -> None:
    """All evidence looks alike, so that its kind tells nothing about how near it was."""
    hit = as_("ingest").match(TEXT).hits[0]
    assert {e.withheld for e in hit.evidence} == {True}
    assert {e.rows for e in hit.evidence} == {0}


def test_default_thresholds_are_shown_to_those_who_see_scores(as_: Calls) -> None:
    """What is just not enough to be caught is nothing for everybody."""
    assert not as_("ingest").status().HasField("default_policy")
    assert as_("analyst").status().default_policy.hamming
    assert as_("trusted").status().default_policy.hamming


def test_every_answer_that_can_hold_scores_is_known_here() -> None:
    """A new RPC with hits in its answer is redacted by the guard; this names those there are."""
    telling = {n.rpartition("/")[2] for n, m in RPCS.items() if can_hold_scores(m.output_type)}
    assert telling == {
        "Match",
        "BatchMatch",
        "StreamMatch",
        "FindEntries",
        "CompareEntries",
        "GetStatus",
    }


def test_nothing_but_named_parts_is_left_of_a_hit(world: Served) -> None:
    """On the wire, field by field: a new field is not sent before somebody decided that."""
    with grpc.insecure_channel(world.address) as channel:
        answer = match_pb2_grpc.MatchServiceStub(channel).Match(
            match_pb2.MatchRequest(content=content_to(NEAR)), metadata=world.metadata("ingest")
        )
    (hit,) = [h for h in answer.result.hits if "coin" in h.labels][:1]
    assert _set(hit) == {"bank", "entry_key", "band", "evidence", "labels"}
    assert _set(hit.evidence[0]) == {"signal", "band", "withheld"}
    assert {f.name for f in match_pb2.Hit.DESCRIPTOR.fields} == {
        "bank", "entry_key", "band", "evidence", "labels", "source", "source_id", "capped",
        "bank_etag", "disputed",
    }  # fmt: skip


def _set(message: Message) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


def test_a_fault_of_the_guard_lets_nothing_out(
    world: Served, as_: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that could not be redacted is not sent, and neither is what went wrong."""

    def broken(message: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("simsearch.serve.auth.authorization.without_scores", broken)
    for call in (
        lambda: as_("ingest").match(NEAR),
        lambda: list(as_("ingest").match_stream([NEAR])),
    ):
        refusal = refusal_of(call)
        assert refusal.reason == "INTERNAL"
        assert "secret" not in refusal.message


# ---------------------------------------------------------------- shares


def test_a_quota_is_counted_in_items(world: Served, as_: Calls, clock: Clock) -> None:
    """Refused by name with a time to come back; others go on; later there is room again."""
    world.callers.add("slow", "ingest", banks=["scams"], items_per_s=4.0)
    with Client(
        world.address, token=world.callers.tokens["slow"], deadline_s=0.3, autobatch=False
    ) as slow:
        slow.match_batch([HASH] * 3)
        slow.match(HASH)
        refused = world.authorization.counts.over_quota
        with pytest.raises(SimsearchError):
            slow.match(HASH)
        assert world.authorization.counts.over_quota > refused
        as_("ingest").match(HASH)
        clock.now += 0.25
        slow.match(HASH)


def test_the_hint_says_when_there_is_room(world: Served, clock: Clock) -> None:
    """RESOURCE_EXHAUSTED with the milliseconds, which clients obey."""
    world.callers.add("hinted", "ingest", banks=["scams"], items_per_s=2.0)
    metadata = world.metadata("hinted")
    with grpc.insecure_channel(world.address) as channel:
        stub = match_pb2_grpc.MatchServiceStub(channel)
        request = match_pb2.BatchMatchRequest(contents=[content_to(HASH)] * 4)
        stub.BatchMatch(request, metadata=metadata)
        with pytest.raises(grpc.RpcError) as failure:
            stub.BatchMatch(request, metadata=metadata)
    call = cast(grpc.Call, failure.value)
    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers: dict[str, Any] = dict(call.trailing_metadata() or ())
    assert trailers["grpc-retry-pushback-ms"] == "2000"
    status = rpc_status.from_call(call)
    assert status is not None
    assert "2 items a second" in status.message


def test_a_stream_is_slowed_down_and_not_refused(tmp_path: Path) -> None:
    """Each item is judged, and all of them together take the time that the quota says."""
    callers = Callers(tmp_path / "identities.toml")
    callers.add("slow", "ingest", items_per_s=100.0)
    callers.add("admin", "admin")
    with guarded(tmp_path, callers) as served:
        with client(served, "admin") as admin:
            admin.create_bank("scams", SIGNED)
        metadata = served.metadata("slow")
        with grpc.insecure_channel(served.address) as channel:
            stub = match_pb2_grpc.MatchServiceStub(channel)
            began = time.monotonic()
            answers = stub.StreamMatch(iter(_items(130)), metadata=metadata, timeout=20)
            ids = [answer.id for response in answers for answer in response.answers]
            spent = time.monotonic() - began
    assert sorted(ids) == list(range(130))
    assert spent > 0.25  # 100 at once, the others at 100 a second


def _items(count: int) -> Iterator[match_pb2.StreamMatchRequest]:
    for number in range(count):
        item = match_pb2.StreamMatchItem(id=number, content=content_to(HASH))
        yield match_pb2.StreamMatchRequest(items=[item])


def test_calls_of_one_identity_at_a_time(tmp_path: Path) -> None:
    """A stream is a call in flight for as long as it is open; another identity has its own."""
    callers = Callers(tmp_path / "identities.toml")
    callers.add("one", "ingest", in_flight_max=1)
    callers.add("two", "ingest", in_flight_max=1)
    with guarded(tmp_path, callers) as served, grpc.insecure_channel(served.address) as channel:
        stub = match_pb2_grpc.MatchServiceStub(channel)
        requests: queue.Queue[Any] = queue.Queue()
        stream = stub.StreamMatch(iter(requests.get, None), metadata=served.metadata("one"))
        requests.put(next(_items(1)))
        assert next(stream).answers[0].id == 0
        request = match_pb2.MatchRequest(content=content_to(HASH))

        def code(name: str) -> grpc.StatusCode:
            return code_of(lambda: stub.Match(request, metadata=served.metadata(name), timeout=5))

        assert [code("one"), code("two")] == [
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.OK,
        ]
        requests.put(None)
        assert list(stream) == []
        _until(lambda: code("one") is grpc.StatusCode.OK)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---------------------------------------------------------------- taken back


def test_a_token_that_is_taken_out_of_the_file_is_refused(world: Served, as_: Calls) -> None:
    """At the next call over the same connection; the others go on."""
    world.callers.add("leaver", "ingest", banks=["scams"])
    as_("leaver").match(HASH)
    world.callers.remove("leaver")
    assert type(refusal_of(lambda: as_("leaver").match(HASH))) is Unauthenticated
    as_("ingest").match(HASH)


def test_a_broken_file_takes_nothing_away(world: Served, as_: Calls) -> None:
    """Those who could call go on, and so do those who could not."""
    good = world.callers.path.read_text()
    world.callers.path.write_text(good.replace("roles", "rolls", 1))
    as_("ingest").match(HASH)
    assert type(refusal_of(lambda: as_("ingest").list_banks())) is PermissionDenied
    world.callers.path.write_text(good)
    as_("ingest").match(HASH)


@pytest.mark.parametrize("change", ["removed", "fewer banks", "quota"])
def test_an_open_stream_ends_when_its_caller_is_changed(world: Served, change: str) -> None:
    """With the next thing it sends: a stream can be open for weeks."""
    name = f"streamer-{change.replace(' ', '-')}"
    world.callers.add(name, "ingest", banks=["scams", "secret"])
    requests: queue.Queue[Any] = queue.Queue()
    with grpc.insecure_channel(world.address) as channel:
        stub = match_pb2_grpc.MatchServiceStub(channel)
        stream = stub.StreamMatch(
            iter(requests.get, None), metadata=world.metadata(name), timeout=20
        )
        first, second = _items(2)
        requests.put(first)
        assert next(stream).answers[0].id == 0
        if change == "removed":
            world.callers.remove(name)
        elif change == "fewer banks":
            world.callers.change(name, banks=["scams"])
        else:
            world.callers.change(name, items_per_s=5.0)
        requests.put(second)
        code = code_of(lambda: list(stream))
        requests.put(None)
    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_refusals_are_counted_by_kind(world: Served, as_: Calls) -> None:
    """Plain numbers, which a page of metrics can read."""
    before = world.authorization.counts
    as_("ingest").match(HASH)
    for _ in range(2):
        refusal_of(lambda: as_("ingest").list_banks())
    with Client(world.address, deadline_s=5) as stranger:
        assert type(refusal_of(stranger.list_banks)) is Unauthenticated
    after = world.authorization.counts
    assert after.admitted - before.admitted == 1
    assert after.denied - before.denied == 2
    assert after.unauthenticated - before.unauthenticated == 1
