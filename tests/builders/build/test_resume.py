"""What a dead build leaves is used where it is what is wanted, and never taken for another."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index_builders.build import build_state, pipeline
from index_builders.build.builder_lock import LOCK_FILE, only_builder
from index_builders.build.pipeline import BuildOptions
from index_builders.build.release import seal
from index_builders.commands import builds
from index_builders.commands import snapshots as snapshot_commands
from index_builders.commands.build_options import SNAPSHOTS
from index_builders.quality import index_recall
from index_builders.report import build_report
from index_builders.report.progress import silent
from simsearch.bank.store import BankStore
from simsearch.errors import BankLocked, RecallTooLow
from simsearch.index.ivf import train
from simsearch.index.snapshot.disk import RealDisk
from simsearch.index.snapshot.loader import current, list_snapshots
from simsearch.index.snapshot.writer import BUILDING, REMOVING
from simsearch.types import EntryDraft, Fingerprint
from tests.builders.worlds import FACTORY, add, bank, cloud
from tests.flows.world import EDIT, SPACE

OTHER = "IVF8,PQ8x4fs"


class Killed(Exception):
    """What stands here for a kill: the build stops, and nobody cleans up."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards of a few hundred rows, and no time for pictures or many questions."""
    monkeypatch.setattr("simsearch.index.ivf.plan.SHARD_ROWS_MAX", 300)
    monkeypatch.setattr(index_recall, "COPIES", 64)
    monkeypatch.setattr(index_recall, "QUERIES", 32)
    monkeypatch.setattr(build_report, "picture_of", lambda _: b"picture")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return bank(tmp_path / "bank", 900)


@pytest.fixture
def store(path: Path) -> Iterator[BankStore]:
    with BankStore.open(path, writer=True) as opened:
        yield opened


@dataclasses.dataclass
class Fills:
    """Counts how many shards were filled, and kills before one."""

    kill_before: int = 99
    done: int = 0


@pytest.fixture
def fills(monkeypatch: pytest.MonkeyPatch) -> Fills:
    counted, fill = Fills(), train.fill

    def counting(*words: object) -> object:
        if len(words) == 4:  # with progress: not the sample of the report
            if counted.done == counted.kill_before:
                raise Killed
            counted.done += 1
        return fill(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "fill", counting)
    return counted


def options(factory: str = FACTORY, recall: float = 0.99) -> BuildOptions:
    return BuildOptions(recall, {"wide": factory})


def kill_one(store: BankStore, path: Path, fills: Fills, wanted: BuildOptions) -> Path:
    """A build that dies with two of its three shards; returns its directory."""
    fills.kill_before = fills.done + 2
    with pytest.raises(Killed):
        pipeline.build(store, path / SNAPSHOTS, wanted, silent)
    fills.kill_before, fills.done = 99, 0
    (directory,) = (path / SNAPSHOTS).glob(f"{BUILDING}*")
    return directory


def finish(store: BankStore, path: Path, wanted: BuildOptions) -> str:
    writer, draft = pipeline.build(store, path / SNAPSHOTS, wanted, silent)
    return seal(writer, draft).name


def served(path: Path) -> str | None:
    return current(path / SNAPSHOTS)


def dead(path: Path) -> list[str]:
    snapshots = path / SNAPSHOTS
    return [p.name for kind in (BUILDING, REMOVING) for p in snapshots.glob(f"{kind}*")]


def of_shards(directory: Path) -> list[Path]:
    return [p for p in directory.iterdir() if p.name.startswith(("shard-", "trained-"))]


def test_the_same_build_goes_on_where_it_stopped(
    store: BankStore, path: Path, fills: Fills
) -> None:
    """Finished shards are the same files; another recall target does not touch them."""
    directory = kill_one(store, path, fills, options())
    before = {p.name: p.stat().st_mtime_ns for p in of_shards(directory)}
    assert set(before) == {"trained-0.faiss", "shard-0-0.npy", "shard-0-1.npy"}
    name = finish(store, path, options(recall=0.9))
    assert directory.name == f"{BUILDING}{name}"
    after = {p.name: p.stat().st_mtime_ns for p in of_shards(path / SNAPSHOTS / name)}
    assert {file: after[file] for file in before} == before
    assert fills.done == 1
    assert dead(path) == []


def test_a_build_that_dies_while_its_files_are_hashed_goes_on(
    store: BankStore, path: Path, fills: Fills
) -> None:
    """Hashing reads all that was built: long enough to be killed in."""

    def killed(what: str, done: int, total: int, unit: str = "") -> None:
        if what == "hashing" and done:
            raise Killed

    writer, draft = pipeline.build(store, path / SNAPSHOTS, options(), silent)
    with pytest.raises(Killed):
        seal(writer, draft, killed)
    del writer
    fills.done = 0
    finish(store, path, options())
    assert fills.done == 0


def test_files_are_on_the_disk_before_the_state_that_speaks_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, a state would vouch for files that are empty."""
    (tmp_path / "shard-0-0.npy").write_bytes(b"shard")
    (tmp_path / "outliers-0-0.npy").write_bytes(b"outliers")
    synced = []

    class Noting(RealDisk):
        def sync_file(self, path: Path) -> None:
            assert not (tmp_path / build_state.STATE_FILE).exists()
            synced.append(path.name)

    monkeypatch.setattr(build_state, "REAL_DISK", Noting())
    build_state.save(build_state.BuildState("id", 1, (), ()), tmp_path)
    assert sorted(synced) == ["outliers-0-0.npy", "shard-0-0.npy"]
    assert (tmp_path / build_state.STATE_FILE).exists()


def test_a_state_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the last moment the one before it stands."""
    first = build_state.BuildState("id", 1, (), ())
    build_state.save(first, tmp_path)

    def killed(*_: Path) -> None:
        raise Killed

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        build_state.save(first.with_shard("shard-0-0.npy"), tmp_path)
    assert build_state.load(tmp_path) == first


def test_half_a_removal_is_no_dead_build(
    store: BankStore, path: Path, fills: Fills, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that still stands while the files it speaks of are gone would be believed."""
    directory = kill_one(store, path, fills, options())
    done = build_state.load(directory)
    assert done is not None
    build_state.save(dataclasses.replace(done, store_id="another"), directory)

    def killed(path: Path, **_: bool) -> None:
        if path.exists():
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("simsearch.index.snapshot.writer.shutil.rmtree", killed)
        with pytest.raises(Killed):
            pipeline.build(store, path / SNAPSHOTS, options(), silent)
    assert list((path / SNAPSHOTS).glob(f"{BUILDING}*")) == []
    snapshot_commands.gc(path, keep=1)
    assert dead(path) == []


def test_shards_of_another_factory_are_made_again(
    store: BankStore, path: Path, fills: Fills
) -> None:
    """All of them, the training too; the gathered rows serve again."""
    directory = kill_one(store, path, fills, options())
    rows = (directory / "rows-0.npy").stat().st_ino
    name = finish(store, path, options(OTHER))
    assert fills.done == 3
    assert (path / SNAPSHOTS / name / "rows-0.npy").stat().st_ino == rows
    (part,) = list_snapshots(path / SNAPSHOTS)[0].spaces
    assert part.factory == OTHER


def test_shards_that_are_no_longer_wanted_are_removed(
    store: BankStore, path: Path, fills: Fills
) -> None:
    """An exact part has none, and a snapshot admits no file that it does not name."""
    kill_one(store, path, fills, options())
    name = finish(store, path, options("Flat"))
    assert list(of_shards(path / SNAPSHOTS / name)) == []


def test_a_change_of_factory_that_is_killed_leaves_no_old_shard(
    store: BankStore, path: Path, fills: Fills, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it dies before the old shards are gone or after."""
    directory = kill_one(store, path, fills, options())
    save = build_state.save
    for dies_at in (1, 2):
        steps = iter(range(1, 99))

        def dying(
            done: build_state.BuildState,
            at: Path,
            steps: Iterator[int] = steps,
            last: int = dies_at,
        ) -> None:
            if next(steps) == last:
                raise Killed
            save(done, at)

        monkeypatch.setattr(build_state, "save", dying)
        with pytest.raises(Killed):
            pipeline.build(store, path / SNAPSHOTS, options(OTHER), silent)
    monkeypatch.setattr(build_state, "save", save)
    assert finish(store, path, options(OTHER)) == directory.name.removeprefix(BUILDING)
    assert fills.done == 3


def test_another_release_begins_anew(
    store: BankStore, path: Path, fills: Fills, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may mean something else by the same files; the old ones are removed."""
    kill_one(store, path, fills, options())
    with monkeypatch.context() as patched:
        patched.setattr("index_builders.build.build_state.RELEASE", "99.0")
        pipeline.build(store, path / SNAPSHOTS, options(), silent)
    assert fills.done == 3


@pytest.mark.parametrize("damage", ["", "{", '{"release": 1}'])
def test_a_build_without_a_sound_state_is_removed(
    store: BankStore, path: Path, fills: Fills, damage: str
) -> None:
    """Half a gathering is worth nothing, and would keep its disk space for ever."""
    directory = kill_one(store, path, fills, options())
    left = directory.rename(directory.with_name(f"{BUILDING}000000000001-20200101T000000"))
    (left / build_state.STATE_FILE).write_text(damage)
    finish(store, path, options())
    assert fills.done == 3
    assert dead(path) == []


def test_a_build_behind_what_is_served_is_removed(
    store: BankStore, path: Path, fills: Fills
) -> None:
    """It would take back what a newer snapshot has."""
    directory = kill_one(store, path, fills, options())
    aside = directory.rename(path / "aside")
    add(store, cloud(50, seed=5))
    snapshot_commands.publish(path, finish(store, path, options()))
    aside.rename(directory)
    fills.done = 0
    assert finish(store, path, options()) > directory.name.removeprefix(BUILDING)
    assert not directory.exists()


def test_a_build_ahead_of_the_bank_is_removed(store: BankStore, path: Path, fills: Fills) -> None:
    """The bank was put back from a copy: those rows are not of its history."""
    directory = kill_one(store, path, fills, options())
    done = build_state.load(directory)
    assert done is not None
    build_state.save(dataclasses.replace(done, built_through=done.built_through + 1), directory)
    finish(store, path, options())
    assert fills.done == 3


def test_a_build_of_another_bank_is_removed(store: BankStore, path: Path, fills: Fills) -> None:
    """Its rows are not this bank's."""
    directory = kill_one(store, path, fills, options())
    done = build_state.load(directory)
    assert done is not None
    build_state.save(dataclasses.replace(done, store_id="another"), directory)
    finish(store, path, options())
    assert fills.done == 3


def test_a_build_that_lacks_a_space_that_is_asked_for_begins_anew(
    store: BankStore, path: Path, fills: Fills
) -> None:
    """The option is right for the bank of today; the dead build's rows are of yesterday."""
    kill_one(store, path, fills, options())
    row = np.eye(1, 4, dtype=np.float32)
    store.add_entries("alpha", [EntryDraft(Fingerprint(vectors={SPACE.id: row}))], EDIT)
    wanted = BuildOptions(0.9, {"wide": FACTORY, "tiny": "Flat"})
    finish(store, path, wanted)
    (manifest,) = list_snapshots(path / SNAPSHOTS)
    assert {part.space for part in manifest.spaces} >= {SPACE.id}


def test_what_was_refused_is_not_refused_for_ever(
    store: BankStore, path: Path, fills: Fills
) -> None:
    """The same order begins with the bank as it is now; a lower target takes the shards as they
    are."""
    for _ in range(2):
        fills.done = 0
        with pytest.raises(RecallTooLow):
            pipeline.build(store, path / SNAPSHOTS, options(recall=1.01), silent)
        assert fills.done >= 3
        add(store, cloud(1, seed=7))
    fills.done = 0
    finish(store, path, options(recall=0.9))
    assert fills.done == 0
    assert dead(path) == []


# ---------------------------------------------------------------- one at a time


def test_a_second_builder_is_refused_by_name(path: Path) -> None:
    """With the process that is at work; when that one is done, or dead, the next may build."""
    snapshots = path / SNAPSHOTS
    holding = (
        "import sys; from pathlib import Path\n"
        "from index_builders.build.builder_lock import only_builder\n"
        f"with only_builder(Path({str(snapshots)!r})): print('in', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout is not None
    assert first.stdout.readline() == b"in\n"
    with pytest.raises(BankLocked, match=f"process {first.pid} is building in"):
        builds.run(path)
    assert {p.name for p in snapshots.iterdir()} == {LOCK_FILE}
    first.kill()
    first.communicate()
    builds.run(path)
    assert served(path) is not None


def test_a_builder_that_failed_lets_the_next_one_in(path: Path) -> None:
    """Within one process too."""
    snapshots = path / SNAPSHOTS
    with pytest.raises(Killed), only_builder(snapshots):
        raise Killed
    with only_builder(snapshots), pytest.raises(BankLocked), only_builder(snapshots):
        pass
