"""What the system tells of processes: memory and CPU time, children included; peers to start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PEER_START_S: Final = 30.0


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
    return _status_bytes(pid, "RssAnon")


def resident_bytes(pid: int | str) -> int:
    """Of one process, pages of mapped files included; 0 where it has ended."""
    return _status_bytes(pid, "VmRSS")


def _status_bytes(pid: int | str, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return 1024 * next((int(x.split()[1]) for x in lines if x.startswith(f"{name}:")), 0)


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


@contextmanager
def peer(module: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """Process and port of `python -m module PORT arguments` on loopback, with one OpenMP thread.

    Ends the run where it does not start.
    """
    port = _free_port()
    command = [sys.executable, "-m", module, str(port), *arguments]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        until = time.monotonic() + PEER_START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{module} did not start: install the [bench] extra")
            time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
