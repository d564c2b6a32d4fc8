"""Entries looked for over a real port: by what is known of them, and by what they are near to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from PIL import Image

from simsearch.bank import entry_search
from simsearch.client import Client
from simsearch.encode.registry import LoadedEncoder
from simsearch.errors import (
    BadHash,
    BadRequest,
    BankNotFound,
    EmptyContent,
    EntryInOtherBank,
    EntryNotFound,
    LimitExceeded,
    PermissionDenied,
)
from simsearch.types import (
    Edit,
    EntryState,
    HashContent,
    ImageContent,
    Modality,
    Signal,
    TextContent,
)
from simsearch.v1 import bank_pb2, content_pb2
from tests.encode.pictures import landscape, saved
from tests.fakes import FakeTextEncoder, near, unit_of
from tests.serve.callers import Callers, Served, guarded
from tests.serve.house import served

ANN, EVE = Edit("ann", "case 7"), Edit("eve", "case 8")
PDQ = bytes(32)


def sha(name: str) -> HashContent:
    return HashContent(Signal.SHA256, hashlib.sha256(name.encode()).digest())


def pdq(bits: int) -> HashContent:
    """At this distance from PDQ."""
    row = np.zeros(256, np.uint8)
    row[:bits] = 1
    return HashContent(Signal.PDQ, np.packbits(row).tobytes())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    words = FakeTextEncoder(
        placed={"one two three": unit_of("x"), "four five six": near(unit_of("x"), 0.62)}
    )
    prose = {"prose": LoadedEncoder("prose", Modality.TEXT, text=words)}
    with served(tmp_path_factory.mktemp("listing"), prose) as address:
        with Client(address) as client:
            for bank in ("spam", "ham"):
                client.create_bank(bank, ANN)
            client.add_entry("spam", [sha("a")], ANN, labels=["x", "y"], source="s", source_id="1")
            client.add_entry("spam", [sha("b")], EVE, labels=["x"], note="A Note", severity="high")
            client.add_entry("spam", [sha("c")], ANN, state=EntryState.DRAFT, source="s")
            client.add_entry("spam", [sha("a")], ANN, source="t", source_id="1")
            client.add_entry("ham", [sha("a")], ANN, source="s", source_id="1")
            client.move_entry("spam", 2, EntryState.QUARANTINED, ANN)
            client.retract_entry("spam", 4, EVE)
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, deadline_s=10) as client:
        yield client


def keys(client: Client, **asked: object) -> list[int]:
    """Of every page."""
    request = bank_pb2.ListEntriesRequest(**({"bank": "spam"} | asked))  # type: ignore[arg-type]
    found: list[int] = []
    while True:
        page = client.list_entries(request)
        assert page.count == len(page.entries)
        found += [entry.key for entry in page.entries]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def digest(content: HashContent, signal: int = content_pb2.HASH_SIGNAL_SHA256) -> object:
    return content_pb2.Hash(signal=signal, value=content.value)  # type: ignore[arg-type]


def test_what_is_asked_for_must_all_hold(client: Client) -> None:
    """Of one bank, whatever is asked, and nothing asked is everything."""
    draft, resting = bank_pb2.ENTRY_STATE_DRAFT, bank_pb2.ENTRY_STATE_QUARANTINED
    for asked, found in (
        ({}, [1, 2, 3, 4]),
        ({"states": [draft, resting]}, [2, 3]),
        ({"state": draft, "states": [resting]}, [2, 3]),
        ({"states": [bank_pb2.ENTRY_STATE_RETRACTED]}, [4]),
        ({"labels": ["x"]}, [1, 2]),
        ({"labels": ["y", "x"]}, [1]),
        ({"source": "s"}, [1, 3]),
        ({"source_id": "1"}, [1, 4]),
        ({"source": "s", "source_id": "1"}, [1]),
        ({"actor": "eve"}, [2]),
        ({"severity": "high"}, [2]),
        ({"note_contains": "a nOTE"}, [2]),
        ({"digest": digest(sha("a"))}, [1, 4]),
        ({"digest": digest(sha("a")), "source": "t"}, [4]),
        ({"digest": digest(sha("z"))}, []),
        ({"actor": "ann", "labels": ["x"], "source": "s"}, [1]),
        ({"actor": "eve", "labels": ["y"]}, []),
        ({"bank": "ham", "digest": digest(sha("a"))}, [5]),
    ):
        assert keys(client, **asked) == found, asked
        assert keys(client, page_size=1, **asked) == found, asked


def test_times_are_of_the_ban_and_of_the_last_change(client: Client) -> None:
    """`until` is not included; a move and a retraction are changes."""
    added = {
        e.key: e.added.time
        for e in client.list_entries(bank_pb2.ListEntriesRequest(bank="spam")).entries
    }
    moved = client.get_entry("spam", 2).moves[0].change.time
    assert keys(client, since=added[2]) == [2, 3, 4]
    assert keys(client, until=added[3]) == [1, 2]
    assert keys(client, changed_since=moved) == [2, 4]
    assert keys(client, changed_since=Timestamp(seconds=2**33)) == []


def test_an_alias_is_an_id_of_its_source(client: Client) -> None:
    """With the source, by its mark; without it, by looking."""
    draft = bank_pb2.EntryDraft(source="partner", source_id="p1", aliases=["p2"])
    draft.contents.add().hash.CopyFrom(digest(sha("alias")))  # type: ignore[arg-type]
    item = bank_pb2.ImportItem(entry=draft)
    edit = bank_pb2.Edit(actor="ann", reason="a list")
    client.create_bank("listed", ANN)
    [key] = client.import_entries(
        bank_pb2.ImportEntriesRequest(bank="listed", import_id="i", items=[item], edit=edit)
    ).keys
    for asked in ({"source_id": "p2"}, {"source_id": "p2", "source": "partner"}):
        assert keys(client, bank="listed", **asked) == [key]
    assert keys(client, bank="listed", source_id="p2", source="other") == []


def test_a_call_looks_at_so_many_entries_and_no_more(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may be empty and go on; together they hold every entry once."""
    monkeypatch.setattr(entry_search, "LOOKED_AT_MAX", 2)
    monkeypatch.setattr(entry_search, "ENTRIES_AT_ONCE", 1)
    asked = bank_pb2.ListEntriesRequest(bank="spam", source="t")
    page = client.list_entries(asked)
    assert (list(page.entries), page.next_page_token) == ([], "2")
    assert keys(client, source="t") == [4]
    assert keys(client) == [1, 2, 3, 4]


def test_entries_are_counted_and_not_sent(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = bank_pb2.ListEntriesRequest(bank="spam", count_only=True, page_size=1)
    page = client.list_entries(counting)
    assert (list(page.entries), page.count, page.next_page_token) == ([], 4, "")
    monkeypatch.setattr(entry_search, "LOOKED_AT_MAX", 3)
    monkeypatch.setattr(entry_search, "ENTRIES_AT_ONCE", 3)
    page = client.list_entries(counting)
    assert (page.count, page.next_page_token) == (3, "3")
    counting.page_token = page.next_page_token
    assert client.list_entries(counting).count == 1


def test_pages_neither_skip_nor_repeat_while_entries_come_and_go(client: Client) -> None:
    """Every entry that was there all the time is there once."""
    client.create_bank("busy", ANN)
    there = [client.add_entry("busy", [sha(f"busy {n}")], ANN).entry.key for n in range(6)]
    request = bank_pb2.ListEntriesRequest(bank="busy", page_size=1)
    seen: list[int] = []
    while True:
        page = client.list_entries(request)
        seen += [entry.key for entry in page.entries]
        if not page.next_page_token:
            break
        if len(seen) < 4:
            client.retract_entry("busy", there[len(seen) - 1], ANN)
            client.move_entry("busy", there[len(seen)], EntryState.DISPUTED, ANN)
            there.append(client.add_entry("busy", [sha(f"new {len(seen)}")], ANN).entry.key)
        request.page_token = page.next_page_token
    assert seen == there


def test_what_was_banned_as_one_thing_has_one_id(client: Client) -> None:
    """In whatever bank; said where it is asked for."""
    plain = client.list_entries(bank_pb2.ListEntriesRequest(bank="spam")).entries
    assert {entry.content_id for entry in plain} == {""}
    asked = [bank_pb2.ListEntriesRequest(bank=b, with_content_ids=True) for b in ("spam", "ham")]
    ids = {e.key: e.content_id for each in asked for e in client.list_entries(each).entries}
    assert ids[1] == ids[4] == ids[5]
    assert len({ids[1], ids[2], ids[3]}) == 3
    assert {len(each) for each in ids.values()} == {32}


def test_bad_filters_are_refused_by_name(client: Client) -> None:
    for asked, refusal in (
        ({"digest": digest(sha("a"), content_pb2.HASH_SIGNAL_PDQ)}, BadHash),
        ({"digest": content_pb2.Hash(signal=1, value=b"short")}, BadHash),  # type: ignore[arg-type]
        ({"digest": content_pb2.Hash()}, BadRequest),
        ({"states": [99]}, BadRequest),
        ({"page_token": "9" * 20}, BadRequest),
        ({"page_token": "x"}, BadRequest),
        ({"page_size": -1}, LimitExceeded),
        ({"bank": "absent"}, BankNotFound),
    ):
        with pytest.raises(refusal):
            keys(client, **asked)


# ---------------------------------------------------------------- near


@pytest.fixture(scope="module")
def hashes(address: str) -> dict[str, int]:
    """Entries in two banks of their own, by how they are near to PDQ."""
    with Client(address) as client:
        for bank in ("near", "far"):
            client.create_bank(bank, ANN)
        found = {
            name: client.add_entry(bank, [pdq(bits)], ANN, labels=[name], state=state).entry.key
            for name, bank, bits, state in (
                ("sixty", "near", 60, EntryState.ACTIVE),
                ("thirty", "far", 30, EntryState.DRAFT),
                ("eighty", "near", 80, EntryState.SHADOW),
                ("more", "near", 81, EntryState.ACTIVE),
                ("ten", "near", 10, EntryState.ACTIVE),
                ("gone", "near", 5, EntryState.ACTIVE),
            )
        }
        client.move_entry("near", found["ten"], EntryState.QUARANTINED, ANN)
        client.move_entry("near", found["sixty"], EntryState.DISPUTED, ANN)
        client.retract_entry("near", found["gone"], ANN)
    return found


def test_the_nearest_come_first_in_whatever_state(client: Client, hashes: dict[str, int]) -> None:
    """Beyond every threshold of their banks, with measure and state; what is gone is not there."""
    found = client.find_entries(pdq(0), ["near", "far"])
    assert [e.entry.key for e in found.entries] == [
        hashes[name] for name in ("ten", "thirty", "sixty", "eighty")
    ]
    assert [e.evidence[0].hamming for e in found.entries] == [10, 30, 60, 80]
    assert [EntryState(e.entry.state).name for e in found.entries] == [
        "QUARANTINED", "DRAFT", "DISPUTED", "SHADOW",
    ]  # fmt: skip
    assert [e.entry.labels[0] for e in found.entries[:2]] == ["ten", "thirty"]
    assert [e.entry.bank for e in found.entries[:2]] == ["near", "far"]
    assert not found.truncated
    assert {e.evidence[0].band for e in found.entries} == {0}


def test_what_is_found_can_be_bounded(client: Client, hashes: dict[str, int]) -> None:
    def names(**asked: object) -> list[str]:
        found = client.find_entries(pdq(0), ["near"], **asked)  # type: ignore[arg-type]
        assert found.truncated is ("entries_max" in asked)
        return [e.entry.labels[0] for e in found.entries]

    assert names(hamming_max=81) == ["ten", "sixty", "eighty", "more"]
    assert names(hamming_max=9) == []
    assert names(states=[EntryState.SHADOW, EntryState.DISPUTED]) == ["sixty", "eighty"]
    assert names(entries_max=2) == ["ten", "sixty"]


def test_texts_are_found_by_their_vectors_and_as_they_are(client: Client) -> None:
    """An equal digest first; a cosine is exact, below every default threshold."""
    client.create_bank("texts", ANN)
    same = client.add_entry("texts", [TextContent("one two three")], ANN).entry.key
    other = client.add_entry("texts", [TextContent("four five six")], ANN).entry.key
    found = client.find_entries(TextContent("One  two three"), ["texts"])
    assert [e.entry.key for e in found.entries] == [same, other]
    first, second = found.entries
    assert first.evidence[0].identical
    [cosine] = [e.cosine for e in second.evidence if e.WhichOneof("measure") == "cosine"]
    assert cosine == pytest.approx(0.62, abs=1e-3)
    assert found.signals
    high = client.find_entries(TextContent("one two three"), ["texts"], cosine_min=0.7)
    assert [e.entry.key for e in high.entries] == [same]


def test_a_picture_is_found_however_it_is_turned(client: Client) -> None:
    """As a match finds it: by all eight ways to turn its PDQ; and not by its digest."""
    client.create_bank("pictures", ANN)
    picture = landscape(5, (160, 120))
    key = client.add_entry("pictures", [ImageContent(saved(picture, "PNG"))], ANN).entry.key
    turned = saved(picture.transpose(Image.Transpose.ROTATE_90), "PNG")
    [found] = client.find_entries(ImageContent(turned), ["pictures"]).entries
    [evidence] = found.evidence
    assert (found.entry.key, evidence.signal) == (key, "pdq")
    assert evidence.hamming <= 10


def test_the_archived_are_found_too(client: Client) -> None:
    client.create_bank("old", ANN)
    key = client.add_entry("old", [pdq(200)], ANN).entry.key
    update = bank_pb2.UpdateBankRequest(
        name="old", archived=True, edit=bank_pb2.Edit(actor="ann", reason="done")
    )
    client.update_bank(update)
    assert [e.entry.key for e in client.find_entries(pdq(199), ["old"]).entries] == [key]


def test_bad_questions_are_refused_by_name(client: Client) -> None:
    refused: list[tuple[type[Exception], Callable[[], object]]] = [
        (BankNotFound, lambda: client.find_entries(pdq(0), ["absent"])),
        (BadRequest, lambda: client.find_entries(pdq(0), states=[EntryState.RETRACTED])),
        (BadRequest, lambda: client.find_entries(pdq(0), cosine_min=0.1)),
        (BadRequest, lambda: client.find_entries(pdq(0), cosine_min=float("nan"))),
        (BadRequest, lambda: client.find_entries(pdq(0), hamming_max=-1)),
        (BadRequest, lambda: client.find_entries(pdq(0), hamming_max=121)),
        (LimitExceeded, lambda: client.find_entries(pdq(0), entries_max=10**6)),
        (BadHash, lambda: client.find_entries(HashContent(Signal.PDQ, b"x"))),
        (EmptyContent, lambda: client.find_entries(TextContent(""))),
        (BadRequest, lambda: client.get_change(0)),
        (BadRequest, lambda: client.get_change(10**6)),
        (BadRequest, lambda: client.get_change(2**64 - 1)),
        (EntryNotFound, lambda: client.compare_entries("spam", 1, 10**6)),
        (EntryInOtherBank, lambda: client.compare_entries("spam", 1, 5)),
        (BankNotFound, lambda: client.compare_entries("spam", 1, 1, other_bank="absent")),
    ]
    for refusal, call in refused:
        with pytest.raises(refusal):
            call()


def test_two_entries_are_compared_signal_by_signal(client: Client, hashes: dict[str, int]) -> None:
    """The distance between their own hashes, whatever banks they are in; equal digests are told."""
    found = client.compare_entries("near", hashes["ten"], hashes["thirty"], other_bank="far")
    assert [(e.signal, e.hamming) for e in found.evidence] == [("pdq", 20)]
    assert (found.entry.bank, found.other.bank) == ("near", "far")
    same = client.compare_entries("spam", 1, 4).evidence
    assert [(e.signal, e.identical) for e in same] == [("sha256", True)]
    assert not client.compare_entries("spam", 1, 2).evidence


def test_a_change_says_what_it_replaced(client: Client) -> None:
    """An update the bank as it was; of an entry that entry; and the hash of what was stored."""
    client.create_bank("told", ANN, description="before")
    update = bank_pb2.UpdateBankRequest(
        name="told", description="after", edit=bank_pb2.Edit(actor="ann", reason="why")
    )
    client.update_bank(update)
    key = client.add_entry("told", [sha("told")], ANN).entry.key
    asked = bank_pb2.ListChangesRequest(bank="told")
    created, updated, added = (c.seq for c in client.list_changes(asked).changes)
    found = client.get_change(updated)
    assert (found.bank_before.description, found.bank_before.etag) == ("before", "v1")
    assert (found.change.reason, len(found.content)) == ("why", 64)
    assert not client.get_change(created).HasField("bank_before")
    assert client.get_change(added).entry.key == key
    asked.kinds.append(bank_pb2.CHANGE_KIND_BANK_UPDATED)
    assert [c.seq for c in client.list_changes(asked).changes] == [updated]
    asked.kinds.append(99)  # type: ignore[arg-type]
    with pytest.raises(BadRequest):
        client.list_changes(asked)


# ---------------------------------------------------------------- who may


@pytest.fixture(scope="module")
def guarded_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("callers")
    callers = Callers(directory / "identities.toml")
    callers.add("admin", "admin")
    callers.add("analyst", "analyst", banks=["open"], edit_banks=["open"])
    callers.add("auditor", "auditor", banks=["open"], edit_banks=[])
    with guarded(directory, callers) as world:
        with Client(world.address, token=callers.tokens["admin"]) as admin:
            for bank in ("open", "secret"):
                admin.create_bank(bank, Edit("", "a test"))
                admin.add_entry(bank, [pdq(3)], Edit("", "a test"))
        yield world


def test_banks_of_others_are_not_found_in(guarded_world: Served) -> None:
    """Named or not; nor are entries and changes of them told from those that are not there."""
    with Client(guarded_world.address, token=guarded_world.callers.tokens["analyst"]) as analyst:
        assert [e.entry.bank for e in analyst.find_entries(pdq(3)).entries] == ["open"]
        words = []
        for bank in ("secret", "absent"):
            with pytest.raises(BankNotFound) as refusal:
                analyst.find_entries(pdq(3), [bank])
            words.append(refusal.value.message.replace(bank, ""))
            with pytest.raises(BankNotFound) as refusal:
                analyst.compare_entries("open", 1, 1, other_bank=bank)
            words.append(refusal.value.message.replace(bank, ""))
        assert len(set(words)) == 1
        for key in (2, 99):
            with pytest.raises(EntryNotFound):
                analyst.compare_entries("open", 1, key)
    with Client(guarded_world.address, token=guarded_world.callers.tokens["auditor"]) as auditor:
        assert auditor.get_change(2).entry.key == 1
        for seq in (3, 4, 99):
            with pytest.raises(BadRequest, match="no change"):
                auditor.get_change(seq)


def test_who_may_not_see_scores_sees_none(guarded_world: Served) -> None:
    """Neither a measure, nor by asking with bounds of one's own."""
    with Client(guarded_world.address, token=guarded_world.callers.tokens["auditor"]) as auditor:
        [found] = auditor.find_entries(pdq(3)).entries
        assert [e.WhichOneof("measure") for e in found.evidence] == ["withheld"]
        [compared] = auditor.compare_entries("open", 1, 1).evidence
        assert compared.WhichOneof("measure") == "withheld"
        with pytest.raises(PermissionDenied):
            auditor.find_entries(pdq(3), hamming_max=9)
        with pytest.raises(PermissionDenied):
            auditor.find_entries(pdq(3), cosine_min=0.5)
