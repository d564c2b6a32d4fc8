"""kill -9 of a server under edits, again and again: what was acknowledged is there and matches."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import numpy as np
import pytest

from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from tests.bank.workers import Worker, working
from tests.serve.conftest import EDIT
from tests.serve.ledger import BANK, Ledger

WRITERS = 3
EDITS_MAX = 40
"""Acknowledged between two kills."""

SOON_S = 0.05
WAIT_S = 60.0
WHILE_STARTING_S = 3.0
MATCHED = 300
STARTS_TAKEN_APART = 5

_IMPORT = re.compile(r"^import time: +(\d+) \|", re.MULTILINE)


@dataclass
class World:
    """A data directory that is served until the server is killed."""

    path: Path
    rng: np.random.Generator
    ledger: Ledger = field(default_factory=Ledger)
    start_s: list[float] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    slots_left: int = 0
    """Of killed servers in the reader table, as they were found."""

    @property
    def config(self) -> Path:
        return self.path / "bare.toml"

    @property
    def data(self) -> Path:
        return self.path / "data"

    def start(self) -> ServerProcess:
        begun = time.monotonic()
        server = ServerProcess(self.path, self.config)
        self.start_s.append(time.monotonic() - begun)
        return server

    def kill_under_load(self, server: ServerProcess) -> None:
        writers = [
            threading.Thread(target=self.ledger.write, args=(server.address, seed))
            for seed in self.rng.integers(1 << 32, size=WRITERS).tolist()
        ]
        for writer in writers:
            writer.start()
        enough = self.ledger.acknowledged + self.rng.integers(1, EDITS_MAX)
        deadline = time.monotonic() + WAIT_S
        while self.ledger.acknowledged < enough and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(self.rng.uniform(0, SOON_S))
        server.kill()
        for writer in writers:
            writer.join()
        self._bury(server.pid)

    def kill_while_starting(self) -> None:
        """Before it has told anybody that it serves, or soon after."""
        command = [sys.executable, "-m", "simsearch.cli", "serve", "--config", str(self.config)]
        command += ["--listen", "127.0.0.1:0", "--data-dir", str(self.data)]
        with (self.path / "server.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        time.sleep(self.rng.uniform(0, WHILE_STARTING_S))
        process.kill()
        process.wait()
        self._bury(process.pid)

    def check(self, server: ServerProcess, reader: Worker) -> None:
        """Over the wire, and by a process that has had the store open all the while."""
        with Client(server.address, deadline_s=30) as client:
            entries = self.ledger.compare(client)
            self.ledger.match(client, self.rng, MATCHED)
        _, counted, listed = map(int, reader.ask().split())
        active = sum(not item.retired for item in self.ledger.items.values())
        assert counted == listed == active <= entries
        assert self.ledger.refused == []
        assert self._slots() == 0, "a server frees those of dead ones as it starts"

    def _bury(self, pid: int) -> None:
        self.dead.add(pid)
        self.slots_left += self._slots()

    def _slots(self) -> int:
        """Of the reader table, in the hands of servers that were killed."""
        if not (self.data / "data.mdb").exists():
            return 0
        with lmdb.open(str(self.data), readonly=True, max_readers=512) as raw:
            lines = raw.readers().splitlines()
        pids = [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]
        return sum(pid in self.dead for pid in pids)


@pytest.mark.parametrize(
    "kills", [3, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])]
)
def test_a_server_that_keeps_being_killed(tmp_path: Path, kills: int) -> None:
    """Every acknowledged ban matches and every acknowledged retraction does not, as each server
    after it finds them; of the others there are at most those in flight. One kill in eight comes
    while the server starts."""
    (tmp_path / "bare.toml").write_text(
        "[encoders]\n[ban_checks]\nenabled = false\n[sandbox]\nworkers = 0\n"
    )
    world = World(tmp_path, np.random.default_rng(kills))
    world.kill_while_starting()
    server = world.start()
    with ExitStack() as undo:
        with Client(server.address) as client:
            client.create_bank(BANK, EDIT)
        reader = undo.enter_context(working("read_when_asked", world.data))
        assert reader.line() == "ready"
        killed = 1
        while killed < kills:
            world.kill_under_load(server)
            killed += 1
            if killed < kills and world.rng.random() < 1 / 8:
                world.kill_while_starting()
                killed += 1
            server = world.start()
            undo.callback(server.stop)
            world.check(server, reader)
        with Client(server.address, deadline_s=30) as client:
            world.ledger.match(client, world.rng, len(world.ledger.items))
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    ledger = world.ledger
    assert ledger.acknowledged > 3 * kills
    if kills >= 100:
        assert ledger.happened > 0, "no answer was lost: too tame"
        assert world.slots_left > 0, "no server was killed while it read: too tame"
    sys.stderr.write(
        f"{killed} kills, {ledger.acknowledged} edits acknowledged, {ledger.happened} that "
        f"were in flight, {len(ledger.items)} entries, {world.slots_left} reader slots left; start "
        f"to SERVING {statistics.median(world.start_s):.2f} s (median), "
        f"{min(world.start_s):.2f} to {max(world.start_s):.2f}\n"
    )


@pytest.mark.slow
def test_what_a_start_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bare server with a thousand entries: all of it, and what is not the import of modules
    by Python, as Python itself measures it. Told, and not bounded: it is the machine's."""
    (tmp_path / "bare.toml").write_text(
        "[encoders]\n[ban_checks]\nenabled = false\n[sandbox]\nworkers = 0\n"
    )
    world = World(tmp_path, np.random.default_rng(0))
    server = world.start()
    with Client(server.address, deadline_s=60) as client:
        client.create_bank(BANK, EDIT)
        for _ in range(1000):
            world.ledger._add(client, world.rng)
    server.kill()
    for _ in range(STARTS_TAKEN_APART):
        world.start().kill()
    log = tmp_path / "server.log"
    whole_s = statistics.median(world.start_s[1:])
    monkeypatch.setattr(os, "environ", os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    rest_s = []
    for _ in range(STARTS_TAKEN_APART):
        log.unlink()
        world.start().kill()
        imports_s = sum(map(int, _IMPORT.findall(log.read_text()))) / 1e6
        rest_s.append(world.start_s[-1] - imports_s)
    sys.stderr.write(
        f"start to SERVING {whole_s:.2f} s; without imports {statistics.median(rest_s):.2f} s "
        f"of {statistics.median(world.start_s[-STARTS_TAKEN_APART:]):.2f} s\n"
    )
    assert 0 < statistics.median(rest_s) < whole_s * 2
