"""The record of edits from a shell: shown, noted elsewhere, verified, and edits taken back."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simsearch.bank.signed_heads import read_heads
from simsearch.bank.store import BankStore
from simsearch.client import Client
from simsearch.types import Edit, HashContent, Signal
from tests.bank.test_audit import RawTables
from tests.bank.test_signed_heads import write_key, write_public_key
from tests.cli.shell import Run
from tests.serve.house import served

ANN, EVE = Edit("ann", "case 7"), Edit("eve", "for fun")


def item(name: str) -> HashContent:
    return HashContent(Signal.SHA256, hashlib.sha256(name.encode()).digest())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.fixture
def server(path: Path) -> Iterator[str]:
    """A bank that ann made, in which she banned `a`, eve banned `b` and took `a` back."""
    with served(path, {}) as address:
        with Client(address) as client:
            client.create_bank("scams", ANN)
            key = client.add_entry("scams", [item("a")], ANN).entry.key
            client.add_entry("scams", [item("b")], EVE)
            client.retract_entry("scams", key, EVE)
        yield address


def shown(run: Run, *words: str) -> Any:
    ran = run(*words, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_show_is_who_did_what_the_newest_last(run: Run, server: str) -> None:
    """As a table and as JSON; the newest where there are more than asked for."""
    table = run("audit", "show", "--server", server)
    assert table.code == 0
    for words in ("bank created", "entry retracted", "eve", "for fun", "scams"):
        assert words in table.out
    found = shown(run, "audit", "show", "--server", server, "--limit", "2")
    assert [change["seq"] for change in found] == [3, 4]
    assert (found[1]["kind"], found[1]["actor"]) == ("ENTRY_RETRACTED", "eve")
    assert len(found[1]["link"]) == 64


def test_show_goes_through_every_page(
    run: Run, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simsearch.cli.oversight.audit_log.PAGE_SIZE", 1)
    found = shown(run, "audit", "show", "--server", server)
    assert [change["seq"] for change in found] == [1, 2, 3, 4]


def test_show_chooses(run: Run, server: str) -> None:
    base = ("audit", "show", "--server", server)
    for words, seqs in (
        (("--actor", "eve"), [3, 4]),
        (("--bank", "scams", "--entry", "1"), [2, 4]),
        (("--since", "2000-01-01", "--actor", "ann"), [1, 2]),
        (("--until", "2000-01-01"), []),
    ):
        assert [change["seq"] for change in shown(run, *base, *words)] == seqs
    assert run(*base, "--since", "yesterday").code == 3
    assert run(*base, "--bank", "absent").code == 4


def test_heads_are_noted_one_behind_the_other(run: Run, server: str, tmp_path: Path) -> None:
    """What is printed is what is written."""
    heads, key = tmp_path / "heads.jsonl", write_key(tmp_path / "head.key")
    asked = ("audit", "head", "--server", server, "--append", str(heads), "--sign", str(key))
    first = run(*asked)
    with Client(server) as client:
        client.add_entry("scams", [item("c")], ANN)
    run(*asked)
    assert heads.read_text().splitlines()[0] == first.out.strip()
    assert [each.head.seq for each in read_heads(heads)] == [4, 5]


def test_a_head_without_a_key_is_not_signed(run: Run, server: str, tmp_path: Path) -> None:
    ran = run("audit", "head", "--server", server)
    assert json.loads(ran.out).keys() == {"store_id", "seq", "link", "time"}
    assert run("audit", "head", "--server", server, "--append", str(tmp_path)).code == 3


@pytest.fixture
def left(run: Run, path: Path, tmp_path: Path) -> Path:
    """A data directory whose server has stopped, and beside it its heads and keys."""
    write_key(tmp_path / "head.key")
    write_public_key(tmp_path / "head.pub")
    heads = str(tmp_path / "heads")
    with served(path, {}) as address, Client(address) as client:
        client.create_bank("scams", ANN)
        client.add_entry("scams", [item("a")], ANN)
        words = ("audit", "head", "--server", address, "--append", heads)
        assert run(*words, "--sign", str(tmp_path / "head.key")).code == 0
    return path


def verified(run: Run, path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    ran = run("audit", "verify", "--data-dir", str(path), "--json", *words)
    return ran.code, json.loads(ran.out)


def test_a_whole_record_is_exit_code_0(run: Run, left: Path) -> None:
    heads = ("--heads", str(left.parent / "heads"))
    signed = (*heads, "--public-key", str(left.parent / "head.pub"))
    for words in ((), heads, signed):
        code, found = verified(run, left, *words)
        assert (code, found["whole"], found["faults"], found["seq"]) == (0, True, [], 2)
    assert (found["heads"], found["signatures_checked"]) == (1, True)
    told = run("audit", "verify", "--data-dir", str(left), *signed)
    assert told.code == 0
    assert "the record of 2 changes is whole" in told.out
    assert found["link"] in told.out


def test_verify_runs_beside_a_server(server: str, path: Path) -> None:
    """In a process of its own, whatever is edited meanwhile."""
    words = ["audit", "verify", "--data-dir", str(path)]
    ran = subprocess.run(
        [sys.executable, "-c", "from simsearch.cli.app import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr.strip()) == (0, "")
    assert "the record of 4 changes is whole" in ran.stdout


def test_an_altered_record_is_exit_code_7(run: Run, left: Path) -> None:
    """And what was found is on standard output, the sentence on standard error."""
    with RawTables(left) as tables:
        tables.alter_change(2, actor="mallory")
    code, found = verified(run, left)
    assert (code, found["whole"]) == (7, False)
    assert len(found["faults"]) == 2
    told = run("audit", "verify", "--data-dir", str(left))
    assert "fault: change 2 does not follow" in told.out
    assert "is not what it was" in told.err


def test_a_history_that_was_made_up_or_cut_off_shows_by_a_head(run: Run, left: Path) -> None:
    """Without one it does not: that is what heads are for."""
    with RawTables(left) as tables:
        tables.alter_change(1, reason="another")
        tables.link_anew()
    assert verified(run, left)[1]["faults"] == []
    code, found = verified(run, left, "--heads", str(left.parent / "heads"))
    assert (code, found["faults"]) == (7, ["the history up to change 2 is not the one noted then"])
    BankStore.open(left.parent / "other", writer=True).close()
    code, found = verified(run, left.parent / "other", "--heads", str(left.parent / "heads"))
    assert code == 7
    assert "its end was cut off" in found["faults"][1]


def test_a_head_that_was_altered_is_a_fault(run: Run, left: Path) -> None:
    """As is one that nobody signed, where all must be."""
    heads = left.parent / "heads"
    words = ("--heads", str(heads), "--public-key", str(left.parent / "head.pub"))
    line = json.loads(heads.read_text())
    heads.write_text(json.dumps(line | {"time": "2027-01-31T18:00:00+00:00"}) + "\n")
    code, found = verified(run, left, *words)
    assert code == 7
    assert "signature that is wrong" in found["faults"][0]
    del line["signature"]
    heads.write_text(json.dumps(line) + "\n")
    assert "not signed" in verified(run, left, *words)[1]["faults"][0]


def test_verify_refuses_what_it_cannot_use(run: Run, left: Path, tmp_path: Path) -> None:
    base = ("audit", "verify", "--data-dir", str(left))
    assert run(*base, "--public-key", str(left.parent / "head.pub")).code == 3
    assert run(*base, "--heads", str(tmp_path / "absent")).code == 3
    assert run("audit", "verify", "--data-dir", str(tmp_path / "absent")).code == 7


# ---------------------------------------------------------------- revert


def test_revert_takes_back_and_says_so(run: Run, server: str) -> None:
    """First tried, then done, then nothing is left to do."""
    words = ("revert", "--server", server, "--actor", "eve", "--since", "2000-01-01",
             "--reason", "case 9", "--by", "bob")  # fmt: skip
    tried = shown(run, *words, "--dry-run")
    assert (tried["dry_run"], tried["undone"], tried["skipped"]) == (True, 2, 0)
    with Client(server) as client:
        assert not client.match(item("a")).hits
        done = run(*words)
        assert done.code == 0
        assert "2 of 2 changes of eve undone" in done.out
        assert "as entry 3" in done.out
        assert [hit.entry_key for hit in client.match(item("a")).hits] == [3]
        assert not client.match(item("b")).hits
    again = shown(run, *words)
    assert (again["undone"], again["skipped"]) == (0, 2)
    assert again["changes"][0]["outcome"] == "SKIPPED"
    made = shown(run, "audit", "show", "--server", server, "--actor", "bob")
    assert [(change["undoes"], change["reason"]) for change in made] == [
        (4, "case 9"),
        (3, "case 9"),
    ]


def test_revert_goes_on_part_by_part(
    run: Run, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simsearch.serve.banks.change_log.CHANGES_AT_ONCE", 1)
    words = ("revert", "--server", server, "--actor", "eve", "--since", "2000-01-01")
    assert shown(run, *words, "--reason", "case 9")["undone"] == 2


def test_revert_needs_to_know_whose_since_when_and_why(run: Run, server: str) -> None:
    words = {"--actor": "eve", "--since": "2000-01-01", "--reason": "case 9"}
    for left_out in words:
        given = [word for option in words.items() if option[0] != left_out for word in option]
        assert run("revert", "--server", server, *given).code == 2
        empty = [word for k, v in words.items() for word in (k, "" if k == left_out else v)]
        assert run("revert", "--server", server, *empty).code == 3
