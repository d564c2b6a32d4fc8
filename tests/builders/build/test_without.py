"""A snapshot without a space that was dropped: built, named, resumed only as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from index_builders.build.pipeline import BuildOptions, build
from index_builders.build.release import publish, seal
from simsearch.errors import BadConfig
from simsearch.index.snapshot.loader import open_snapshot
from simsearch.live.replica import Replica
from simsearch.types import Band, MatchOptions, MatchResult, Policy
from tests.flows.test_model import RULES
from tests.flows.world import EDIT, POLICY, SPACE, WIDE, Process, vector, wide

BOTH = Policy(cosine=tuple(RULES.values()), hamming=POLICY.hamming, digests=POLICY.digests)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "bank")
    process.store.create_bank("alpha", "", BOTH, EDIT)
    process.add("alpha", vector(0))
    process.add("alpha", vector(1), wide(4))
    yield process
    process.close()


def built(process: Process, *without: str) -> Path:
    options = BuildOptions(without=frozenset(without))
    snapshots = process.path / "snapshots"
    writer, draft = build(process.store, snapshots, options, lambda *_: None)
    return seal(writer, draft)


def test_the_manifest_says_what_was_left_out(process: Process) -> None:
    """So that a server can tell a space without rows from one that was dropped."""
    opened = open_snapshot(built(process, SPACE.id))
    assert opened.manifest.without == (SPACE.id,)
    assert list(opened.spaces) == [WIDE.id]


def test_it_serves_where_the_space_is_gone_and_nowhere_else(process: Process) -> None:
    """Where it is served, the bank itself is loaded, and the fault says why."""
    path = built(process, SPACE.id)
    publish(path.parent, path.name, keep=3)
    assert path.name in (Replica.from_snapshot(process.store, path, {WIDE.id}).snapshot,)
    process.close()
    other = Process(process.path)
    assert other.follower.view.snapshot.startswith("bank-")
    assert "was built without" in str(other.follower.fault)
    outcome = other.matcher.match([vector(0)], MatchOptions())[0]
    assert isinstance(outcome, MatchResult)
    assert outcome.verdict is Band.BLOCK
    other.close()
    last = Process(process.path, ("wide",))
    assert (last.follower.view.snapshot, last.follower.fault) == (path.name, None)
    last.close()


def test_a_space_that_is_not_there_stops_the_build(process: Process) -> None:
    """By its name, with those that are there."""
    with pytest.raises(BadConfig, match=f"--without tiny: .*{SPACE.id}"):
        built(process, "tiny")
    assert built(process).is_dir()


def test_a_dead_build_is_not_taken_up_by_one_that_wants_other_spaces(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would be fewer, or more, than was asked for."""
    with monkeypatch.context() as patch:
        patch.setattr("index_builders.build.pipeline._build_space", _dies)
        with pytest.raises(KeyboardInterrupt):
            built(process, SPACE.id)
    assert open_snapshot(built(process)).manifest.without == ()


def _dies(*_: object) -> None:
    raise KeyboardInterrupt
