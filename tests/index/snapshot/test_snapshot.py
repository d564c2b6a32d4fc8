"""Snapshots are published whole, opened only when sound, and replaced without touching the old."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from simsearch.errors import BadRequest, BadSnapshot, BankLocked, InternalFault
from simsearch.index.snapshot.directory import CURRENT_FILE
from simsearch.index.snapshot.loader import (
    SnapshotWriter,
    SpacePart,
    broken_snapshots,
    collect,
    current,
    list_snapshots,
    open_snapshot,
    set_current,
)
from simsearch.index.snapshot.manifest import MANIFEST_FILE
from simsearch.index.snapshot.writer import BUILDING, REMOVING
from simsearch.types import Signal
from tests.index.oracle import clustered_bits
from tests.index.snapshot.snapshot_worlds import (
    FINE,
    PLAIN,
    SHARD_ROWS,
    STORE,
    built,
    built_small,
    draft,
    edit_manifest,
    shard_of,
    trained_on,
    unit,
    write_plain,
    write_space,
)


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "snapshots"


# ---------------------------------------------------------------- round trip


def test_what_was_written_is_what_is_opened(snapshots: Path) -> None:
    """Every array comes back equal, in the type promised, with the numbers of the draft."""
    snapshot = open_snapshot(built(snapshots, "one", seed=5))
    manifest = snapshot.manifest
    assert (manifest.id, manifest.store_id) == ("one", STORE)
    assert (manifest.built_through, manifest.created_us) == (105, 1_000_005)
    assert manifest.report == {"recall": 0.999}
    fine, plain = snapshot.spaces[FINE], snapshot.spaces[PLAIN]
    assert np.array_equal(fine.rows, unit(5, 400, 16).astype(np.float16))
    assert np.array_equal(plain.rows, unit(5, 40, 8).astype(np.float16))
    assert fine.keys.tolist() == [i // 2 + 1 for i in range(400)]
    assert fine.groups.tolist() == [i % 3 for i in range(400)]
    assert plain.shards == ()
    hashes = snapshot.signals[Signal.PDQ]
    assert np.array_equal(hashes.bits, clustered_bits(np.random.default_rng(5), 150))
    for rows in (fine, plain, hashes):
        assert (str(rows.keys.dtype), str(rows.groups.dtype)) == ("int64", "uint32")
        assert not rows.keys.flags.writeable
        assert not rows.groups.flags.writeable
    for mapped in (fine.rows, plain.rows, hashes.bits):
        assert isinstance(mapped, np.memmap)
        assert not mapped.flags.writeable


def test_a_shard_answers_for_its_own_stretch_of_rows(snapshots: Path) -> None:
    """Id i of a shard is row i of the stretch that comes with it, with its key and group."""
    fine = open_snapshot(built(snapshots, "one")).spaces[FINE]
    assert len(fine.shards) == 2
    assert np.array_equal(np.concatenate([s.rows for s in fine.shards]), fine.rows)
    assert np.array_equal(np.concatenate([s.keys for s in fine.shards]), fine.keys)
    assert np.array_equal(np.concatenate([s.groups for s in fine.shards]), fine.groups)
    for shard in fine.shards:
        found = shard.index.search(shard.rows.astype(np.float32), 10)[1]
        itself = [row in ids for row, ids in enumerate(found)]
        assert np.mean(itself) > 0.95
        assert len(itself) == SHARD_ROWS


def test_opening_leaves_faiss_as_it_was(snapshots: Path) -> None:
    """The limit on what a file may allocate is the process's, not the snapshot's."""
    path = built(snapshots, "one")
    before = faiss.get_deserialization_vector_byte_limit()
    try:
        faiss.set_deserialization_vector_byte_limit(1 << 35)
        open_snapshot(path)
        assert faiss.get_deserialization_vector_byte_limit() == 1 << 35
    finally:
        faiss.set_deserialization_vector_byte_limit(before)


def test_an_empty_bank_has_a_snapshot_too(snapshots: Path) -> None:
    """No rows in a part, or no part at all."""
    writer = SnapshotWriter(snapshots, "none")
    assert open_snapshot(writer.publish(draft(0, (), ()))).spaces == {}
    writer = SnapshotWriter(snapshots, "no-rows")
    part = SpacePart.named(0, PLAIN, 8, 0)
    writer.save_array(part.rows, np.empty((0, 8), np.float16))
    writer.save_array(part.keys, np.empty(0, np.int64))
    writer.save_array(part.groups, np.empty(0, np.uint32))
    assert open_snapshot(writer.publish(draft(0, (part,), ()))).spaces[PLAIN].rows.shape == (0, 8)


def test_a_mapped_snapshot_outlives_its_directory(snapshots: Path) -> None:
    """A server that still answers from it reads on after it was collected."""
    built_small(snapshots, "old", 1)
    built_small(snapshots, "new", 2)
    set_current(snapshots, "new")
    old = open_snapshot(snapshots / "old").spaces[PLAIN]
    assert collect(snapshots, keep=1) == ["old"]
    assert np.array_equal(old.rows, unit(1, 40, 8).astype(np.float16))


# ---------------------------------------------------------------- writing


def test_rows_may_come_in_chunks(snapshots: Path) -> None:
    """The file is the same as of one array."""
    writer = SnapshotWriter(snapshots, "one")
    vectors = unit(0, 10, 8).astype(np.float16)
    writer.save_array("a.npy", vectors)
    writer.save_rows("b.npy", np.float16, (10, 8), [vectors[:3], vectors[3:9], vectors[9:]])
    np.save(writer.path("c.npy"), vectors)
    assert len({writer.path(f"{name}.npy").read_bytes() for name in "abc"}) == 1


@pytest.mark.parametrize("shape", [(9, 8), (11, 8), (10, 7)])
def test_rows_that_do_not_make_up_the_array_are_refused(
    snapshots: Path, shape: tuple[int, int]
) -> None:
    """Too many, too few or of another width."""
    writer = SnapshotWriter(snapshots, "one")
    with pytest.raises(InternalFault, match=r"a\.npy was given"):
        writer.save_rows("a.npy", np.float16, shape, [np.zeros((10, 8), np.float16)])


def test_a_build_that_died_is_taken_up_again(snapshots: Path) -> None:
    """What it has written is still there, and nothing of it counts before it is published."""
    writer = SnapshotWriter(snapshots, "one")
    part = write_plain(writer, 3)
    del writer
    assert list_snapshots(snapshots) == []
    again = SnapshotWriter(snapshots, "one")
    path = again.publish(draft(3, (part,), ()))
    assert path == snapshots / "one"
    assert open_snapshot(path).manifest.built_through == 103


def test_two_builders_never_fill_one_directory(snapshots: Path) -> None:
    """The second is refused by name until the first is done; another id is free."""
    first = SnapshotWriter(snapshots, "one")
    with pytest.raises(BankLocked, match=r"another process is at work on .*building-one"):
        SnapshotWriter(snapshots, "one")
    SnapshotWriter(snapshots, "two").abandon()
    first.abandon()
    SnapshotWriter(snapshots, "one").abandon()
    assert list(snapshots.iterdir()) == []


def test_a_directory_replaced_while_it_is_locked_is_not_ours(
    snapshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on what somebody has just set aside protects nothing."""
    lock = fcntl.flock

    def slow_lock(descriptor: int, how: int) -> None:
        for path in snapshots.glob(f"{BUILDING}*"):
            path.rename(snapshots / f"{REMOVING}one")
            path.mkdir()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow_lock)
    with pytest.raises(BankLocked, match="another process is at work"):
        SnapshotWriter(snapshots, "one")


def test_nothing_stays_open_after_publishing(snapshots: Path) -> None:
    """Nor after giving up; a builder makes many snapshots in one process."""
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    kept = [SnapshotWriter(snapshots, name) for name in ("one", "two")]
    kept[0].publish(draft(0, (), ()))
    kept[1].abandon()
    assert len(list(descriptors.iterdir())) == before


def test_a_lock_ends_with_its_process(snapshots: Path) -> None:
    """A build that was killed does not keep the next one out."""
    snapshots.mkdir(parents=True)
    code = (
        "import os, pathlib, sys; from simsearch.index.snapshot.writer import SnapshotWriter;"
        "w = SnapshotWriter(pathlib.Path(sys.argv[1]), 'one'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(snapshots)], timeout=60, check=False)
    assert done.returncode == -9
    assert (snapshots / f"{BUILDING}one").is_dir()
    SnapshotWriter(snapshots, "one").abandon()


def test_an_id_is_used_once(snapshots: Path) -> None:
    """A published snapshot is never written to again."""
    writer = SnapshotWriter(snapshots, "one")
    write_plain(writer, 0)
    other = snapshots / "one"
    other.mkdir()
    with pytest.raises(BadRequest, match="there is a snapshot one"):
        writer.publish(draft(0, (), ()))
    with pytest.raises(BadRequest, match="there is a snapshot one"):
        SnapshotWriter(snapshots, "one")


@pytest.mark.parametrize(
    "snapshot_id", ["", ".", "..", "a/b", "../a", "/a", ".hidden", "a\n", "é", "CURRENT", "a" * 65]
)
def test_an_id_is_a_plain_name(snapshots: Path, snapshot_id: str) -> None:
    """It becomes a directory beside the others, and nothing else."""
    with pytest.raises(BadRequest, match="no snapshot id"):
        SnapshotWriter(snapshots, snapshot_id)
    with pytest.raises(BadRequest, match="no snapshot id"):
        set_current(snapshots, snapshot_id)
    assert not snapshots.exists()


def test_files_and_manifest_must_agree_to_be_published(snapshots: Path) -> None:
    """A file forgotten and a file too many are both named, and nothing is published."""
    writer = SnapshotWriter(snapshots, "one")
    part = write_plain(writer, 0)
    writer.path("stray.tmp").touch()
    with pytest.raises(BadSnapshot, match=r"stray\.tmp is there and not in the manifest"):
        writer.publish(draft(0, (part,), ()))
    writer.path("stray.tmp").unlink()
    writer.path(part.keys).unlink()
    with pytest.raises(BadSnapshot, match=r"keys-1\.npy was not written"):
        writer.publish(draft(0, (part,), ()))
    assert list_snapshots(snapshots) == []


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (SpacePart.named(1, PLAIN, 7, 40), "dim 7"),
        (SpacePart.named(1, PLAIN, 8, 40, factory="IVF4,PQ4"), "shards"),
        (SpacePart.named(1, PLAIN, 8, 40, score_sd=float("nan")), "not JSON compliant"),
        (SpacePart.named(1, PLAIN, np.int64(8), 40), "int64"),  # type: ignore[arg-type]
    ],
)
def test_a_draft_that_no_reader_would_take_is_not_published(
    snapshots: Path, part: SpacePart, message: str
) -> None:
    """What is written is checked by the reader before it is put in place."""
    writer = SnapshotWriter(snapshots, "one")
    write_plain(writer, 0)
    with pytest.raises(BadSnapshot, match=message):
        writer.publish(draft(0, (part,), ()))
    assert not (snapshots / "one").exists()


# ---------------------------------------------------------------- which one is served


def test_publishing_does_not_serve(snapshots: Path) -> None:
    """CURRENT moves by set_current alone, forwards and back."""
    assert current(snapshots) is None
    built_small(snapshots, "one", 1)
    assert current(snapshots) is None
    for snapshot_id in ("one", "two", "one"):
        if snapshot_id == "two":
            built_small(snapshots, "two", 2)
        set_current(snapshots, snapshot_id)
        assert current(snapshots) == snapshot_id
    assert (snapshots / CURRENT_FILE).read_text() == "one\n"
    assert {path.name for path in snapshots.iterdir()} == {"one", "two", CURRENT_FILE}


def test_only_what_verifies_is_served(snapshots: Path) -> None:
    """An id that is not there or whose files have changed leaves CURRENT as it was."""
    built_small(snapshots, "one", 1)
    set_current(snapshots, "one")
    with pytest.raises(BadSnapshot, match="absent"):
        set_current(snapshots, "absent")
    rows = built_small(snapshots, "two", 2) / "rows-1.npy"
    rows.write_bytes(rows.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BadSnapshot, match=r"two.*rows-1\.npy is not what was published"):
        set_current(snapshots, "two")
    assert current(snapshots) == "one"
    with pytest.raises(BadSnapshot, match="there is no directory"):
        set_current(snapshots / "elsewhere", "one")


@pytest.mark.parametrize(
    "said", [b"", b"one", b"\n", b"one\n\n", b"../one\n", b"\x00\xff\n", b"o\xc3\xa9\n", b"x" * 999]
)
def test_a_current_file_without_an_id_is_an_error(snapshots: Path, said: bytes) -> None:
    """And never reads as "nothing was published"."""
    built_small(snapshots, "one")
    (snapshots / CURRENT_FILE).write_bytes(said)
    with pytest.raises(BadSnapshot, match="CURRENT holds no snapshot id"):
        current(snapshots)
    with pytest.raises(BadSnapshot, match="CURRENT holds no snapshot id"):
        collect(snapshots, keep=0)
    set_current(snapshots, "one")
    assert current(snapshots) == "one"


def test_a_current_file_that_points_nowhere_is_an_error(snapshots: Path) -> None:
    """So is one that is a directory."""
    built_small(snapshots, "one")
    (snapshots / CURRENT_FILE).write_text("two\n")
    with pytest.raises(BadSnapshot, match="CURRENT names two, which is not there"):
        current(snapshots)
    (snapshots / CURRENT_FILE).unlink()
    (snapshots / CURRENT_FILE).mkdir()
    with pytest.raises(BadSnapshot, match="CURRENT cannot be read"):
        current(snapshots)


# ---------------------------------------------------------------- lists and removal


def test_snapshots_are_listed_newest_last(snapshots: Path) -> None:
    """By the time they were made; what is no snapshot is passed over."""
    assert list_snapshots(snapshots) == []
    for snapshot_id, seed in (("b", 1), ("c", 0), ("a", 2)):
        built_small(snapshots, snapshot_id, seed)
    SnapshotWriter(snapshots, "d")
    (snapshots / "notes.txt").touch()
    (snapshots / "lost+found").mkdir()
    assert [manifest.id for manifest in list_snapshots(snapshots)] == ["c", "b", "a"]
    assert broken_snapshots(snapshots) == {}


def test_a_broken_snapshot_is_listed_apart_with_its_reason(snapshots: Path) -> None:
    """One bad directory does not hide the others."""
    built_small(snapshots, "good", 0)
    (built_small(snapshots, "short", 1) / "keys-1.npy").write_bytes(b"x")
    edit_manifest(built_small(snapshots, "newer", 2), lambda m: m.update(format=3))
    (snapshots / "empty").mkdir()
    assert [manifest.id for manifest in list_snapshots(snapshots)] == ["good"]
    broken = broken_snapshots(snapshots)
    reasons = {name: fault.reason for name, fault in broken.items()}
    assert reasons == {
        "short": "BAD_SNAPSHOT",
        "newer": "NEWER_FORMAT",
        "empty": "BAD_SNAPSHOT",
    }
    assert "keys-1.npy has 1 bytes" in str(broken["short"])


def test_collecting_keeps_the_served_and_the_newest(snapshots: Path) -> None:
    """Whatever their order; and what dead builds and removals left goes too."""
    for seed, snapshot_id in enumerate("abcde"):
        built_small(snapshots, snapshot_id, seed)
    set_current(snapshots, "b")
    SnapshotWriter(snapshots, "dead").path("x").touch()
    alive = SnapshotWriter(snapshots, "alive")
    (snapshots / f"{REMOVING}z").mkdir()
    (snapshots / "CURRENT.tmp").touch()
    assert collect(snapshots, keep=2) == ["a", "c", f"{BUILDING}dead"]
    left = {path.name for path in snapshots.iterdir()}
    assert left == {"b", "d", "e", CURRENT_FILE, f"{BUILDING}alive"}
    assert current(snapshots) == "b"
    alive.abandon()
    assert collect(snapshots, keep=0) == ["d", "e"]
    assert collect(snapshots, keep=0) == []


def test_collecting_knows_what_is_not_its_to_remove(snapshots: Path) -> None:
    """Broken snapshots go; those of a newer release, other directories and the served stay."""
    (built_small(snapshots, "served", 0) / MANIFEST_FILE).write_text("{}")
    (snapshots / CURRENT_FILE).write_text("served\n")
    (built_small(snapshots, "broken", 1) / MANIFEST_FILE).write_text("{}")
    edit_manifest(built_small(snapshots, "newer", 2), lambda m: m.update(format=3))
    (snapshots / "photos").mkdir()
    assert collect(snapshots, keep=0) == ["broken"]
    assert {p.name for p in snapshots.iterdir()} == {"served", "newer", "photos", CURRENT_FILE}


def test_collecting_where_there_is_nothing(snapshots: Path) -> None:
    """No directory: nothing to remove. A negative number to keep is a mistake."""
    assert collect(snapshots, keep=3) == []
    with pytest.raises(BadRequest, match="cannot keep -1"):
        collect(snapshots, keep=-1)


def test_nobody_collects_while_current_is_moved(snapshots: Path) -> None:
    """Else the snapshot just chosen could be removed before it is served."""
    built_small(snapshots, "one")
    descriptor = os.open(snapshots, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for move in (lambda: set_current(snapshots, "one"), lambda: collect(snapshots, keep=0)):
            with pytest.raises(BankLocked, match="another process is at work"):
                move()
    finally:
        os.close(descriptor)
    set_current(snapshots, "one")


def test_the_manifest_is_json_that_people_can_read(snapshots: Path) -> None:
    """One line a value, with the file names in it."""
    text = (built(snapshots, "one") / MANIFEST_FILE).read_text()
    document = json.loads(text)
    assert document["spaces"][0]["shards"] == ["shard-0-0.npy", "shard-0-1.npy"]
    assert document["files"]["bits-pdq.npy"]["bytes"] == 128 + 150 * 32
    assert '\n "built_through": 100,\n' in text


def test_a_snapshot_of_few_rows_for_its_codebooks_can_be_opened(tmp_path: Path) -> None:
    """FAISS counts a table of centres by codebooks against the limit on what a file may hold,
    though it is never made: it was larger than a whole shard of some 60,000 rows."""
    writer = SnapshotWriter(tmp_path, "few")
    vectors = unit(5, 300, 16)
    factory = "IVF128,PQ16x4fs"
    part = SpacePart.named(0, FINE, 16, 300, factory=factory, outlier_counts=(0,), nprobe=8)
    write_space(writer, part, vectors)
    begun = trained_on(vectors, factory)
    writer.save_index(part.trained, begun)
    writer.save_lists(part.shards[0], shard_of(vectors, begun_with=begun))
    writer.save_array(part.outliers[0], np.empty(0, np.int64))
    path = writer.publish(draft(0, (part,), ()))
    assert (path / part.trained).stat().st_size < 128 * 16 * 16 * 4
    for _ in range(3):
        assert open_snapshot(path).spaces[FINE].trained is not None
