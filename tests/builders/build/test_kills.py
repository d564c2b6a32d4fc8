"""SIGKILL at any moment of `simsearch-build run`: what is served is whole, and of one state.

Half of the kills are drawn over the whole time of a run, half soon after the beginning of a stage
drawn from all stages: some last only milliseconds.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from index_builders.build import build_state
from index_builders.commands.build_options import SNAPSHOTS
from simsearch.bank.store import BankStore
from simsearch.index.snapshot.loader import broken_snapshots, current, list_snapshots, open_snapshot
from simsearch.index.snapshot.writer import BUILDING, REMOVING, REPORTS
from simsearch.types import Signal
from tests.builders.worlds import add, bank, cloud
from tests.flows.world import EDIT, WIDE

ROWS = 5000
SOON_S = 0.05
STAGES = (
    "starting",
    "reading the bank",
    "training",
    "filling shard-0-0",
    "filling shard-0-1",
    "filling shard-0-2",
    "comparing with exact search",
    "measuring recall",
    "hashing",
    "opening as a server would",
    "publishing",
)


@dataclass
class World:
    """A bank with a builder that keeps being killed."""

    path: Path
    rng: np.random.Generator
    run_s: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    resumed: Counter[str] = field(default_factory=Counter)
    checked: set[str] = field(default_factory=set)
    shards: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """(snapshot, file) of every finished shard that was seen, and (inode, mtime)."""

    @property
    def snapshots(self) -> Path:
        return self.path / SNAPSHOTS

    @property
    def log(self) -> Path:
        return self.path / "stages"

    # ------------------------------------------------------------ doing

    def run(self) -> subprocess.Popen[bytes]:
        self.log.unlink(missing_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "tests.builders.builder", str(self.path), str(self.log)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def finish(self) -> None:
        begun = time.monotonic()
        child = self.run()
        _, said = child.communicate(timeout=240)
        assert child.returncode == 0, said.decode()
        self.run_s = time.monotonic() - begun
        assert self.stages()[-1] == "ended"

    def kill_one(self) -> None:
        """Or let it end, where the moment drawn comes too late."""
        begun = time.monotonic()
        child = self.run()
        if self.rng.random() < 0.5:
            moment = begun + self.rng.uniform(0, self.run_s)
            self._wait(child, lambda: time.monotonic() >= moment)
        else:
            stage = str(self.rng.choice(STAGES))
            self._wait(child, lambda: any(said.startswith(stage) for said in self.stages()))
            time.sleep(SOON_S * self.rng.random() ** 4)
        child.kill()
        _, said = child.communicate()
        assert child.returncode in (0, -9), said.decode()
        stage = re.sub(r"shard-.*|IVF.*", "", (self.stages() or ["starting"])[-1]).strip()
        if child.returncode and stage != "ended":
            self.killed[stage] += 1

    def edit(self) -> None:
        with BankStore.open(self.path, writer=True) as store:
            add(store, cloud(int(self.rng.integers(1, 30)), int(self.rng.integers(1 << 30))))
            with store.reading() as reading:
                keys = [key for key, *_ in reading.active_entries()]
            for key in self.rng.choice(keys, 5, replace=False).tolist():
                store.retract_entry("alpha", key, EDIT)

    def stages(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    @staticmethod
    def _wait(child: subprocess.Popen[bytes], is_time: Callable[[], bool]) -> None:
        while child.poll() is None and not is_time():
            time.sleep(0.002)

    # ------------------------------------------------------------ looking

    def check(self) -> None:
        """What is served opens and is of one state; no shard that was finished was made again."""
        served = current(self.snapshots) if self.snapshots.exists() else None
        assert broken_snapshots(self.snapshots) == {}
        for name in {m.id for m in list_snapshots(self.snapshots)} - self.checked:
            self._check_rows(name)
            self.checked.add(name)
        if served is not None:
            open_snapshot(self.snapshots / served)
        self._check_shards()

    def _check_rows(self, name: str) -> None:
        snapshot = open_snapshot(self.snapshots / name)
        with BankStore.open(self.path, writer=False) as store, store.reading() as now:
            then = dataclasses.replace(now, seq=snapshot.manifest.built_through)
            entries = list(then.active_entries())
        wide, pdq = snapshot.spaces[WIDE.id], snapshot.signals[Signal.PDQ]
        with_bits = [(key, b, f.bits[Signal.PDQ]) for key, b, f in entries if f.bits]
        assert wide.keys.tolist() == [key for key, *_ in entries]
        assert wide.groups.tolist() == [bank_id for _, bank_id, _ in entries]
        rows = np.vstack([f.vectors[WIDE.id] for *_, f in entries])
        assert np.array_equal(wide.rows, rows.astype(np.float16))
        assert pdq.keys.tolist() == [key for key, *_ in with_bits]
        assert pdq.groups.tolist() == [b for _, b, _ in with_bits]
        assert np.array_equal(pdq.bits, np.vstack([bits for *_, bits in with_bits]))

    def _check_shards(self) -> None:
        for (name, file), before in self.shards.items():
            places = (self.snapshots / f"{BUILDING}{name}", self.snapshots / name)
            (place,) = (place for place in places if (place / file).exists())
            assert _identity(place / file) == before, f"{place / file} was made again"
            self.resumed[file] += place.name == name
        self.shards = {
            (directory.name.removeprefix(BUILDING), file): _identity(directory / file)
            for directory in self.snapshots.glob(f"{BUILDING}*")
            if (done := build_state.load(directory)) is not None
            for file in done.shards
        }

    def check_end(self) -> None:
        """One finished run later, nothing of all the dead ones is left."""
        names = {p.name for p in self.snapshots.iterdir()}
        assert not [n for n in names if n.startswith((BUILDING, REMOVING))]
        kept = {m.id for m in list_snapshots(self.snapshots)}
        assert len(kept) <= 3
        assert {p.stem for p in (self.snapshots / REPORTS).iterdir()} == kept


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


@pytest.mark.parametrize(
    "kills", [2, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
def test_a_builder_that_keeps_being_killed(tmp_path: Path, kills: int) -> None:
    """After every kill the snapshots hold exactly the rows of the states that they say, finished
    shards are taken over as they are, and the run after the last kill is served and tidy."""
    world = World(bank(tmp_path / "bank", ROWS), np.random.default_rng(kills))
    world.finish()
    while world.killed.total() < kills:
        if world.rng.random() < 0.3:
            world.edit()
        world.kill_one()
        world.check()
    world.edit()
    world.finish()
    world.check()
    assert current(world.snapshots) == list_snapshots(world.snapshots)[-1].id
    world.check_end()
    sys.stderr.write(f"killed in {dict(world.killed)}, shards taken over {dict(world.resumed)}\n")
