"""`simsearch explain`, and an entry's moves, on a server without encoders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simsearch.cli.common.server_process import ServerProcess
from tests.cli.shell import Ran, Run

HASH = "pdq:" + "0f" * 32
NEAR = "pdq:" + "0e" + "0f" * 31

Shell = Callable[..., Ran]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    path = tmp_path_factory.mktemp("explaining")
    config = path / "bare.toml"
    config.write_text("[encoders]\n[ban_checks]\nenabled = false\n[sandbox]\nworkers = 0\n")
    process = ServerProcess(path, config)
    yield process
    process.stop()


@pytest.fixture
def shell(run: Run, server: ServerProcess) -> Shell:
    def asked(*words: str) -> Ran:
        return run(*words, "--server", server.address)

    return asked


def banned(shell: Shell, bank: str) -> str:
    """The key of one entry in a new bank."""
    assert shell("bank", "create", bank, "--reason", "case 1").code == 0
    added = shell("entry", "add", bank, "--hash", HASH, "--reason", "case 4711", "--json")
    return str(json.loads(added.out)["entry"]["key"])


def receipt(shell: Shell, path: Path, bank: str, content: str = NEAR) -> Path:
    path.write_text(shell("match", "--hash", content, "--bank", bank, "--json").out)
    return path


def test_a_hit_is_explained_in_words(shell: Shell, tmp_path: Path) -> None:
    """What was measured against what, by which entry, banned by whom and why."""
    key = banned(shell, "alpha")
    ran = shell("explain", str(receipt(shell, tmp_path / "r.json", "alpha")))
    assert ran.code == 0
    assert f"BLOCK by entry {key} of alpha:" in ran.out
    assert "pdq 1 ≤ 31 bits: enough for BLOCK" in ran.out
    assert "case 4711" in ran.out
    assert "RETRACTED" not in ran.out
    assert "policy was" not in ran.out


def test_what_has_changed_since_is_told(shell: Shell, tmp_path: Path) -> None:
    """A stricter policy, a quarantine, a retraction: the receipt stays what it was."""
    key = banned(shell, "beta")
    path = receipt(shell, tmp_path / "r.json", "beta")
    shell("bank", "update", "beta", "--threshold", "pdq.block=0", "--reason", "too wide")
    shell("entry", "set-state", "beta", key, "quarantined", "--reason", "hits the news")
    shell("entry", "retract", "beta", key, "--reason", "appeal 88")
    ran = shell("explain", str(path))
    assert ran.code == 0
    assert "the bank's policy was v1 and is v2: this would be REVIEW today" in ran.out
    assert "moved since by" in ran.out
    assert "RETRACTED since by" in ran.out
    assert "appeal 88" in ran.out
    explained = json.loads(shell("explain", str(path), "--json").out)
    assert explained[0]["hits"][0]["today"] == "REVIEW"


@pytest.mark.parametrize(("part", "value"), [("hamming", 99), ("threshold", 0), ("band", "REVIEW")])
def test_a_receipt_that_was_altered_does_not_add_up(
    shell: Shell, tmp_path: Path, part: str, value: Any
) -> None:
    bank = f"gamma-{part}"
    banned(shell, bank)
    path = receipt(shell, tmp_path / "r.json", bank)
    shown = json.loads(path.read_text())
    shown[0]["hits"][0]["evidence"][0][part] = value
    path.write_text(json.dumps(shown))
    ran = shell("explain", str(path))
    assert ran.code == 3
    assert "DOES NOT ADD UP" in ran.out


REGION = {"left": 0, "top": 0, "right": 0.5, "bottom": 1}


@pytest.mark.parametrize(
    "region",
    [
        {**REGION, "left": "x"},
        {**REGION, "left": None},
        {**REGION, "right": 1e400},
        {"left": 0},
        [1],
    ],
    ids=["word", "null", "endless", "lacking", "list"],
)
def test_a_region_that_is_none_is_refused_by_name(
    shell: Shell, tmp_path: Path, region: object, request: pytest.FixtureRequest
) -> None:
    """And a true one is told with the measure."""
    bank = f"parts-{request.node.callspec.id}"
    banned(shell, bank)
    path = receipt(shell, tmp_path / "r.json", bank)
    told = json.loads(path.read_text())
    told[0]["hits"][0]["evidence"][0]["region"] = REGION
    path.write_text(json.dumps(told))
    assert "pdq 1 ≤ 31 bits in 0-50 % × 0-100 %: enough" in shell("explain", str(path)).out
    told[0]["hits"][0]["evidence"][0]["region"] = region
    path.write_text(json.dumps(told))
    refused = shell("explain", str(path))
    assert refused.code != 0
    assert "lacks a part" in refused.err
    assert "Traceback" not in refused.err


def test_no_match_is_explained_and_no_receipt_refused(shell: Shell, tmp_path: Path) -> None:
    banned(shell, "delta")
    path = receipt(shell, tmp_path / "r.json", "delta", "pdq:" + "f0" * 32)
    assert "nothing that is banned came near enough" in shell("explain", str(path)).out
    for text in ("", "{}", "[1]", '[{"error": {}}]', '{"hits": [{}], "seq": 1}'):
        path.write_text(text)
        ran = shell("explain", str(path))
        assert ran.code == 3
        assert "receipt" in ran.err
    assert shell("explain", str(tmp_path / "absent")).code == 3


def test_an_entry_begins_in_the_shadow_and_moves(shell: Shell) -> None:
    """`--state shadow`, `match --shadow`, `entry set-state`, and what `get` and `list` say."""
    assert shell("bank", "create", "epsilon", "--reason", "case 1").code == 0
    words = ("entry", "add", "epsilon", "--hash", HASH, "--state", "shadow", "--reason", "a trial")
    key = str(json.loads(shell(*words, "--json").out)["entry"]["key"])
    seen = shell("match", "--hash", HASH, "--bank", "epsilon", "--shadow")
    assert "NO_MATCH" in seen.out
    assert "in the shadow: epsilon/" in seen.out
    moved = shell("entry", "set-state", "epsilon", key, "active", "--reason", "it is right")
    assert f"entry {key} of epsilon is active" in moved.out
    assert (
        "it was already"
        in shell("entry", "set-state", "epsilon", key, "active", "--reason", "x").out
    )
    assert "made active" in shell("entry", "get", "epsilon", key).out
    assert key in shell("entry", "list", "epsilon", "--state", "active").out
    refused = shell(
        "entry", "set-state", "epsilon", key, "active", "--until", "soon", "--reason", "x"
    )
    assert (refused.code, "no time" in refused.err) == (3, True)


def test_a_bank_of_what_is_harmless_and_one_that_is_archived(shell: Shell, tmp_path: Path) -> None:
    """The hit is suppressed and said so, by the answer and by its explanation; archived, the bank
    has no say and takes no edits, until it is brought back."""
    banned(shell, "zeta")
    create = ("bank", "create", "news", "--allowed", "--owner", "press desk", "--reason", "case 9")
    assert "kind: allowed" in shell(*create).out
    add = ("entry", "add", "news", "--hash", NEAR, "--reason", "a press photograph")
    assert shell(*add).code == 0
    path = receipt(shell, tmp_path / "r.json", "zeta")
    shown = json.loads(path.read_text())[0]
    assert (shown["verdict"], shown["hits"], shown["complete"]) == ("NO_MATCH", [], True)
    assert shown["suppressed"][0]["by"]["bank"] == "news"
    ran = shell("explain", str(path))
    assert ran.code == 0
    assert "SUPPRESSED" in ran.out
    assert "known to be harmless" in ran.out
    archive = ("bank", "update", "news", "--reason", "case closed")
    assert shell(*archive, "--archive").code == 0
    assert "allowed, archived" in shell("bank", "list").out
    assert shell("match", "--hash", NEAR, "--bank", "zeta", "--json").out.count("BLOCK")
    for refused in (
        add,
        (*archive, "--owner", "nobody"),
        ("match", "--hash", NEAR, "--bank", "news"),
    ):
        ran = shell(*refused)
        assert ran.code == 5
        assert "archived" in ran.err
    assert shell(*archive, "--unarchive").code == 0
    assert "NO_MATCH" in shell("match", "--hash", NEAR, "--bank", "zeta").out
    assert shell(*archive, "--archive").code == 0  # its say is in every bank's answers


def test_what_a_disputed_entry_blocked_is_for_review(shell: Shell, tmp_path: Path) -> None:
    key = banned(shell, "eta")
    shell("entry", "set-state", "eta", key, "disputed", "--reason", "two reviewers doubt it")
    path = receipt(shell, tmp_path / "r.json", "eta")
    assert json.loads(path.read_text())[0]["verdict"] == "REVIEW"
    ran = shell("explain", str(path))
    assert ran.code == 0
    assert "people dispute this entry" in ran.out


@pytest.mark.parametrize("ratio", ["7.5", "-0.1", "nan"])
def test_a_share_that_is_none_is_refused(shell: Shell, ratio: str) -> None:
    ran = shell("bank", "create", "theta", "--enabled-ratio", ratio, "--reason", "x")
    assert ran.code == 3
    assert "0 (none) to 1 (all)" in ran.err
    assert shell("bank", "get", "theta").code == 4


def test_a_bank_of_which_nothing_counts_matches_nothing(shell: Shell) -> None:
    banned(shell, "iota")
    shell("bank", "update", "iota", "--enabled-ratio", "0", "--reason", "on trial")
    assert "0 of its hits count" in shell("bank", "get", "iota").out
    assert "NO_MATCH" in shell("match", "--hash", HASH, "--bank", "iota").out
    seen = shell("match", "--hash", HASH, "--bank", "iota", "--shadow")
    assert "in the shadow: iota/" in seen.out
