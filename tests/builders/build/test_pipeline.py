"""From a bank to a served snapshot: nothing lost, nothing bad goes live, a kill costs little."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from index_builders.build import pipeline
from index_builders.build.pipeline import BuildOptions, build
from index_builders.build.release import publish, rollback, seal
from simsearch.errors import BadConfig, BadRequest, RecallTooLow
from simsearch.index.snapshot.loader import current
from simsearch.live import follower
from simsearch.types import (
    EntryDraft,
    Fingerprint,
    MatchOptions,
    MatchResult,
    VectorContent,
    Vectors,
)
from tests.builders.worlds import ANY, FACTORY, cloud
from tests.flows.world import EDIT, WIDE, Process, pdq, sha256


def wide(axis: int) -> VectorContent:
    return VectorContent("wide", np.eye(WIDE.dim, dtype=np.float32)[axis : axis + 1])


def fill(process: Process, rows: Vectors, bank: str = "alpha") -> None:
    drafts = [EntryDraft(Fingerprint(vectors={WIDE.id: row[np.newaxis]})) for row in rows]
    added = process.store.add_entries(bank, drafts, EDIT)
    process.wait(added[-1].added.seq)


def hits(process: Process, rows: Vectors) -> list[list[tuple[int, float | None]]]:
    """(entry key, cosine) of every hit of every row."""
    contents = [VectorContent("wide", row[np.newaxis]) for row in rows]
    outcomes = process.matcher.match(contents, MatchOptions(hits_max=100))
    results = [o for o in outcomes if isinstance(o, MatchResult)]
    assert len(results) == len(outcomes)
    return [[(h.entry_key, h.evidence[0].cosine) for h in r.hits] for r in results]


def built(process: Process, options: BuildOptions | None = None) -> str:
    """Build and serve; returns the snapshot's id."""
    snapshots = process.path / "snapshots"
    writer, draft = build(process.store, snapshots, options or BuildOptions(), lambda *_: None)
    name = seal(writer, draft).name
    publish(snapshots, name, keep=3)
    return name


def swapped(process: Process, snapshot: str, timeout_s: float = 30) -> None:
    """Wait until searches run on `snapshot`."""
    deadline = time.monotonic() + timeout_s
    while process.follower.view.snapshot != snapshot:
        assert time.monotonic() < deadline, process.follower.fault
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def quick_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "POLL_S", 0.02)


@pytest.mark.parametrize("factory", [None, FACTORY], ids=["exact", "ivf"])
def test_a_snapshot_answers_as_the_bank(tmp_path: Path, factory: str | None) -> None:
    """Swapped in under a running server, and after a restart: the same hits, to the last digit,
    with bans and retractions made before, during and after the build."""
    process = Process(tmp_path / "bank")
    process.store.create_bank("alpha", "", ANY, EDIT)
    rows = cloud(3000)
    fill(process, rows)
    process.add("alpha", VectorContent("wide", rows[:1]), pdq(2), sha256(1))
    for key in (5, 17, 99):
        process.retract("alpha", key)
    snapshot = built(process, BuildOptions(factories={"wide": factory} if factory else {}))
    for key in (6, 18):
        process.retract("alpha", key)
    fill(process, cloud(50, seed=2))
    queries = np.vstack([rows[:40], cloud(20, seed=3)])
    before = hits(process, queries)
    swapped(process, snapshot)
    assert hits(process, queries) == before
    process.close()
    process = Process(tmp_path / "bank")
    assert process.follower.view.snapshot == snapshot
    assert hits(process, queries) == before
    process.close()


def test_rollback_loses_no_edit(tmp_path: Path) -> None:
    """The older snapshot, brought up to date from the log, answers the same."""
    process = Process(tmp_path / "bank")
    process.store.create_bank("alpha", "", ANY, EDIT)
    fill(process, cloud(300))
    first = built(process)
    key = process.add("alpha", wide(5))
    process.retract("alpha", 3)
    second = built_later(process, first)
    swapped(process, second)
    queries = np.vstack([wide(5).vectors, cloud(300)[:10]]).astype(np.float32)
    before = hits(process, queries)
    assert before[0][0][0] == key
    assert rollback(tmp_path / "bank" / "snapshots") == first
    swapped(process, first)
    assert hits(process, queries) == before
    with pytest.raises(BadRequest, match="no snapshot older"):
        rollback(tmp_path / "bank" / "snapshots")
    process.close()


def built_later(process: Process, than: str) -> str:
    """Names carry the log position, so a later build of an edited bank has another name."""
    name = built(process)
    assert name > than
    return name


def test_below_the_recall_target_nothing_is_served(tmp_path: Path) -> None:
    """The build says by how much it fell short; the old snapshot stays."""
    process = Process(tmp_path / "bank")
    process.store.create_bank("alpha", "", ANY, EDIT)
    fill(process, cloud(3000))
    good = built(process, BuildOptions(factories={"wide": FACTORY}))
    process.add("alpha", wide(0))
    impossible = BuildOptions(factories={"wide": FACTORY}, recall_target=1.01)
    with pytest.raises(RecallTooLow, match="under the target"):
        built(process, impossible)
    assert current(tmp_path / "bank" / "snapshots") == good
    process.close()


def test_codes_that_describe_many_rows_badly_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they could miss would be compared one by one, in memory: not half a bank."""
    monkeypatch.setattr(pipeline, "OUTLIERS_MAX", 2)
    process = Process(tmp_path / "bank")
    process.store.create_bank("alpha", "", ANY, EDIT)
    fill(process, cloud(3000))
    with pytest.raises(RecallTooLow, match=r"PQ4x4fsr describes \d+ of 3000 rows so badly"):
        built(process, BuildOptions(factories={"wide": "IVF16,PQ4x4fsr"}))
    assert current(tmp_path / "bank" / "snapshots") is None
    process.close()


def test_a_broken_snapshot_is_refused_and_the_old_view_serves(tmp_path: Path) -> None:
    """The fault is told by name in the status, and goes away with a good snapshot."""
    process = Process(tmp_path / "bank")
    process.store.create_bank("alpha", "", ANY, EDIT)
    fill(process, cloud(300))
    snapshot = built(process)
    swapped(process, snapshot)
    process.add("alpha", wide(5))
    snapshots = tmp_path / "bank" / "snapshots"
    writer, draft = build(process.store, snapshots, BuildOptions(), lambda *_: None)
    broken = seal(writer, draft).name
    publish(snapshots, broken, keep=3)
    (snapshots / broken / "rows-0.npy").write_bytes(b"\0" * 4096)
    process.close()
    process = Process(tmp_path / "bank")
    assert process.follower.view.snapshot.startswith("bank-")
    assert process.follower.fault is not None
    assert process.follower.fault.reason == "BAD_SNAPSHOT"
    assert hits(process, wide(5).vectors)[0]
    rollback(snapshots, snapshot)
    swapped(process, snapshot)
    assert process.follower.fault is None
    process.close()


def test_a_factory_for_a_space_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """One sentence with the spaces there are; nothing is built."""
    process = Process(tmp_path / "bank")
    process.store.create_bank("alpha", "", ANY, EDIT)
    fill(process, cloud(10))
    with pytest.raises(BadConfig, match="the bank has wide, wide@"):
        built(process, BuildOptions(factories={"narrow": FACTORY}))
    process.close()
