"""The power may go at any moment of an edit: what was acknowledged is there, and the store whole.

Everything that a writing process asks of the disk is recorded, and replayed up to a cut. See
`power.py` for what may be left then. LMDB's order of writes and syncs is what is tried here, with
the way in which a store is created: no process that is only killed can tell, since what it wrote
outlives it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from tests.bank.lmdb import power
from tests.bank.lmdb.power import ROOT, Recording

WORKER = "tests.bank.lmdb.power_worker"
JUDGE = "tests.bank.lmdb.power_judge"
LIKELY_DIRTY = 0.9
"""Of the cuts, where something is not synced: elsewhere there is little to lose."""

_WHY_NOT = power.why_not()
pytestmark = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "strace records here")


@dataclass
class Cuts:
    """What was found after each."""

    images: int = 0
    partial: int = 0
    """Cuts while something was not synced."""
    ahead: int = 0
    """The edit in flight was there."""
    faults: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def harmed(self) -> int:
        return len(self.faults) + len(self.lost)

    def __add__(self, other: Cuts) -> Cuts:
        return Cuts(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def __str__(self) -> str:
        return (
            f"{self.images} images, {self.partial} of unsynced writes, {self.ahead} with the edit "
            f"in flight, {len(self.lost)} without an acknowledged one, {len(self.faults)} broken"
        )


class Judge:
    """Looks at one directory after another."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin, self._stdout = stdin, stdout

    def look(self, disk: Path) -> dict[str, Any]:
        self._stdin.write(f"{disk}\n")
        self._stdin.flush()
        found: dict[str, Any] = json.loads(self._stdout.readline())
        return found


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with subprocess.Popen(
        [sys.executable, "-m", JUDGE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Judge(process.stdin, process.stdout)
        process.stdin.close()


def recorded(tmp_path: Path, seed: int, edits: int, how: str = "as it is") -> Recording:
    return Recording.of(WORKER, [str(seed), str(edits), how], tmp_path / f"made-{seed}")


def cut(recording: Recording, judge: Judge, images: int, seed: int) -> Cuts:
    """Cuts at random moments, in their order; each judged by the marks before it."""
    rng = np.random.default_rng(seed)
    cuts = Cuts()
    states, dirty = _survey(recording)
    at = Counter(_moments(dirty, images, rng))
    target = Path(recording.path).parent / "found"
    for moment, disk in enumerate(recording.moments()):
        for _ in range(at[moment]):
            power.after_cut(disk.root, target, rng)
            _note(cuts, judge.look(target), [json.loads(m) for m in disk.marks], states)
            cuts.partial += disk.dirty
            shutil.rmtree(target)
    return cuts


def _survey(recording: Recording) -> tuple[dict[int, tuple[int, str]], list[bool]]:
    """(seq, state) after each edit, and of each moment whether something is not synced."""
    dirty = []
    for disk in recording.moments():
        dirty.append(disk.dirty)
    marks = [json.loads(mark) for mark in disk.marks]
    return {m["edit"]: (m["seq"], m["state"]) for m in marks if m["what"] == "done"}, dirty


def _moments(dirty: list[bool], images: int, rng: np.random.Generator) -> list[int]:
    unsynced = np.flatnonzero(dirty)
    anywhere = rng.integers(len(dirty), size=images)
    chosen = np.where(rng.random(images) < LIKELY_DIRTY, rng.choice(unsynced, images), anywhere)
    return [int(moment) for moment in chosen]


def _note(
    cuts: Cuts,
    found: dict[str, Any],
    marks: list[dict[str, Any]],
    states: dict[int, tuple[int, str]],
) -> None:
    """Exactly the state after the last edit that was acknowledged, or after the one in flight."""
    cuts.images += 1
    done = max((m["edit"] for m in marks if m["what"] == "done"), default=0)
    begun = max((m["edit"] for m in marks), default=0)
    if "fault" in found:
        cuts.faults.append(f"after edit {done}: {found['fault']}")
    elif (found["seq"], found["state"]) not in (states[done], states[begun]):
        cuts.lost.append(f"after edit {done} (seq {states[done][0]}): seq {found['seq']}")
    elif marks and found["left"]:
        cuts.faults.append(f"after its end, a creation has left {found['left']}")
    cuts.ahead += begun > done and found.get("seq") == states[begun][0]


def test_what_was_acknowledged_outlives_a_power_cut(tmp_path: Path, judge: Judge) -> None:
    """From the store's creation on: whatever was kept of what was not synced, the store opens,
    reads whole, holds every acknowledged edit and at most the one in flight beside, and takes the
    next edit."""
    recording = recorded(tmp_path, seed=1, edits=30)
    cuts = cut(recording, judge, images=60, seed=1)
    assert (cuts.faults, cuts.lost) == ([], [])
    assert cuts.partial > 40
    assert cuts.ahead > 0


@pytest.mark.parametrize(
    ("how", "share"),
    [
        ("nothing synced", 0.5),
        pytest.param("no meta page synced", 0.1, marks=pytest.mark.slow),
    ],
)
def test_without_syncs_a_power_cut_does_harm(
    tmp_path: Path, judge: Judge, how: str, share: float
) -> None:
    """The control: were the test above blind, this store would pass, too."""
    recording = recorded(tmp_path, seed=2, edits=30, how=how)
    cuts = cut(recording, judge, images=30, seed=2)
    sys.stderr.write(f"{how}: {cuts}\n")
    assert cuts.harmed > share * cuts.images


@pytest.mark.parametrize(
    "images", [20, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
def test_a_store_is_there_whole_or_not_at_all(tmp_path: Path, judge: Judge, images: int) -> None:
    """Cuts while it is created. Without the syncs of its creation, the control, some are torn."""
    whole = cut(recorded(tmp_path, 3, edits=0), judge, images, seed=3)
    torn = cut(recorded(tmp_path, 4, 0, "creation not synced"), judge, 2 * images, seed=4)
    assert (whole.faults, whole.lost) == ([], [])
    assert torn.harmed > 0
    sys.stderr.write(f"created: {whole}\nnot synced: {torn}\n")


@pytest.mark.slow
@pytest.mark.timeout(10_000)
def test_many_power_cuts(tmp_path: Path, judge: Judge) -> None:
    """The long form: 6,000 images of ten processes, which grow their maps many times."""
    total = Cuts()
    for seed in range(10, 20):
        cuts = cut(recorded(tmp_path, seed, edits=120), judge, images=600, seed=seed)
        total += cuts
        sys.stderr.write(f"{seed}: {cuts}\n")
        sys.stderr.flush()
        shutil.rmtree(tmp_path / f"made-{seed}")
    assert (total.faults, total.lost) == ([], [])
    assert total.images == 6_000
