"""Other processes at one store, steered by lines on stdin and stdout.

`python -m tests.bank.workers COMMAND PATH`; a test starts them with `working`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from simsearch.bank.store import BankStore
from simsearch.errors import BankFull, BankLocked
from tests.bank.worlds import EDIT, EXTENSION, digest_draft, large_draft, store_with_bank

ROOT = Path(__file__).parent.parent.parent


class Worker:
    """A process that runs one of the commands below."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        return _open(self.process.stdout).readline().strip()

    def ask(self, line: str = "") -> str:
        _open(self.process.stdin).write(line + "\n")
        _open(self.process.stdin).flush()
        return self.line()

    def kill(self) -> list[str]:
        """SIGKILL; returns the lines that it had written and nobody had read."""
        self.process.kill()
        rest = _open(self.process.stdout).read().splitlines()
        self.process.wait()
        return rest


@contextmanager
def working(command: str, path: Path) -> Iterator[Worker]:
    arguments = [sys.executable, "-m", "tests.bank.workers", command, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


# ---------------------------------------------------------------- commands


def hold_writer(path: Path) -> None:
    """Opens to write and stays; says why if it may not."""
    try:
        with BankStore.open(path, writer=True):
            say("ready")
            sys.stdin.readline()
    except BankLocked as error:
        say(error.message)


def add_forever(path: Path) -> None:
    """Says each key once its edit is acknowledged; `+key` once the entry is extended."""
    with BankStore.open(path, writer=True, map_bytes=1 << 18) as store:
        number = 0
        while True:
            entries = store.add_entries(
                "spam", [digest_draft(f"{number}/{n}") for n in range(1 + number % 3)], EDIT
            )
            say(" ".join(str(entry.key) for entry in entries))
            extended, _ = store.extend_entry("spam", entries[0].key, EXTENSION, EDIT)
            say(f"+{extended.key}")
            number += 1


def read_when_asked(path: Path) -> None:
    """For each line: seq, active entries as counted, active entries as listed."""
    with BankStore.open(path, writer=False) as store:
        say("ready")
        for _ in sys.stdin:
            with store.reading() as reading:
                counted = sum(bank.active_entries for bank in reading.banks())
                say(f"{reading.seq} {counted} {sum(1 for _ in reading.active_entries())}")


def hold_read(path: Path) -> None:
    """Stays inside a read transaction."""
    with BankStore.open(path, writer=False) as store:

        def stay(_: object) -> None:
            say("ready")
            time.sleep(600)

        store._environment.read(stay)


def fill_disk(path: Path) -> None:
    """Meets a file size limit, as it would meet the end of the disk, and goes on after it."""
    _meet_a_limit(path, resource.RLIMIT_FSIZE, lambda: (path / "data.mdb").stat().st_size + 2**18)


def open_without_space(path: Path) -> None:
    """Meets the end of the disk, as a limit on the size of a file, at the first file it makes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        BankStore.open(path, writer=True)
    except BankFull as error:
        say(error.message)


def fill_address_space(path: Path) -> None:
    """Meets a limit on its address space when the map must grow."""
    pages = Path("/proc/self/statm")
    _meet_a_limit(
        path,
        resource.RLIMIT_AS,
        lambda: int(pages.read_text().split()[0]) * resource.getpagesize() + 2**25,
    )


def _meet_a_limit(path: Path, limit: int, soft: Callable[[], int]) -> None:
    with store_with_bank(path, map_bytes=1 << 16) as store:
        _, hard = resource.getrlimit(limit)
        store.add_entries("spam", [large_draft(0)], EDIT)
        batches = 0
        resource.setrlimit(limit, (soft(), hard))
        try:
            while True:
                store.add_entries("spam", [large_draft(1), large_draft(2)], EDIT)
                batches += 1
        except BankFull as error:
            message = error.message
        count = len(store.list_entries("spam", limit=10_000))
        agree = count == 1 + 2 * batches == store.bank("spam").active_entries == store.seq() - 1
        resource.setrlimit(limit, (hard, hard))
        (entry,) = store.add_entries("spam", [large_draft(3)], EDIT)
        say(f"{agree} {entry.key - count} {message}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


COMMANDS: dict[str, Callable[[Path], None]] = {
    command.__name__: command
    for command in (
        hold_writer,
        add_forever,
        read_when_asked,
        hold_read,
        fill_disk,
        open_without_space,
        fill_address_space,
    )
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](Path(sys.argv[2]))
