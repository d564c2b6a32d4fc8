"""What differs, from a shell: between banks, between times, between entries; and one change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simsearch.cli.banks.content_diff import Gathered, compare
from simsearch.client import Client
from simsearch.types import Edit, EntryState, HashContent, Signal
from simsearch.v1 import bank_pb2
from tests.cli.shell import Run
from tests.serve.house import served

ANN = Edit("ann", "case 7")
EDIT = bank_pb2.Edit(actor="ann", reason="two false hits")


def sha(name: str) -> HashContent:
    return HashContent(Signal.SHA256, hashlib.sha256(name.encode()).digest())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with served(tmp_path / "bank", {}) as address:
        yield address


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as client:
        for bank in ("one", "other"):
            client.create_bank(bank, ANN)
        yield client


def told(run: Run, server: str, *words: str) -> tuple[int, Any]:
    ran = run("diff", *words, "--server", server, "--json")
    return ran.code, json.loads(ran.out)


def keys(section: dict[str, Any]) -> list[int]:
    assert section["count"] >= len(section["entries"])
    return [entry["key"] for entry in section["entries"]]


def test_banks_of_the_same_bans_are_equal(run: Run, server: str, client: Client) -> None:
    """Whatever their keys, orders and sources; what was retracted is not there."""
    for bank, names in (("one", "abc"), ("other", "cbad")):
        for name in names:
            client.add_entry(bank, [sha(name)], ANN, labels=["x", "y"], source=bank)
    client.retract_entry("other", 7, ANN)
    code, found = told(run, server, "one", "other")
    assert (code, found["equal"], found["same"]) == (0, True, 3)
    assert told(run, server, "one", "one")[0] == 0
    assert "3 alike in both: no difference" in run("diff", "one", "other", "--server", server).out


def test_what_differs_between_banks_is_told(run: Run, server: str, client: Client) -> None:
    """What one alone bans, and what both ban in another state or under other labels."""
    for bank, names in (("one", "abcd"), ("other", "bcde")):
        for name in names:
            client.add_entry(bank, [sha(name)], ANN, labels=["z"] if name + bank == "done" else [])
    client.move_entry("other", 5, EntryState.QUARANTINED, ANN)
    code, found = told(run, server, "one", "other")
    assert (code, found["equal"], found["same"]) == (9, False, 1)
    assert keys(found["only_one"]) == [1]
    assert keys(found["only_other"]) == [8]
    assert (keys(found["differ_one"]), keys(found["differ_other"])) == ([2, 4], [5, 7])
    assert found["differ_other"]["entries"][0]["state"] == "QUARANTINED"
    table = run("diff", "one", "other", "--server", server, "--limit", "1")
    assert table.code == 9
    for words in ("only in one", "only in other", "as this in other", "… and 1 more", "1 alike"):
        assert words in table.out
    assert keys(told(run, server, "one", "other", "--limit", "1")[1]["differ_one"]) == [2]


def test_banks_are_compared_by_sets_of_numbers() -> None:
    """Doubles count once, ids that share a half are two, and empty banks can be compared."""

    def gathered(*entries: tuple[str, int, int]) -> Gathered:
        found = Gathered()
        found.add(
            bank_pb2.Entry(content_id=each, key=key, state=state)  # type: ignore[arg-type]
            for each, key, state in entries
        )
        return found

    a, b, c = "0" * 32, "0" * 31 + "1", "f" * 16 + "0" * 16
    one = gathered((a, 1, 1), (a, 2, 3), (b, 3, 1))
    other = gathered((a, 9, 3), (a, 8, 1), (a, 7, 1), (c, 6, 1))
    assert compare(one, other) == ([3], [6], [], [], 1)
    assert compare(other, one) == ([6], [3], [], [], 1)
    assert compare(gathered((a, 1, 1), (a, 2, 3)), gathered((a, 9, 1))) == ([], [], [1, 2], [9], 0)
    assert compare(gathered(), one) == ([], [1, 2, 3], [], [], 0)
    assert compare(gathered(), gathered()).is_equal


def test_what_changed_since_is_told_field_by_field(run: Run, server: str, client: Client) -> None:
    """Each update from what to what, also where another came after it; moves, too."""
    policy = client.get_bank("one").policy
    later = bank_pb2.UpdateBankRequest(name="one", policy=policy, owner="eve", edit=EDIT)
    later.policy.hamming[0].block = 24
    client.update_bank(later)
    client.add_entry("one", [sha("a")], ANN)
    client.move_entry("one", 1, EntryState.SHADOW, ANN)
    client.update_bank(bank_pb2.UpdateBankRequest(name="one", owner="ann", edit=EDIT))
    client.update_bank(bank_pb2.UpdateBankRequest(name="other", owner="eve", edit=EDIT))
    code, found = told(run, server, "one", "--since", "2000-01-01")
    assert (code, found["equal"]) == (9, False)
    assert [(c["kind"], [tuple(f.values()) for f in c["fields"]]) for c in found["changes"]] == [
        ("BANK_CREATED", []),
        ("BANK_UPDATED", [("owner", "", "eve"), ("pdq.block", 31, 24)]),
        ("ENTRY_ADDED", []),
        ("ENTRY_MOVED", [("state", "active", "shadow")]),
        ("BANK_UPDATED", [("owner", "eve", "ann")]),
    ]
    table = run("diff", "one", "--since", "2000-01-01", "--limit", "2", "--server", server)
    assert "pdq.block: 31 → 24" in table.out
    assert "… and more" in table.out
    assert told(run, server, "one", "--since", "2100-01-01") == (
        0, {"bank": "one", "equal": True, "truncated": False, "changes": []},
    )  # fmt: skip
    assert told(run, server, "one", "--since", "2000-01-01", "--until", "2000-01-02")[0] == 0


def test_one_change_is_shown_with_what_it_changed(
    run: Run, server: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy of before is found in the record, however far the next update is from it."""
    monkeypatch.setattr("simsearch.bank.log_search.LOOKED_AT_MAX", 1)
    monkeypatch.setattr("simsearch.bank.log_search.CHANGES_AT_ONCE", 1)
    client.update_bank(bank_pb2.UpdateBankRequest(name="one", description="new", edit=EDIT))
    for name in "abc":
        client.add_entry("one", [sha(name)], ANN)
    client.update_bank(bank_pb2.UpdateBankRequest(name="one", description="newer", edit=EDIT))
    ran = run("audit", "show", "--seq", "3", "--server", server, "--json")
    shown = json.loads(ran.out)
    assert shown["fields"] == [{"field": "description", "old": "", "new": "new"}]
    assert shown["change"]["reason"] == "two false hits"
    assert shown["bank_before"]["etag"] == "v1"
    table = run("audit", "show", "--seq", "7", "--server", server)
    assert "new → newer" in table.out
    assert "bank updated" in table.out
    assert run("audit", "show", "--seq", "99", "--server", server).code == 3
    added = json.loads(run("audit", "show", "--seq", "4", "--server", server, "--json").out)
    assert (added["entry"]["key"], added["fields"]) == (1, [])


def test_two_entries_are_compared(run: Run, server: str, client: Client) -> None:
    """The fields that differ, and how near they are by what both have."""
    row = bytearray(32)
    client.add_entry("one", [HashContent(Signal.PDQ, bytes(row))], ANN, labels=["x"])
    row[0] = 0x0F
    client.add_entry("other", [HashContent(Signal.PDQ, bytes(row))], ANN, labels=["y"])
    client.add_entry("one", [HashContent(Signal.PDQ, bytes(32))], ANN, labels=["x"], note="n")
    client.add_entry("one", [HashContent(Signal.PDQ, bytes(32))], ANN, labels=["x"])
    code, found = told(run, server, "one", "other", "--entry", "1", "--and", "2")
    assert (code, found["equal"]) == (9, False)
    assert found["fields"] == [{"field": "labels", "old": "x", "new": "y"}]
    assert [e["hamming"] for e in found["evidence"]] == [4]
    assert told(run, server, "one", "--entry", "1", "--and", "3")[0] == 9
    assert told(run, server, "one", "--entry", "1", "--and", "4")[0] == 0
    table = run("diff", "one", "other", "--entry", "1", "--and", "2", "--server", server)
    assert "x → y" in table.out
    assert "pdq 4 bits" in table.out
    client.add_entry("one", [sha("a")], ANN)
    table = run("diff", "one", "--entry", "1", "--and", "5", "--server", server)
    assert "no signal in common" in table.out


def test_half_a_question_is_refused(run: Run, server: str, client: Client) -> None:
    for words in (
        ("one",),
        ("one", "--until", "2027-01-01"),
        ("one", "--entry", "1"),
        ("one", "other", "--and", "1"),
        ("one", "other", "--since", "2027-01-01"),
        ("one", "--since", "2027-01-01", "--entry", "1", "--and", "2"),
        ("one", "--since", "soon"),
    ):
        assert run("diff", *words, "--server", server).code == 3, words
    assert run("diff", "one", "absent", "--server", server).code == 4
