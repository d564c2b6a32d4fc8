"""A second person from a shell: what waits says so, and is approved, rejected or withdrawn."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simsearch.client import Client
from simsearch.config import ApprovalConfig, BanChecksConfig
from simsearch.types import Edit
from tests.cli.shell import Ran, Run
from tests.serve.house import served

ANN = Edit("ann", "case 7")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.fixture
def server(path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[str]:
    """Two persons are needed; ann is who types."""
    on = ApprovalConfig(four_eyes="on")
    with served(path, {}, approval=on, holding=BanChecksConfig()) as address:
        with Client(address) as client:
            client.create_bank("scams", ANN)
        monkeypatch.setenv("SIMSEARCH_ACTOR", "ann")
        monkeypatch.setenv("SIMSEARCH_SERVER", address)
        yield address


def sha(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def done(run: Run, *words: str) -> str:
    ran = run(*words)
    assert ran.code == 0, ran.err
    return " ".join(ran.out.split())


def shown(run: Run, *words: str) -> Any:
    ran = run(*words, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def banned(run: Run, name: str) -> int:
    """An entry that ann banned and bob approved."""
    added = shown(run, "entry", "add", "scams", "--hash", sha(name), "--reason", "case 7")
    approved(run, added["proposal_id"])
    return int(added["entry"]["key"])


def approved(run: Run, number: int) -> Ran:
    return run("proposal", "approve", str(number), "--reason", "seen", "--actor", "bob")


@pytest.mark.usefixtures("server")
def test_what_waits_says_so_and_is_done_once_approved(run: Run) -> None:
    """In words and in JSON, with exit code 0: it was taken."""
    words = done(run, "entry", "add", "scams", "--hash", sha("a"), "--reason", "case 7")
    assert "stored as draft 1 of scams; proposal 1 waits for a second person" in words
    words = done(run, "proposal", "list")
    assert "make 1 entry active: 1" in words
    assert "ann" in words
    ran = run("proposal", "approve", "1", "--reason", "seen")
    assert (ran.code != 0, "ann's own" in ran.err) == (True, True)
    assert "proposal 1 is approved" in " ".join(approved(run, 1).out.split())
    assert shown(run, "proposal", "list") == []
    assert [p["id"] for p in shown(run, "proposal", "list", "--state", "all")] == [1]
    assert "approved by bob" in done(run, "entry", "get", "scams", "1")
    words = done(run, "audit", "show")
    for part in ("ann & bob", "proposal made (proposal 1)", "proposal decided (proposal 1)"):
        assert part in words


@pytest.mark.usefixtures("server")
def test_moves_retractions_and_updates_wait_too(run: Run) -> None:
    key = str(banned(run, "a"))
    quarantined = done(run, "entry", "set-state", "scams", key, "quarantined", "--reason", "x")
    assert "is quarantined" in quarantined
    for number, words in (
        (2, ("entry", "set-state", "scams", key, "active")),
        (3, ("entry", "retract", "scams", key)),
        (4, ("bank", "update", "scams", "--no-four-eyes")),
    ):
        said = f"as it was; proposal {number} waits for a second person"
        assert said in done(run, *words, "--reason", "case 8")
        assert shown(run, *words, "--reason", "case 8")["proposal_id"] == number
    assert "update the bank's four_eyes" in done(run, "proposal", "list")
    card = done(run, "proposal", "show", "4")
    for part in ("new four_eyes OFF", "for the bank at v1", "ann: case 8"):
        assert part in card
    assert shown(run, "proposal", "show", "3")["kind"] == "RETRACTION"
    rejected = ("proposal", "reject", "3", "--reason", "no", "--actor", "bob")
    assert "proposal 3 is rejected" in done(run, *rejected)
    assert "is withdrawn" in done(run, "proposal", "withdraw", "2", "--reason", "mistaken")
    assert run("proposal", "show", "99").code == 4
    assert run("proposal", "list", "--state", "nonsense").code == 2
    assert run(*rejected[:1], "approve", *rejected[2:]).code == 5


@pytest.mark.usefixtures("server")
def test_a_list_waits_as_one_and_is_approved_to_its_end(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many calls that takes."""
    monkeypatch.setattr("simsearch.bank.edits.decide.ROWS_AT_ONCE", 2)
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{sha(str(n)).partition(':')[2]}\n" for n in range(5)))
    words = ("import", "scams", str(path), "--signal", "sha256", "--reason", "monday")
    assert "proposal 1 waits for a second person" in done(run, *words)
    assert shown(run, *words)["proposal_ids"] == [1]
    assert "take over a list of 5 entries" in done(run, "proposal", "list")
    assert "done for 5 of 5 entries" in " ".join(approved(run, 1).out.split())
    entries = shown(run, "entry", "list", "scams", "--state", "active")["entries"]
    assert len(entries) == 5


@pytest.mark.usefixtures("server")
def test_why_a_ban_is_held_is_said(run: Run) -> None:
    words = ("entry", "add", "scams", "--text", "hi", "--reason", "case 7")
    assert "held: a text of fewer than 4 words: 1" in done(run, *words)
    added = shown(run, *words)
    assert len(added["held"]) == 1
    assert "a text of fewer than 4 words: 1" in done(
        run, "proposal", "show", str(added["proposal_id"])
    )


@pytest.mark.usefixtures("server")
def test_the_record_of_it_verifies(run: Run, path: Path, tmp_path: Path) -> None:
    banned(run, "a")
    copy = shutil.copytree(path, tmp_path / "copy")
    assert "is whole" in done(run, "audit", "verify", "--data-dir", str(copy))
