"""Opinions from a shell: given, listed, reviewed, and written for partners."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simsearch.bank.records import keys
from simsearch.bank.store import BankStore
from simsearch.client import Client
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import (
    Edit,
    EntryDraft,
    EntryState,
    Fingerprint,
    HashContent,
    OpinionDraft,
    OpinionKind,
    Policy,
    Signal,
)
from tests.bank.test_audit import RawTables
from tests.cli.shell import Run
from tests.serve.house import served

ANN = Edit("ann", "case 7")
HASH = HashContent(Signal.MD5, bytes.fromhex("9e107d9d372bb6826bd81d3542a419d6"))
PEOPLE = ("bob", "cid", "dan")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.fixture
def server(path: Path) -> Iterator[str]:
    """Entry 1 is of NCMEC's list, entry 2 of nobody's."""
    with served(path, {}) as address:
        with Client(address) as client:
            client.create_bank("scams", ANN)
            client.add_entry("scams", [HASH], ANN, source="ncmec", source_id="42-image1")
            client.add_entry("scams", [HASH], ANN)
        yield address


@pytest.fixture
def disputed(run: Run, server: str) -> str:
    """Entry 1 is, by three people; of entry 2 one says that it is right."""
    base = ("--reason", "looked", "--server", server)
    for who in PEOPLE:
        words = (*base, "--note", "a sunset", "--actor", who)
        assert run("opinion", "give", "scams", "1", "false-positive", *words).code == 0
    assert run("opinion", "give", "scams", "2", "true-positive", *base, "--actor", "bob").code == 0
    return server


def shown(run: Run, *words: str) -> Any:
    ran = run(*words, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_an_opinion_is_given(run: Run, server: str) -> None:
    """As a line and as JSON; who made it disputed is told so."""
    base = ("--reason", "case 88", "--server", server)
    ran = run("opinion", "give", "scams", "1", "false-positive", *base, "--actor", "bob")
    assert ran.out == "entry 1 of scams: false positive (change 4)\n"
    more = ("--note", "a sunset", "--case", "c-1", "--sha256", "02" * 32, "--actor", "cid")
    given = shown(run, "opinion", "give", "scams", "1", "not-harmful-here", *base, *more)
    assert given["opinion"]["kind"] == "NOT_HARMFUL_HERE"
    assert given["opinion"]["content_sha256"] == "02" * 32
    assert given["disputed"] is False
    for who in ("cid", "dan"):
        ran = run("opinion", "give", "scams", "1", "FALSE_POSITIVE", *base, "--actor", who)
    assert "it is disputed" in ran.out


def test_what_is_said_wrongly_is_refused(run: Run, server: str) -> None:
    base = ("--reason", "case 88", "--server", server)
    assert run("opinion", "give", "scams", "1", "wrong", *base).code == 2
    assert run("opinion", "give", "scams", "1", "other", *base, "--sha256", "xyz").code == 3
    assert run("opinion", "give", "scams", "1", "other", *base, "--sha256", "02").code == 3
    assert run("opinion", "give", "scams", "9", "other", *base).code == 4
    assert run("opinion", "give", "absent", "1", "other", *base).code == 4
    assert run("opinion", "list", "absent", "--server", server).code == 4


def test_opinions_are_listed_and_chosen(
    run: Run, disputed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through every page."""
    monkeypatch.setattr("simsearch.cli.oversight.opinions.PAGE_SIZE", 1)
    base = ("opinion", "list", "scams", "--server", disputed)
    table = run(*base)
    assert (table.code, table.err) == (0, "")
    for words in ("false positive", "true positive", "a sunset", "looked", *PEOPLE):
        assert words in table.out
    chosen: list[tuple[tuple[str, ...], list[str]]] = [
        ((), [*PEOPLE, "bob"]),
        (("--entry", "2"), ["bob"]),
        (("--kind", "false-positive"), list(PEOPLE)),
        (("--actor", "cid"), ["cid"]),
        (("--until", "2000-01-01"), []),
        (("--since", "2000-01-01", "--limit", "2"), ["bob", "cid"]),
    ]
    for asked, who in chosen:
        found = shown(run, *base, *asked)
        assert [each["change"]["actor"] for each in found] == who
    assert run(*base, "--kind", "wrong").code == 2


def test_review_is_what_waits_for_a_decision(
    run: Run, disputed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simsearch.cli.oversight.opinions.PAGE_SIZE", 1)
    table = run("review", "list", "--server", disputed)
    for words in ("scams", "disputed", "simsearch", "held a false", "bob:", "0 (0)"):
        assert words in table.out
    [waiting] = shown(run, "review", "list", "--bank", "scams", "--server", disputed)
    assert (waiting["entry"]["key"], waiting["since"]["actor"]) == (1, "simsearch")
    with Client(disputed) as client:
        client.move_entry("scams", 2, EntryState.DISPUTED, ANN)
    both = shown(run, "review", "list", "--server", disputed)
    assert [each["entry"]["key"] for each in both] == [1, 2]
    assert len(shown(run, "review", "list", "--limit", "1", "--server", disputed)) == 1
    run("entry", "set-state", "scams", "1", "active", "--reason", "ok", "--server", disputed)
    [left] = shown(run, "review", "list", "--server", disputed)
    assert left["entry"]["key"] == 2


def test_an_entry_shows_how_often_it_was_hit(run: Run, server: str) -> None:
    with Client(server) as client:
        assert client.match(HASH).hits
    card = " ".join(run("entry", "get", "scams", "1", "--server", server).out.split())
    assert "1 (0 BLOCK, 1 REVIEW, 0 LOG; 0 of them near), the last 20" in card
    listed = shown(run, "entry", "list", "scams", "--server", server)["entries"]
    assert [each["hits"]["total"] for each in listed] == [1, 1]


# ---------------------------------------------------------------- export


@pytest.fixture
def left(path: Path) -> Path:
    """A data directory with the same, whose server has stopped."""
    digests = Fingerprint(digests={Signal.MD5: (HASH.value,)})
    with BankStore.open(path, writer=True) as store:
        store.create_bank("scams", "", Policy(), ANN)
        listed = EntryDraft(digests, source="ncmec", source_id="42-image1")
        store.add_entries("scams", [listed, EntryDraft(digests)], ANN)
        store.create_bank("others", "", Policy(), ANN)
        store.add_entries("others", [listed], ANN)
        wrong = OpinionDraft(OpinionKind.FALSE_POSITIVE)
        for who in PEOPLE:
            store.give_opinion("scams", 1, wrong, Edit(who, "looked"), disputes_max=3)
        right = OpinionDraft(OpinionKind.TRUE_POSITIVE)
        for bank, key in (("scams", 2), ("others", 3)):
            store.give_opinion(bank, key, right, Edit("bob", "looked"), disputes_max=3)
    return path


def test_opinions_are_exported_to_a_new_file(run: Run, left: Path, tmp_path: Path) -> None:
    """Which is never written over; of one bank; what is left out is said."""
    out = tmp_path / "votes.xml"
    base = ("opinion", "export", "scams", "--data-dir", str(left), "--format", "ncmec")
    ran = run(*base, "--out", str(out), "--reason-guid", "MD5=guid-1")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "1 records of 1 entries\nleft out: 1 of another source\n"
    assert "entries/42/image1/MD5/feedback" in out.read_text()
    assert "<guid>guid-1</guid>" in out.read_text()
    before = out.read_bytes()
    assert run(*base, "--out", str(out)).code == 3
    assert out.read_bytes() == before
    counts = shown(run, *base, "--out", str(tmp_path / "more.xml"))
    assert counts == {
        "entries": 0,
        "records": 0,
        "left_out": {
            "doubted, and without the id of a reason that this partner asks for": 1,
            "of another source": 1,
        },
    }


def test_standard_output_holds_the_list_alone(
    run: Run, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counts are on standard error; the list is read in parts, which may end anywhere."""
    monkeypatch.setattr("simsearch.cli.oversight.opinion_export.OPINIONS_AT_ONCE", 2)
    base = ("opinion", "export", "scams", "--data-dir", str(left))
    ran = run(*base, "--out", "-")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [(row["entry"], row["actor"]) for row in rows] == [
        (1, "bob"), (1, "cid"), (1, "dan"), (2, "bob"),
    ]  # fmt: skip
    assert ran.err == "4 records of 2 entries\n"
    assert json.loads(run(*base, "--json").err) == {"entries": 2, "records": 4, "left_out": {}}


def test_an_export_that_cannot_be_is_refused(run: Run, left: Path, tmp_path: Path) -> None:
    """And leaves no file."""
    base = ("opinion", "export", "scams", "--data-dir", str(left))
    assert run(*base, "--format", "xlsx").code == 3
    assert run(*base, "--format", "ncmec", "--reason-guid", "SHA1=x").code == 3
    assert run(*base, "--out", str(tmp_path / "absent" / "x")).code == 3
    out = tmp_path / "x"
    words = ("opinion", "export", "absent", "--data-dir", str(left), "--out", str(out))
    assert run(*words).code == 4
    assert not out.exists()


def test_an_audit_holds_over_opinions_and_finds_an_altered_one(run: Run, left: Path) -> None:
    """By the command that operators run."""
    assert run("audit", "verify", "--data-dir", str(left)).code == 0
    with RawTables(left) as tables:
        at, body = min(tables.rows(keys.OPINIONS).items())
        record = pb.OpinionRecord.FromString(body)
        record.kind = OpinionKind.TRUE_POSITIVE
        tables.put(keys.OPINIONS, at, record.SerializeToString())
    ran = run("audit", "verify", "--data-dir", str(left))
    assert ran.code == 7
    assert "is not as it was given" in ran.out


def test_the_record_shows_opinions(run: Run, disputed: str) -> None:
    assert "opinion given" in run("audit", "show", "--server", disputed).out
