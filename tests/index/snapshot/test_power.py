"""The power may go at any moment of a build: the old snapshot is served, or the new one is.

The file operations of a build are recorded and replayed up to a cut. Of what was not synced by
then, any part may be on the disk: a file whole, empty, short or with pages of zeros, and any
subset of the names that were made or changed.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from simsearch.errors import BadSnapshot, SnapshotFull
from simsearch.index.snapshot.directory import check_files
from simsearch.index.snapshot.disk import REAL_DISK, Disk
from simsearch.index.snapshot.loader import (
    SnapshotWriter,
    collect,
    current,
    open_snapshot,
    set_current,
)
from tests.index.snapshot.snapshot_worlds import (
    built_small,
    contents,
    draft,
    shard_of,
    unit,
    write_plain,
)

OLD, NEW = "old", "new"
DRAWS = 40
SECTOR_BYTES = 512

Step: TypeAlias = tuple[str, Path, Any]
Node: TypeAlias = "File | Directory"
Change: TypeAlias = "tuple[tuple[str, Node | None], ...]"
"""New names, or None for names that are gone: on the disk all together or not at all."""


# ---------------------------------------------------------------- a disk that remembers


class RecordingDisk:
    """Does everything, and writes it down. What it is not told to forget is in `steps`."""

    def __init__(self, root: Path, forget: str = "nothing") -> None:
        self.steps: list[Step] = []
        self._root = root
        self._forget = forget
        self._written: dict[Path, bytes] = {}

    def make_directory(self, path: Path) -> None:
        REAL_DISK.make_directory(path)
        self._note("make_directory", path)

    def write(self, path: Path, data: bytes) -> None:
        REAL_DISK.write(path, data)
        self._note("write", path, data)
        self._written[path] = data

    def sync_file(self, path: Path) -> None:
        """A builder's own files are first heard of here: as written just before."""
        data = path.read_bytes()
        if self._written.get(path) != data:
            self._note("write", path, data)
        self._note("sync_file", path)

    def sync_directory(self, path: Path) -> None:
        self._note("sync_directory", path)

    def rename(self, old: Path, new: Path) -> None:
        REAL_DISK.rename(old, new)
        self._note("rename", old, new.relative_to(self._root))

    def _note(self, kind: str, path: Path, what: Any = None) -> None:
        if kind != self._forget:
            self.steps.append((kind, path.relative_to(self._root), what))


@dataclass
class File:
    """`data` as programs read it, `safe` as it was synced last."""

    data: bytes
    safe: bytes = b""


@dataclass
class Directory:
    """`names` as programs see them, `safe` as they were synced last, `changes` since then."""

    names: dict[str, Node] = field(default_factory=dict)
    safe: dict[str, Node] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def at(self, path: Path) -> Any:
        node: Any = self
        for part in path.parts:
            node = node.names[part]
        return node

    def change(self, *change: tuple[str, Node | None]) -> None:
        apply(self.names, change)
        self.changes.append(change)

    def sync(self) -> None:
        self.safe = dict(self.names)
        self.changes = []

    def left(self, rng: np.random.Generator) -> dict[str, Node]:
        """Names after a power cut: those synced, and any of the changes since, in their order."""
        names = dict(self.safe)
        likely = rng.choice([0.0, 0.5, 1.0])
        for change in self.changes:
            if rng.random() < likely:
                apply(names, change)
        return names


def apply(names: dict[str, Node], change: Change) -> None:
    for name, node in change:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def on_disk(path: Path) -> Directory:
    """What stands in `path`, all of it synced."""
    found: dict[str, Node] = {
        entry.name: on_disk(entry)
        if entry.is_dir()
        else File(entry.read_bytes(), entry.read_bytes())
        for entry in path.iterdir()
    }
    return Directory(found, dict(found))


def do(root: Directory, step: Step) -> None:
    kind, path, what = step
    if kind == "sync_file":
        root.at(path).safe = root.at(path).data
    elif kind == "sync_directory":
        root.at(path).sync()
    elif kind == "make_directory":
        root.at(path.parent).change((path.name, Directory()))
    elif kind == "rename":
        assert path.parent == what.parent, "the model knows renames within one directory"
        root.at(path.parent).change((what.name, root.at(path)), (path.name, None))
    elif path.name in root.at(path.parent).names:
        root.at(path).data = what
    else:
        root.at(path.parent).change((path.name, File(what)))


def after_cut(root: Directory, target: Path, rng: np.random.Generator) -> None:
    """What a machine finds at `target` when the power is back."""
    target.mkdir()
    for name, node in root.left(rng).items():
        if isinstance(node, Directory):
            after_cut(node, target / name, rng)
        else:
            (target / name).write_bytes(torn(node, rng))


def torn(file: File, rng: np.random.Generator) -> bytes:
    data = file.data
    if data == file.safe:
        return data
    zeros = bytearray(data)
    start = int(rng.integers(len(data))) // SECTOR_BYTES * SECTOR_BYTES
    zeros[start : start + SECTOR_BYTES] = bytes(len(zeros[start : start + SECTOR_BYTES]))
    short = data[: int(rng.integers(len(data)))]
    return [data, file.safe, b"", short, bytes(zeros), bytes(len(data))][rng.integers(6)]


# ---------------------------------------------------------------- the build that is cut


@dataclass
class Recorded:
    """A build over an old generation. `published`, `served`: how many steps it took that far."""

    start: Path
    steps: list[Step]
    published: int
    served: int
    expected: dict[str, list[bytes]]

    def cuts(self, target: Path, draws: int) -> Iterator[tuple[int, Path]]:
        """The number of steps done, and a directory as it may be found then."""
        rng = np.random.default_rng(0)
        for cut in range(len(self.steps) + 1):
            root = on_disk(self.start)
            for step in self.steps[:cut]:
                do(root, step)
            for _ in range(draws):
                after_cut(root, target, rng)
                yield cut, target
                shutil.rmtree(target)

    def check(self, cut: int, snapshots: Path) -> None:
        """Exactly one of the generations is served, whole, and the right one."""
        served = current(snapshots)
        assert served in (OLD, NEW)
        assert contents(open_snapshot(snapshots / served)) == self.expected[served]
        if cut <= self.published:
            assert served == OLD
        if cut >= self.published:
            check_files(snapshots / NEW)
        if cut >= self.served:
            assert served == NEW


def recorded(tmp_path: Path, forget: str = "nothing") -> Recorded:
    snapshots = tmp_path / "snapshots"
    built_small(snapshots, OLD, seed=1)
    set_current(snapshots, OLD)
    start = shutil.copytree(snapshots, tmp_path / "start")
    disk = RecordingDisk(snapshots, forget)
    built_small(snapshots, NEW, seed=2, disk=disk)
    published = len(disk.steps)
    set_current(snapshots, NEW, disk)
    expected = {name: contents(open_snapshot(snapshots / name)) for name in (OLD, NEW)}
    return Recorded(start, disk.steps, published, len(disk.steps), expected)


def test_a_power_cut_leaves_the_old_snapshot_or_the_new_one(tmp_path: Path) -> None:
    """At every step of publishing and serving, whatever of the unsynced writes was kept; and
    what was acknowledged is kept always."""
    build = recorded(tmp_path)
    kinds = [kind for kind, _, _ in build.steps]
    assert (kinds.count("sync_file"), kinds.count("sync_directory")) == (5, 3)
    for cut, snapshots in build.cuts(tmp_path / "found", DRAWS):
        build.check(cut, snapshots)


@pytest.mark.slow
def test_many_power_cuts(tmp_path: Path) -> None:
    """The long form."""
    build = recorded(tmp_path)
    for cut, snapshots in build.cuts(tmp_path / "found", draws=1000):
        build.check(cut, snapshots)


def test_the_next_build_goes_through_after_any_power_cut(tmp_path: Path) -> None:
    """What the cut left behind is taken up, or collected, and is never in the way."""
    build = recorded(tmp_path)
    for _, snapshots in build.cuts(tmp_path / "found", draws=3):
        if not (snapshots / NEW).exists():
            built_small(snapshots, NEW, seed=2)
        set_current(snapshots, NEW)
        collect(snapshots, keep=1)
        assert sorted(path.name for path in snapshots.iterdir()) == ["CURRENT", NEW]
        build.check(build.served, snapshots)


@pytest.mark.parametrize("forgotten", ["sync_directory", "sync_file"])
def test_without_a_sync_a_power_cut_does_harm(tmp_path: Path, forgotten: str) -> None:
    """The control: were these tests blind, they would pass here too."""
    build = recorded(tmp_path, forget=forgotten)
    harmed = []
    for cut, snapshots in build.cuts(tmp_path / "found", DRAWS):
        try:
            served = current(snapshots)
            assert served is not None
            assert contents(open_snapshot(snapshots / served)) == build.expected[served]
        except BadSnapshot as fault:
            harmed.append((cut, str(fault)))
    assert harmed, "neither generation should have been left whole"


# ---------------------------------------------------------------- a disk that is full


class FullDisk:
    """Has no room from step `limit` on."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def make_directory(self, path: Path) -> None:
        self._spend()
        REAL_DISK.make_directory(path)

    def write(self, path: Path, data: bytes) -> None:
        if self._left == 0:
            REAL_DISK.write(path, data[: len(data) // 2])
        self._spend()
        REAL_DISK.write(path, data)

    def sync_file(self, path: Path) -> None:
        self._spend()

    def sync_directory(self, path: Path) -> None:
        self._spend()

    def rename(self, old: Path, new: Path) -> None:
        self._spend()
        REAL_DISK.rename(old, new)

    def _spend(self) -> None:
        if self._left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._left -= 1


def publish_new(snapshots: Path, disk: Disk) -> None:
    """As a builder does it: what fails is abandoned."""
    writer = SnapshotWriter(snapshots, NEW, disk)
    try:
        writer.publish(draft(2, (write_plain(writer, 2),), ()))
    except SnapshotFull:
        writer.abandon()
        raise


@pytest.mark.parametrize("steps", range(8))
def test_a_full_disk_while_publishing(tmp_path: Path, steps: int) -> None:
    """A named error that says what to do; the old snapshot is served, nothing else is left, and
    with room again the same build goes through."""
    built_small(tmp_path, OLD, seed=1)
    set_current(tmp_path, OLD)
    before = contents(open_snapshot(tmp_path / OLD))
    with pytest.raises(SnapshotFull, match=r"no disk space .*building-new: free some or collect"):
        publish_new(tmp_path, FullDisk(steps))
    assert current(tmp_path) == OLD
    assert contents(open_snapshot(tmp_path / OLD)) == before
    assert {path.name for path in tmp_path.iterdir()} == {"CURRENT", OLD}
    publish_new(tmp_path, REAL_DISK)


def test_a_full_disk_at_the_last_step_of_publishing(tmp_path: Path) -> None:
    """The snapshot is in place, whole, and nobody was told that it would survive a power cut."""
    with pytest.raises(SnapshotFull):
        publish_new(tmp_path, FullDisk(8))
    check_files(tmp_path / NEW)
    assert current(tmp_path) is None


@pytest.mark.parametrize("steps", range(3))
def test_a_full_disk_while_current_is_moved(tmp_path: Path, steps: int) -> None:
    """The old id stands until the rename."""
    built_small(tmp_path, OLD, seed=1)
    built_small(tmp_path, NEW, seed=2)
    set_current(tmp_path, OLD)
    with pytest.raises(SnapshotFull, match="no disk space"):
        set_current(tmp_path, NEW, FullDisk(steps))
    assert current(tmp_path) == OLD
    set_current(tmp_path, NEW)
    assert current(tmp_path) == NEW


def test_a_device_that_is_full_in_truth(tmp_path: Path) -> None:
    """numpy and FAISS would each hide the reason in a way of their own."""
    writer = SnapshotWriter(tmp_path, NEW)
    writer.path("x").symlink_to("/dev/full")
    with pytest.raises(SnapshotFull, match="no disk space"):
        writer.save_array("x", np.zeros(4, np.int64))
    with pytest.raises(SnapshotFull, match="no disk space"):
        writer.save_index("x", shard_of(unit(0, 200, 16)))
    with pytest.raises(SnapshotFull, match="no disk space"):
        writer.save_lists("x", shard_of(unit(0, 200, 16)))
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_other_faults_of_the_disk_keep_their_names(tmp_path: Path) -> None:
    """Only a full disk is SnapshotFull."""
    writer = SnapshotWriter(tmp_path, NEW)
    writer.path("x").mkdir()
    with pytest.raises(IsADirectoryError):
        writer.save_array("x", np.zeros(4, np.int64))
