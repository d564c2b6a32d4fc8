"""What a build cost: no second counted twice, and memory as the system tells it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from index_builders.report.resources import STATUS, MemoryPeak, Stopwatch


def test_an_inner_stage_stops_the_clock_of_the_outer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages add up to the time that passed, and a stage may come twice."""
    clock = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0])
    with monkeypatch.context() as patched:
        patched.setattr("index_builders.report.resources.time.monotonic", lambda: next(clock))
        watch = Stopwatch()
        with watch.stage("fill"):
            with watch.stage("train"):
                pass
            with watch.stage("train"):
                pass
    assert watch.seconds == {"fill": (3 - 1) + (15 - 7) + (63 - 31), "train": (7 - 3) + (31 - 15)}


def test_the_highest_of_what_the_system_said_is_kept(tmp_path: Path) -> None:
    """In bytes, from the line in kB, and no higher line is missed at the end."""
    status = tmp_path / "status"
    status.write_text("VmRSS:\t 900 kB\nRssAnon:\t     300 kB\n")
    with MemoryPeak(status, every_s=0.001) as peak:
        status.write_text("RssAnon:\t     700 kB\n")
        deadline = time.monotonic() + 10
        while peak.bytes != 700 * 1024 and time.monotonic() < deadline:
            time.sleep(0.001)
        status.write_text("RssAnon:\t     200 kB\n")
    assert peak.bytes == 700 * 1024


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    """None, not 0."""
    with MemoryPeak(tmp_path / "nothing") as peak:
        pass
    assert peak.bytes is None


@pytest.mark.skipif(not STATUS.exists(), reason="the system does not say")
def test_memory_that_is_held_is_seen() -> None:
    """A hundred megabytes more are a hundred megabytes more."""
    with MemoryPeak(every_s=60) as before:
        pass
    held = np.ones(100 << 20, np.uint8)
    with MemoryPeak(every_s=60) as after:
        pass
    assert before.bytes is not None
    assert after.bytes is not None
    assert after.bytes - before.bytes > 0.9 * held.nbytes
