"""What the system tells of processes: memory and CPU time, children included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def with_children(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text(encoding="ascii").split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield from with_children(int(child))


def anonymous_bytes(pid: int | str) -> int:
    """Of one process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return 1024 * next((int(x.split()[1]) for x in lines if x.startswith("RssAnon")), 0)


def cpu_s(pid: int) -> float:
    """User and system time of a process, its children and those of them that have ended."""
    return sum(map(_cpu_s, with_children(pid)))


def _cpu_s(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    ticks = text.rpartition(")")[2].split()[11:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
