"""Entries from a shell: listed by what is known of them, and found by what they are near to."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simsearch.client import Client
from simsearch.types import Edit, EntryState, HashContent, Signal, TextContent
from simsearch.v1 import match_pb2
from tests.cli.shell import Run
from tests.serve.house import served

ANN, EVE = Edit("ann", "case 7"), Edit("eve", "case 8")
LONG = "send one coin to this address and you will get two of them back at once, my friend"


def sha(name: str) -> HashContent:
    return HashContent(Signal.SHA256, hashlib.sha256(name.encode()).digest())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("listing"), {}) as address:
        with Client(address) as client:
            client.create_bank("scams", ANN)
            client.add_entry("scams", [sha("a")], ANN, labels=["x", "y"], source="s")
            client.add_entry("scams", [sha("b")], EVE, labels=["x"], note="of a bank")
            client.add_entry("scams", [TextContent(LONG)], ANN, state=EntryState.DRAFT)
        yield address


def test_what_is_asked_for_is_listed(run: Run, server: str) -> None:
    """Each option."""
    base = ("entry", "list", "scams", "--server", server)
    for words, keys in (
        ((), [1, 2, 3]),
        (("--state", "all"), [1, 2, 3]),
        (("--state", "draft", "--state", "shadow"), [3]),
        (("--label", "x", "--label", "y"), [1]),
        (("--source", "s"), [1]),
        (("--actor", "eve"), [2]),
        (("--since", "2000-01-01", "--until", "2100-01-01"), [1, 2, 3]),
        (("--changed-since", "2100-01-01"), []),
        (("--note", "a BANK"), [2]),
        (("--digest", f"sha256:{sha('b').value.hex()}"), [2]),
        (("--source-id", "9"), []),
        (("--severity", "high"), []),
    ):
        page = json.loads(run(*base, *words, "--json").out)
        assert [entry["key"] for entry in page["entries"]] == keys, words
        assert page["next_page_token"] == ""


def test_every_page_is_listed_or_counted(
    run: Run, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry a line, so that a program can read a bank that is larger than its memory."""
    monkeypatch.setattr("simsearch.cli.entries.entry_list.PAGE_SIZE_ALL", 1)
    base = ("entry", "list", "scams", "--server", server, "--label", "x")
    lines = run(*base, "--json", "--all").out.splitlines()
    assert [json.loads(line)["key"] for line in lines] == [1, 2]
    assert run(*base, "--all").out.count("case") == 2
    assert json.loads(run(*base, "--json", "--count").out) == {"count": 2}
    assert run(*base, "--count").out == "2\n"


def test_a_page_is_full_where_there_is_enough(
    run: Run, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a call looks at one entry and no more; the next begins where it ended."""
    monkeypatch.setattr("simsearch.bank.entry_search.LOOKED_AT_MAX", 1)
    monkeypatch.setattr("simsearch.bank.entry_search.ENTRIES_AT_ONCE", 1)
    base = ("entry", "list", "scams", "--server", server, "--label", "x")
    first = run(*base, "--page-size", "1")
    assert "more: --page-token 1" in first.out
    second = json.loads(run(*base, "--page-size", "1", "--page-token", "1", "--json").out)
    assert [entry["key"] for entry in second["entries"]] == [2]
    whole = json.loads(run(*base, "--page-size", "2", "--json").out)
    assert [entry["key"] for entry in whole["entries"]] == [1, 2]


def test_content_ids_are_said_where_asked_for(run: Run, server: str) -> None:
    base = ("entry", "list", "scams", "--server", server, "--json", "--all")
    plain, told = ([json.loads(line)["content_id"] for line in run(*words).out.splitlines()]
                   for words in (base, (*base, "--content-ids")))  # fmt: skip
    assert plain == ["", "", ""]
    assert len(set(told)) == 3


def test_bad_options_are_refused(run: Run, server: str) -> None:
    base = ("entry", "list", "scams", "--server", server)
    assert run(*base, "--state", "asleep").code == 2
    assert run(*base, "--digest", "pdq:" + "00" * 32).code == 3
    assert run(*base, "--digest", "sha256:zz").code == 3
    assert run(*base, "--all", "--count").code == 3
    assert run(*base, "--since", "soon").code == 3


# ---------------------------------------------------------------- near


def found(run: Run, server: str, *words: str) -> Any:
    ran = run("entry", "find", *words, "--server", server, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_the_nearest_are_shown_best_first(
    run: Run, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a text in whatever way it is given; the entry is a draft, which no match would show."""
    near = LONG.replace("friend", "dear friend")
    (tmp_path / "text").write_text(near)
    by_option = found(run, server, "--text", near)
    monkeypatch.setattr("sys.stdin", io.StringIO(near))
    assert found(run, server, "--text", "-") == by_option
    assert found(run, server, "--text-file", str(tmp_path / "text")) == by_option
    [entry] = by_option["entries"]
    assert (entry["entry"]["key"], entry["entry"]["state"]) == (3, "DRAFT")
    [evidence] = entry["evidence"]
    assert (evidence["signal"], 0 <= evidence["hamming"] <= 400) == ("minhash1024", True)
    table = run("entry", "find", "--text", near, "--server", server)
    for word in ("minhash", "bits", "draft", "scams", "ann"):
        assert word in table.out


def test_bounds_banks_and_states_are_passed_on(run: Run, server: str) -> None:
    assert found(run, server, "--text", LONG, "--state", "active")["entries"] == []
    assert found(run, server, "--text", LONG, "--bank", "scams", "--hamming-max", "0")["entries"]
    assert found(run, server, "--hash", f"sha256:{sha('a').value.hex()}")["entries"]
    bounded = run("entry", "find", "--text", LONG, "--cosine-min", "7", "--server", server)
    assert bounded.code == 3
    assert run("entry", "find", "--text", LONG, "--bank", "none", "--server", server).code == 4


def test_one_content_at_a_time(run: Run, server: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xff\xfe")
    base = ("entry", "find", "--server", server)
    for words in (
        (),
        ("--text", "a", "--text", "b"),
        ("--text", "a", "--text-file", str(tmp_path / "text")),
        ("--text-file", str(tmp_path / "text")),
        ("--text-file", str(tmp_path / "absent")),
    ):
        assert run(*base, *words).code == 3, words


def test_what_was_not_searched_is_said(run: Run, server: str) -> None:
    """A text too short for a hash is not "nothing near"."""
    assert "not searched: minhash" in run("entry", "find", "--text", "a", "--server", server).out


def test_words_for_every_measure() -> None:
    from simsearch.cli.entries.entry_find import near_words

    for evidence, words in (
        (match_pb2.Evidence(signal="pdq", hamming=0), "pdq 0 bits"),
        (match_pb2.Evidence(signal="toy@1/x/2", cosine=0.5), "toy cosine 0.50000"),
        (match_pb2.Evidence(signal="md5", identical=True), "md5 identical"),
        (match_pb2.Evidence(signal="pdq", withheld=True), "pdq (score not granted)"),
    ):
        assert near_words(evidence) == words
