"""The follower: what is acknowledged becomes searchable, whoever wrote it, whatever fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from simsearch.errors import Corrupt, NotReady
from simsearch.live import follower as module
from simsearch.live import replica
from simsearch.live.follower import Follower
from simsearch.types import (
    Band,
    Decision,
    Edit,
    FourEyes,
    MatchOptions,
    MatchResult,
    OpinionDraft,
    OpinionKind,
)
from tests.flows.world import EDIT, POLICY, SPACE, Process, pdq, sha256, vector


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "bank")
    _, change = process.store.create_bank("alpha", "", POLICY, EDIT)
    process.wait(change.seq)
    yield process
    process.close()


def verdict(process: Process, number: int) -> Band:
    outcome = process.matcher.match([vector(number)], MatchOptions())[0]
    assert isinstance(outcome, MatchResult)
    return outcome.verdict


def test_an_edit_is_matchable_without_a_restart(process: Process) -> None:
    """Once the follower has reached an edit's seq, searches answer with it."""
    assert verdict(process, 0) is Band.NONE
    key = process.add("alpha", vector(0))
    assert verdict(process, 0) is Band.BLOCK
    process.retract("alpha", key)
    assert verdict(process, 0) is Band.NONE


def test_a_proposal_passes_through_and_is_matched_once_approved(process: Process) -> None:
    """What is only said in the log changes no view; what is done by it does."""
    before = verdict(process, 0)
    store, other = process.store, Edit("bob", "seen")
    store.update_bank("alpha", EDIT, four_eyes=FourEyes.REQUIRED)
    key = process.add("alpha", vector(0))
    process.wait(store.seq())
    assert (before, verdict(process, 0)) == (Band.NONE, Band.NONE)
    store.decide(1, Decision.APPROVE, other)
    process.wait(store.seq())
    assert verdict(process, 0) is Band.BLOCK
    _, change = store.retract_entry("alpha", key, EDIT)
    process.wait(change.seq)
    assert verdict(process, 0) is Band.BLOCK
    store.decide(2, Decision.REJECT, other)
    process.wait(store.seq())
    assert verdict(process, 0) is Band.BLOCK


def test_a_view_never_changes(process: Process) -> None:
    """A search that holds a view sees neither later bans nor later retractions."""
    first = process.add("alpha", vector(0), sha256(0))
    held = process.follower.view
    process.retract("alpha", first)
    process.add("alpha", vector(0), sha256(0))
    rows = held.cosine(SPACE.id)
    assert rows is not None
    assert rows.search(vector(0).vectors, {1: 0.9}).key.tolist() == [first]
    assert [key for key, _ in held.find_digests([(sha256(0).signal, sha256(0).value)])[0]] == [
        first
    ]


def test_a_restart_answers_as_before(tmp_path: Path) -> None:
    """Loading the bank gives the same hits as following its log did."""
    process = Process(tmp_path / "bank")
    process.store.create_bank("alpha", "", POLICY, EDIT)
    keys = [process.add("alpha", vector(n % 6), pdq(n % 4)) for n in range(12)]
    for key in keys[::3]:
        process.retract("alpha", key)
    before = process.matcher.match([vector(1), pdq(1)], MatchOptions(hits_max=100))
    process.close()
    process = Process(tmp_path / "bank")
    after = process.matcher.match([vector(1), pdq(1)], MatchOptions(hits_max=100))
    process.close()
    assert [r.hits for r in before if isinstance(r, MatchResult)] == [
        r.hits for r in after if isinstance(r, MatchResult)
    ]


def test_there_is_no_view_before_it_is_loaded(process: Process) -> None:
    """A half-loaded index refuses by name; it never answers "no match"."""
    with pytest.raises(NotReady):
        _ = Follower(process.store, process.path / "snapshots").view


def test_waiting_is_bounded(process: Process) -> None:
    """Waiting for a change that is not there ends, and says that it was not seen."""
    assert not process.follower.wait_for(process.store.seq() + 1, timeout_s=0.01)


def test_a_fault_is_told_and_mended(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that fails leaves the old view, names the fault, and is tried again from the bank."""
    monkeypatch.setattr(module, "POLL_S", 0.01)
    process.add("alpha", vector(0))
    broken = threading.Event()
    whole = replica._added

    def fails_once(*arguments: object) -> object:
        if not broken.is_set():
            broken.set()
            raise Corrupt("entry 2 does not read back: restore the bank from its copy")
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(replica, "_added", fails_once)
    process.add("alpha", vector(4))
    assert broken.is_set()
    assert verdict(process, 0) is Band.BLOCK
    assert verdict(process, 4) is Band.BLOCK


def test_nothing_is_counted_twice_after_a_fault(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were appended when the step failed are not appended a second time."""
    monkeypatch.setattr(module, "POLL_S", 0.01)
    process.add("alpha", vector(0))
    broken = threading.Event()
    whole = Follower._publish

    def fails_once(self: Follower, *arguments: object, **named: object) -> None:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("not one of ours")
        whole(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Follower, "_publish", fails_once)
    key = process.add("alpha", vector(4))
    rows = process.follower.view.cosine(SPACE.id)
    assert rows is not None
    assert rows.search(vector(4).vectors, {1: 0.9}).key.tolist() == [key]
    assert len(rows) == 2


def test_an_opinion_moves_the_view_on_and_nothing_in_it(process: Process) -> None:
    """A change that says nothing about rows passes through: the next edit is seen as ever."""
    key = process.add("alpha", vector(0))
    for number in range(3):
        said = OpinionDraft(OpinionKind.FALSE_POSITIVE)
        given = process.store.give_opinion(
            "alpha", key, said, Edit(f"p{number}", "looked"), disputes_max=3
        )
        seq = (given.disputed or given.opinion.change).seq
        process.wait(seq)
        assert process.follower.view.seq == seq
        assert verdict(process, 0) is (Band.REVIEW if given.disputed else Band.BLOCK)
    assert process.follower.fault is None
    process.add("alpha", vector(1))
    assert verdict(process, 1) is Band.BLOCK
    process.retract("alpha", key)
    assert verdict(process, 0) is Band.REVIEW  # by the other one
