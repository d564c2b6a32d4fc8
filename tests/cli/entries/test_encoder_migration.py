"""A change of encoder from an operator's side: extend, backfill, compare, drop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsearch.client import Client
from simsearch.encode.digests import text_sha256
from simsearch.encode.registry import LoadedEncoder
from simsearch.encode.text.forms.light_form import light_form
from simsearch.encode.text.forms.older_form import older_form
from simsearch.errors import ContentMismatch, EntryRetracted
from simsearch.types import (
    Band,
    CosineRule,
    DigestRule,
    Edit,
    HashContent,
    ImageContent,
    MatchOptions,
    Modality,
    Policy,
    Signal,
    Space,
    TextContent,
    VectorContent,
)
from simsearch.v1 import bank_pb2
from simsearch.wire import policy_to
from tests.cli.shell import Run
from tests.fakes import FakeImageEncoder, FakeTextEncoder, near, unit_of
from tests.serve.house import served

EDIT = Edit("tester", "a test")
OLD = Space("prose", "a" * 64, "none", 8)
NEW = Space("verse", "b" * 64, "none", 8)
SIGHT = Space("sight", "c" * 64, "none", 8)
A, B, C = "the first banned text", "the second banned text", "the third banned text"
LIKE_A, LIKE_B, LIKE_C = "much like the first", "much like the second", "somewhat like the third"
"""Near A in both spaces; near B in the old one alone; near C, by another band in the new one."""

IN_OLD = {LIKE_A: near(unit_of(A), 0.95), LIKE_B: near(unit_of(B), 0.95),
          LIKE_C: near(unit_of(C), 0.95)}  # fmt: skip
IN_NEW = {LIKE_A: near(unit_of(A), 0.92), LIKE_C: near(unit_of(C), 0.8)}
BOTH = {
    "old": LoadedEncoder("old", Modality.TEXT, text=FakeTextEncoder(OLD, IN_OLD)),
    "new": LoadedEncoder("new", Modality.TEXT, text=FakeTextEncoder(NEW, IN_NEW)),
    "sight": LoadedEncoder("sight", Modality.IMAGE, image=FakeImageEncoder(SIGHT)),
}
ONLY_OLD = {"old": BOTH["old"]}
ONLY_NEW = {"new": BOTH["new"], "sight": BOTH["sight"]}
POLICY = Policy(
    cosine=tuple(
        CosineRule(space.id, modality, review=0.9, log=0.7)
        for space, modality in (
            (OLD, Modality.TEXT),
            (NEW, Modality.TEXT),
            (SIGHT, Modality.IMAGE),
        )
    ),
    digests=(DigestRule(Signal.SHA256, Band.BLOCK), DigestRule(Signal.TEXT_SHA256, Band.BLOCK)),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bank with three texts that were banned before there was a second encoder."""
    with served(tmp_path / "bank", ONLY_OLD) as address, Client(address) as client:
        client.create_bank("spam", EDIT, policy=replace(POLICY, cosine=POLICY.cosine[:1]))
        for text in (A, B, C):
            client.add_entry("spam", [TextContent(text)], EDIT)
    return tmp_path / "bank"


@pytest.fixture
def address(path: Path) -> Iterator[str]:
    with served(path, BOTH) as address:
        with Client(address) as client:
            set_policy(client, POLICY)
        yield address


def set_policy(client: Client, policy: Policy, bank: str = "spam") -> None:
    edit = bank_pb2.Edit(actor="tester", reason="a test")
    request = bank_pb2.UpdateBankRequest(name=bank, policy=policy_to(policy), edit=edit)
    client.update_bank(request)


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts"
    path.write_text(f"{A}\n\nnobody banned this\r\n{C}\n", encoding="utf-8")
    return path


def signals(client: Client, key: int) -> dict[str, int]:
    return {s.signal: s.rows for s in client.get_entry("spam", key).signals}


# ---------------------------------------------------------------- one entry


def test_an_entry_is_matched_in_the_new_space_once_it_is_extended(
    client: Client, address: str, run: Run
) -> None:
    """Who did it, when and why is on the record, beside who banned it."""
    near_a = VectorContent("new", near(unit_of(A), 0.92)[np.newaxis])
    assert client.match(near_a).verdict is Band.NONE
    ran = run("entry", "extend", "spam", "1", "--text", A, "--reason", "new encoder",
              "--actor", "ann", "--server", address)  # fmt: skip
    assert (ran.code, ran.out) == (0, f"entry 1 of spam was given {NEW.id} ×1 (change 6)\n")
    assert client.match(near_a).verdict is Band.REVIEW
    shown = run("entry", "get", "spam", "1", "--server", address).out
    assert "by ann: new encoder (change 6)" in shown
    again = run("entry", "extend", "spam", "1", "--text", A, "--reason", "x", "--server", address)
    assert (again.code, "nothing was changed" in again.out) == (0, True)
    assert client.status().durable_seq == 6
    entry = client.get_entry("spam", 1)
    assert [(c.actor, c.seq) for c in entry.extended] == [("ann", 6)]


def test_the_wrong_content_is_refused_and_nothing_changes(
    client: Client, address: str, run: Run
) -> None:
    """Not by a slip of a key, not with the text of another entry beside the right one."""
    ran = run("entry", "extend", "spam", "1", "--text", B, "--reason", "x", "--server", address)
    assert (ran.code, ran.out) == (5, "")
    assert "is not what entry 1 bans" in ran.err
    with pytest.raises(ContentMismatch, match="content 2 of 2"):
        client.extend_entry("spam", 1, [TextContent(A), TextContent(B)], EDIT)
    client.retract_entry("spam", 3, EDIT)
    with pytest.raises(EntryRetracted):
        client.extend_entry("spam", 3, [TextContent(C)], EDIT)
    assert [sorted(signals(client, key)) for key in (1, 2)] == [
        sorted([OLD.id, "minhash1024", "text_light_sha256", "text_sha256", "text_strong_sha256"])
    ] * 2


def test_ready_vectors_are_taken_on_the_callers_word(client: Client) -> None:
    """They cannot be compared with what was banned."""
    done = client.extend_entry(
        "spam", 2, [VectorContent("new", unit_of("whatever")[np.newaxis])], EDIT
    )
    assert [s.signal for s in done.added] == [NEW.id]
    assert [s.signal for s in done.entry.signals if s.signal == NEW.id] == [NEW.id]


def test_an_entry_of_two_contents_takes_both_or_says_that_one_is_lost(
    client: Client, address: str, run: Run
) -> None:
    """Else half of it would never be found in the new space, and nobody would know."""
    lost = HashContent(Signal.TEXT_SHA256, bytes(32))
    minhash = HashContent(Signal.MINHASH, bytes(32))
    known = HashContent(Signal.TEXT_LIGHT_SHA256, text_sha256(light_form(A)))
    key = client.add_entry("spam", [lost, known, minhash], EDIT).entry.key
    words = ("entry", "extend", "spam", str(key), "--text", A, "--reason", "x", "--server", address)
    refused = run(*words)
    assert (refused.code, "bans 1 more" in refused.err) == (5, True)
    assert OLD.id not in signals(client, key)
    assert run(*words, "--partial").code == 0
    assert {OLD.id, NEW.id} < signals(client, key).keys()


# ---------------------------------------------------------------- many entries


def test_backfill_extends_what_it_knows_and_names_what_it_does_not(
    client: Client, address: str, run: Run, texts: Path
) -> None:
    """Run again, it has nothing to do; the words of a text are printed nowhere."""
    words = ("entry", "backfill", "spam", "--texts", str(texts), "--reason", "new encoder",
             "--server", address)  # fmt: skip
    first, second = run(*words), run(*words)
    assert first.out == "2 entries extended, 0 had all, 1 contents unknown, 0 failed\n" \
        "unknown: line 3\n"  # fmt: skip
    assert second.out.startswith("0 entries extended, 2 had all, 1 contents unknown, 0 failed\n")
    assert (first.code, second.code, first.err) == (0, 0, "")
    assert [NEW.id in signals(client, key) for key in (1, 2, 3)] == [True, False, True]
    said = json.loads(run(*words, "--json").out)
    assert said["had_all"] == [1, 3]
    assert said["unknown"] == ["line 3"]


def test_backfill_moves_entries_of_the_older_form(
    client: Client, address: str, run: Run, texts: Path
) -> None:
    """Known by the digest of then, they are given those of both forms, by which they are found
    from now on; the status counts what is left."""
    older = text_sha256(older_form(C))
    client.create_bank("older", EDIT, policy=POLICY)
    key = client.add_entry("older", [HashContent(Signal.TEXT_SHA256, older)], EDIT).entry.key
    assert [b.older_form_entries for b in client.status().banks] == [0, 1]
    ran = run("status", "--server", address).out
    assert "extend the entries of the older form" in ran
    words = ("entry", "backfill", "older", "--texts", str(texts), "--reason", "x",
             "--server", address)  # fmt: skip
    assert run(*words).out.startswith("1 entries extended, 0 had all")
    entry = client.get_entry("older", key)
    assert {s.signal for s in entry.signals} > {"text_light_sha256", "text_strong_sha256"}
    only_new = Policy(digests=(DigestRule(Signal.TEXT_LIGHT_SHA256, Band.BLOCK),))
    set_policy(client, only_new, "older")
    found = client.match(TextContent(C), MatchOptions(("older",)))
    assert (found.verdict, [h.entry_key for h in found.hits]) == (Band.BLOCK, [key])
    client.retract_entry("older", key, EDIT)
    assert client.match(TextContent(C), MatchOptions(("older",))).verdict is Band.NONE


def test_backfill_gives_an_entry_all_its_contents_at_once(
    client: Client, address: str, run: Run, tmp_path: Path
) -> None:
    """Wherever in the folder they are; a file that is no image fails and stops nothing."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in ("a.png", "deep/b.png", "c.png"):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / name)
    files = [ImageContent((folder / name).read_bytes()) for name in ("a.png", "deep/b.png")]
    hashes = [HashContent(Signal.SHA256, _sha256(f.data)) for f in files]
    key = client.add_entry("spam", hashes, EDIT).entry.key
    (folder / "z.txt").write_text("not an image")
    ran = run("entry", "backfill", "spam", "--images", str(folder), "--reason", "x",
              "--server", address)  # fmt: skip
    assert ran.out.splitlines()[:2] == [
        "1 entries extended, 0 had all, 1 contents unknown, 1 failed",
        f"unknown: {folder / 'c.png'}",
    ]
    assert f"failed: {folder / 'z.txt'}" in ran.out
    assert ran.code == 3
    assert signals(client, key)[SIGHT.id] == 2


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_backfill_names_what_has_more_hits_than_it_saw(
    client: Client, address: str, run: Run, texts: Path
) -> None:
    """An entry that was cut off would be left without rows in silence."""
    client.add_entry("spam", [TextContent(A)], EDIT)
    words = ("entry", "backfill", "spam", "--texts", str(texts), "--reason", "x",
             "--server", address)  # fmt: skip
    cut = run(*words, "--hits-max", "1")
    assert cut.code == 3
    assert "failed: line 1: it has more hits than the 1 that were returned" in cut.out
    assert run(*words).code == 0
    assert all(NEW.id in signals(client, key) for key in (1, 3, 4))


def test_backfill_needs_a_rule_for_digests(
    client: Client, address: str, run: Run, texts: Path
) -> None:
    """Without one every content would be unknown."""
    set_policy(client, Policy(cosine=POLICY.cosine))
    ran = run("entry", "backfill", "spam", "--texts", str(texts), "--reason", "x",
              "--server", address)  # fmt: skip
    assert (ran.code, "has no rule for text_light_sha256" in ran.err) == (3, True)


@pytest.mark.parametrize("given", [(), ("--images", "/", "--texts", "x"), ("--texts", "/nowhere"),
                                   ("--images", "/nowhere")])  # fmt: skip
def test_a_sample_is_one_folder_or_one_file(address: str, run: Run, given: tuple[str, ...]) -> None:
    """Said before anything is sent."""
    ran = run("entry", "backfill", "spam", "--reason", "x", "--server", address, *given)
    assert ran.code == 3
    assert ran.err


# ---------------------------------------------------------------- agreement


def extended(client: Client) -> None:
    for key, text in ((1, A), (2, B), (3, C)):
        client.extend_entry("spam", key, [TextContent(text)], EDIT)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample"
    path.write_text("\n".join([LIKE_A, LIKE_B, LIKE_C, "like none of them"]), encoding="utf-8")
    return path


def test_the_two_spaces_are_compared_content_by_content(
    client: Client, address: str, run: Run, sample: Path
) -> None:
    """Each by its own thresholds alone; what differs is named with entry and cosines."""
    extended(client)
    words = ("entry", "compare-encoders", "spam", "--old", "old", "--new", NEW.id,
             "--texts", str(sample), "--server", address)  # fmt: skip
    said = json.loads(run(*words, "--json").out)
    counts = {
        name: said[name] for name in ("judged", "agree", "only_old", "only_new", "other_band")
    }
    assert counts == {"judged": 4, "agree": 2, "only_old": 1, "only_new": 0, "other_band": 1}
    assert said["table"]["REVIEW"] == {"NONE": 1, "LOG": 1, "REVIEW": 1, "BLOCK": 0}
    assert said["table"]["NONE"]["NONE"] == 1
    assert said["differing"] == [
        {
            "content": "line 2",
            "old": {"band": "REVIEW", "entry_key": 2, "cosine": pytest.approx(0.95, abs=2e-3)},
            "new": {"band": "NONE", "entry_key": None, "cosine": None},
        },
        {
            "content": "line 3",
            "old": {"band": "REVIEW", "entry_key": 3, "cosine": pytest.approx(0.95, abs=2e-3)},
            "new": {"band": "LOG", "entry_key": 3, "cosine": pytest.approx(0.8, abs=2e-3)},
        },
    ]
    assert said["share"] == 0.5
    assert said["share_low"] == pytest.approx(0.06759, abs=1e-5)
    assert said["share_high"] == pytest.approx(0.93241, abs=1e-5)
    ran = run(*words)
    assert ran.code == 0
    assert "2 of 4 agree; 1 only old, 0 only new, 1 both in different bands" in ran.out
    assert LIKE_B not in ran.out + ran.err


def test_a_cut_answer_is_named_and_not_counted(
    client: Client, address: str, run: Run, sample: Path
) -> None:
    """It may lack the very hit that one of the spaces gave."""
    extended(client)
    client.add_entry("spam", [TextContent(A)], EDIT)
    ran = run("entry", "compare-encoders", "spam", "--old", "old", "--new", "new",
              "--texts", str(sample), "--hits-max", "1", "--server", address, "--json")  # fmt: skip
    said = json.loads(ran.out)
    assert ran.code == 3
    assert said["judged"] == 3
    assert list(said["left_out"]) == ["line 1"]
    assert "more hits" in said["left_out"]["line 1"]


def test_two_spaces_with_thresholds_are_needed(address: str, run: Run, sample: Path) -> None:
    """A space without thresholds would agree with nothing, one with itself always."""
    words = ("entry", "compare-encoders", "spam", "--texts", str(sample), "--server", address)
    unknown = run(*words, "--old", "old", "--new", "nowhere")
    images = run(*words, "--old", "old", "--new", "sight")
    itself = run(*words, "--old", "old", "--new", OLD.id)
    assert [ran.code for ran in (unknown, images, itself)] == [3, 3, 3]
    assert "has no text thresholds for nowhere" in unknown.err
    assert "has no text thresholds for sight@" in images.err
    assert "give two spaces" in itself.err


def test_an_encoder_that_is_gone_is_not_taken_for_one_that_hits_nothing(
    path: Path, run: Run, sample: Path
) -> None:
    """The old space's rows are not searched: no content can be compared."""
    with served(path, BOTH) as address, Client(address) as client:
        set_policy(client, POLICY)
    with served(path, ONLY_NEW) as address:
        ran = run("entry", "compare-encoders", "spam", "--old", OLD.id, "--new", "new",
                  "--texts", str(sample), "--server", address, "--json")  # fmt: skip
    said = json.loads(ran.out)
    assert (ran.code, said["judged"], len(said["left_out"])) == (3, 0, 4)


# ---------------------------------------------------------------- afterwards


def test_a_dropped_space_costs_no_rows_and_is_still_told_of(path: Path, run: Run) -> None:
    """`status` lists it, without an encoder; whoever still has rules for it is not complete."""
    with served(path, BOTH) as address, Client(address) as client:
        set_policy(client, POLICY)
        extended(client)
    with served(path, ONLY_NEW) as address, Client(address) as client:
        spaces = {s.space: s for s in client.status().spaces}
        assert (spaces[NEW.id].rows, spaces[NEW.id].available) == (3, True)
        assert (spaces[OLD.id].rows, spaces[OLD.id].available, spaces[OLD.id].name) == (
            3,
            False,
            "",
        )
        assert not client.match(TextContent(LIKE_A)).complete
        shown = run("status", "--server", address)
        assert "(none)" in shown.out
        dropped = run("bank", "update", "spam", "--threshold", f"{OLD.id}.review=", "--threshold",
                      f"{OLD.id}.log=", "--reason", "dropped", "--server", address)  # fmt: skip
        assert dropped.code == 0, dropped.err
        result = client.match(TextContent(LIKE_A))
        assert (result.verdict, result.complete) == (Band.REVIEW, True)
        client.retract_entry("spam", 1, EDIT)
        assert {s.space: s.rows for s in client.status().spaces}[OLD.id] == 2
