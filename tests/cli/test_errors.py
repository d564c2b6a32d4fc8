"""A refusal at a shell: one sentence on standard error and an exit code that scripts can use."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import pytest

from simsearch.cli.common.options import edit_by, exit_code
from simsearch.errors import BadRequest, SimsearchError, every_error
from simsearch.types import Edit
from tests.cli.shell import NOBODY, Refusing, Run, serving

CODES = {
    1: "INTERNAL",
    3: "EMPTY_CONTENT BAD_CONTENT CONTENT_TOO_LARGE NO_SIGNAL BAD_VECTOR BAD_HASH SPACE_MISMATCH "
    "BAD_POLICY BAD_BANK_NAME BAD_REQUEST LIMIT_EXCEEDED DECODER_FAILED LOW_INFORMATION",
    4: "BANK_NOT_FOUND ENTRY_NOT_FOUND ENTRY_IN_OTHER_BANK UNKNOWN_SPACE PROPOSAL_NOT_FOUND",
    5: "BANK_EXISTS BANK_CHANGED BANK_ARCHIVED ENTRY_RETRACTED CONTENT_MISMATCH "
    "NEEDS_APPROVAL PROPOSAL_CLOSED",
    6: "OVERLOADED NOT_READY NOT_YET_VISIBLE SPACE_UNAVAILABLE UNREACHABLE DEADLINE_PASSED",
    8: "UNAUTHENTICATED PERMISSION_DENIED DAILY_LIMIT",
    7: "BANK_FULL BANK_LOCKED NEWER_FORMAT CORRUPT BAD_CONFIG WEIGHTS_MISSING "
    "BAD_SNAPSHOT SNAPSHOT_FULL RECALL_TOO_LOW NO_SANDBOX ENCODER_FAILED",
}
BY_REASON = {reason: code for code, reasons in CODES.items() for reason in reasons.split()}


def test_every_error_has_the_exit_code_of_its_class() -> None:
    """All of them are listed here, so that a new one is given a code on purpose."""
    assert {r: exit_code(cls("what happened")) for r, cls in every_error().items()} == BY_REASON


def test_an_error_of_a_newer_server_is_our_fault() -> None:
    """Exit code 1: nothing that a script could act on."""
    assert exit_code(SimsearchError("MOON_PHASE: wait")) == 1


@pytest.mark.parametrize(
    "reason", ["BAD_REQUEST", "BANK_NOT_FOUND", "BANK_CHANGED", "NOT_YET_VISIBLE", "CORRUPT"]
)
def test_a_servers_refusal_is_one_sentence_and_its_code(run: Run, reason: str) -> None:
    """The server's own words come through; nothing is printed where results go."""
    with serving(Refusing(every_error()[reason]("what happened, and what to do"))) as address:
        ran = run("bank", "get", "spam", "--server", address)
        as_json = run("bank", "get", "spam", "--server", address, "--json")
    assert ran.code == as_json.code == BY_REASON[reason]
    assert ran.out == as_json.out == ""
    assert ran.err == "simsearch: what happened, and what to do\n"
    [line] = as_json.err.splitlines()
    assert json.loads(line) == {
        "error": {"reason": reason, "message": "what happened, and what to do"}
    }


@pytest.mark.parametrize(
    "words",
    [
        ("bank", "list"),
        ("status",),
        ("match", "--hash", "md5:00"),
        ("entry", "retract", "spam", "1", "--reason", "appeal"),
    ],
)
def test_a_server_that_is_not_there_is_named(run: Run, words: tuple[str, ...]) -> None:
    """Exit code 6, the address that was tried, and what to look for."""
    ran = run(*words, "--server", NOBODY)
    assert (ran.code, ran.out) == (6, "")
    assert ran.err.startswith(f"simsearch: no answer from {NOBODY} ")
    assert len(ran.err.splitlines()) == 1


def test_a_refusal_in_json_is_one_line(run: Run) -> None:
    """Also where the sentence quotes something with line breaks or other letters."""
    ran = run("config", "check", "größe\n.toml", "--json")
    assert (ran.code, ran.out) == (7, "")
    [line] = ran.err.splitlines()
    refusal = json.loads(line)["error"]
    assert refusal["reason"] == "BAD_CONFIG"
    assert "größe\n.toml" in refusal["message"]


def test_nothing_to_match_needs_no_server(run: Run) -> None:
    """What is wrong with the arguments is said before anybody is called."""
    ran = run("match", "--server", NOBODY)
    assert ran.code == 3
    assert ran.err == (
        "simsearch: nothing to do: give files or a folder, --text, --hash, --vector or --jsonl\n"
    )


def test_a_text_in_another_encoding_is_refused(run: Run) -> None:
    """Python hands undecodable bytes of a command line on as lone surrogates."""
    ran = run("match", "--text", "caf\udce9", "--server", NOBODY)
    assert ran.code == 3
    assert "UTF-8" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("bank", "create", "spam"),  # no --reason
        ("entry", "get", "spam", "seventeen"),
        ("entry", "list", "spam", "--state", "gone"),
        ("entry", "add", "spam", "--text", "x", "--reason", "y", "--wait", "forever"),
        ("serve", "--log-level", "loud"),
    ],
)
def test_wrong_usage_is_exit_code_2(run: Run, words: tuple[str, ...]) -> None:
    """Told apart from bad input: the command line itself was not understood."""
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert "Usage:" in ran.err


def test_a_missing_configuration_is_an_operators_matter(run: Run, tmp_path: Path) -> None:
    """Exit code 7, and the path that was tried."""
    missing = tmp_path / "none.toml"
    ran = run("config", "check", str(missing))
    assert (ran.code, ran.out) == (7, "")
    assert ran.err == f"simsearch: cannot read {missing}: No such file or directory\n"


def test_a_good_configuration_is_said_to_be(run: Run, tmp_path: Path) -> None:
    """In words, or as the whole configuration in JSON, defaults included."""
    path = tmp_path / "simsearch.toml"
    path.write_text('[server]\nlisten = "127.0.0.1:1234"\n[encoders]\n', encoding="utf-8")
    assert f"{path} is good: listens on 127.0.0.1:1234" in run("config", "check", str(path)).out
    shown = json.loads(run("config", "check", str(path), "--json").out)
    assert shown["server"]["listen"] == "127.0.0.1:1234"
    assert shown["limits"]["hits_max"] == 1000
    assert shown["encoders"] == {}


# ---------------------------------------------------------------- who edits


def test_an_edit_is_by_who_is_named_or_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--actor` first; else the login name."""
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    assert edit_by("bob", "case 1") == Edit("bob", "case 1")
    assert edit_by("", "case 1") == Edit("ann", "case 1")


@pytest.mark.parametrize("fault", [KeyError("uid not found: 4711"), OSError("No username set")])
def test_a_user_without_a_name_is_asked_for_one(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """As in a container whose user id is in no table: a sentence, not a trace."""

    def nameless() -> str:
        raise fault

    monkeypatch.setattr(getpass, "getuser", nameless)
    with pytest.raises(BadRequest, match="--actor"):
        edit_by("", "case 1")
