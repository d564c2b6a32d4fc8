"""A disk that is full: one sentence, the old snapshot serves on, and the room is given back."""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_builders.build.builder_lock import LOCK_FILE
from index_builders.build.extract import NpyAppender
from index_builders.commands import builds
from index_builders.commands import snapshots as snapshot_commands
from index_builders.commands.build_options import SNAPSHOTS
from index_builders.quality import index_recall
from index_builders.report import build_report
from simsearch.bank.store import BankStore
from simsearch.errors import SnapshotFull
from simsearch.index.snapshot.loader import current, list_snapshots, open_snapshot, set_current
from simsearch.index.snapshot.writer import REPORTS
from tests.builders.worlds import add, bank, cloud

FACTORY = "IVF4,PQ16x4fsr"


@dataclass
class Room:
    """A disk on which so many things more can be done, and from then on nothing."""

    left: int = 1 << 30
    refused: list[str] = field(default_factory=list)

    def spend(self, name: str) -> None:
        self.left -= 1
        if self.left < 0:
            self.refused.append(re.sub("[0-9]+", "0", name))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Every file that is opened for writing, every write, sync and new directory of the builder."""
    room = Room()

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            room.spend(Path(str(self.name)).name)
            return super().write(data)

    def opened(path: Any, mode: str = "r", *words: Any, **named: Any) -> Any:
        if "w" not in mode:
            return real_open(path, mode, *words, **named)
        room.spend(Path(path).name)
        file = io.BufferedWriter(Raw(path, "w"))
        return file if "b" in mode else io.TextIOWrapper(file, "utf-8")

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def spending(what: Any, *words: Any) -> Any:
            path = f"/proc/self/fd/{what}"
            room.spend(Path(os.readlink(path) if isinstance(what, int) else what).name)
            return real(what, *words)

        return spending

    real_open = io.open
    monkeypatch.setattr(io, "open", opened)
    for name in ("fsync", "mkdir", "pwrite"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return room


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bank with a snapshot that is served, and entries that it does not have."""
    monkeypatch.setattr(build_report, "picture_of", lambda _: b"picture" * 9000)
    monkeypatch.setattr(index_recall, "COPIES", 16)
    monkeypatch.setattr(index_recall, "QUERIES", 16)
    path = bank(tmp_path / "bank", 200)
    builds.run(path, factory=[f"wide={FACTORY}"])
    with BankStore.open(path, writer=True) as store:
        add(store, cloud(200, seed=2))
    return path


def listing(path: Path) -> list[str]:
    """All that stands under the snapshots, but for the lock."""
    found = (p.relative_to(path / SNAPSHOTS) for p in (path / SNAPSHOTS).rglob("*"))
    return sorted(str(p) for p in found if p.name != LOCK_FILE)


def built(path: Path) -> bool:
    """False where there was no room."""
    try:
        builds.run(path, factory=[f"wide={FACTORY}"])
    except SnapshotFull:
        return False
    return True


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_wherever_the_room_ends_the_build_leaves_nothing(
    path: Path, room: Room, stride: int
) -> None:
    """At every step up to the last: SnapshotFull, and the directory is as it was. A snapshot that
    is whole and for which only CURRENT had no room stays, and the next build is served."""
    old, before = current(path / SNAPSHOTS), listing(path)
    for enough in range(0, 10_000, stride):
        room.left = enough
        if built(path) or current(path / SNAPSHOTS) != old:
            break  # the last step is the sync after CURRENT was renamed
        if room.refused[-1] in ("CURRENT.tmp", SNAPSHOTS) and listing(path) != before:
            room.left = 1 << 30
            snapshot_commands.gc(path, keep=1)
            before = listing(path)
        assert listing(path) == before, room.refused[-1]
    room.left = 1 << 30
    builds.run(path, factory=[f"wide={FACTORY}"])
    assert enough > 40
    assert current(path / SNAPSHOTS) != old
    if stride == 1:
        files = (
            "rows-0 keys-0 groups-0 trained-0 outliers-0-0 shard-0-0 build.json manifest CURRENT"
        )
        for name in [*files.split(), "bits-pdq", ".png"]:
            assert any(name in refused for refused in room.refused), name


def test_the_refusal_says_what_to_do_and_the_next_run_succeeds(path: Path, room: Room) -> None:
    """The snapshot that is served opens, before and after."""
    room.left = 30
    with pytest.raises(SnapshotFull, match="free some or collect old snapshots, then build again"):
        builds.run(path)
    old = current(path / SNAPSHOTS)
    assert old is not None
    open_snapshot(path / SNAPSHOTS / old)
    room.left = 1 << 30
    builds.run(path)
    assert {m.id for m in list_snapshots(path / SNAPSHOTS)} > {old}


@pytest.mark.parametrize("enough", range(3))
def test_a_pointer_without_room_is_not_half_there(path: Path, room: Room, enough: int) -> None:
    """Opening it, writing it and syncing it: nothing is left of any, and CURRENT is as it was."""
    before, served = listing(path), current(path / SNAPSHOTS)
    assert served is not None
    room.left = enough
    with pytest.raises(SnapshotFull):
        set_current(path / SNAPSHOTS, served)
    assert room.refused[-1] == "CURRENT.tmp"
    assert listing(path) == before


def test_a_report_without_room_is_not_half_there(path: Path, room: Room) -> None:
    """Neither its JSON file nor the picture, nor the snapshot that it is about."""
    before = listing(path)
    for enough in range(40, 200):
        room.left = enough
        with pytest.raises(SnapshotFull):
            builds.run(path)
        assert listing(path) == before
        if room.refused[-1].endswith(".png.tmp"):
            break
    assert room.refused[-1].endswith(".png.tmp")
    assert (path / SNAPSHOTS / REPORTS).is_dir()


def test_a_file_that_is_given_up_is_closed(tmp_path: Path, room: Room) -> None:
    """While it is open, its space is not given back, even when it is removed."""
    rows = NpyAppender(tmp_path / "rows.npy", (4,), "<f2")
    rows.append(np.zeros((10, 4), np.float16))
    room.left = 0
    with pytest.raises(OSError, match="No space"):
        rows.close()
    rows.drop()
    held = {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
    assert str(tmp_path / "rows.npy") not in held


# A limit on the size of files is a full disk of the system's own making.
KILOBYTES = [0, 20, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5, 9, 14, 25, 30, 60))]


@pytest.mark.parametrize("kilobytes", KILOBYTES)
def test_the_systems_own_limit(path: Path, kilobytes: int) -> None:
    """No traceback, nothing left, and with room a second run is served."""
    old, before = current(path / SNAPSHOTS), listing(path)
    command = [sys.executable, "-m", "index_builders.build_app", "run", str(path), "--factory"]

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, f"wide={FACTORY}"],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    refused = run(kilobytes << 10)
    assert refused.returncode == 7, refused.stderr
    assert "simsearch-build: no disk space" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
    assert (current(path / SNAPSHOTS), listing(path)) == (old, before)
    if kilobytes == 20:
        done = run(resource.RLIM_INFINITY)
        assert done.returncode == 0, done.stderr
        assert current(path / SNAPSHOTS) != old
