"""Two servers of the same banks, restarted in turn under load: their callers notice nothing."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest

from simsearch.bank.store import BankStore
from simsearch.client.calls.rpcs import RPCS
from simsearch.client.transport.service_config import (
    KEEPALIVE_S,
    KEEPALIVE_TIMEOUT_S,
    RetryPolicy,
    channel_options,
)
from simsearch.errors import SimsearchError, Unreachable
from simsearch.types import (
    Band,
    EntryDraft,
    Fingerprint,
    HammingRule,
    HashContent,
    MatchResult,
    Policy,
    Signal,
)
from tests.client.flavours import Awaited, Blocking, Either, opener
from tests.serve.conftest import EDIT
from tests.serve.fake_process import free_port

BANNED = HashContent(Signal.PDQ, b"\x96" * 32)
OTHER = HashContent(Signal.PDQ, b"\x69" * 32)
THREADS = 4
ROUNDS = 5
STREAMED = 64
CALLS_BETWEEN = 50
PAUSE_S = 0.005
"""Of a thread between two calls: the servers are to have time to start."""
START_S = 60.0


class Server:
    """`simsearch serve` without encoders on one address, which it keeps."""

    def __init__(self, directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it serves."""
        command = [sys.executable, "-m", "simsearch.cli", "serve", "--json"]
        command += ["--listen", self.address, "--data-dir", str(self._directory / "data")]
        command += ["--config", str(self._directory.parent / "bare.toml")]
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        timer = threading.Timer(START_S, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        assert line, self.log
        assert json.loads(line)["listening"] == self.address

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.terminate()
        status = self._process.wait(START_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status

    def send(self, signal_number: int) -> None:
        assert self._process is not None
        self._process.send_signal(signal_number)

    @property
    def log(self) -> str:
        return (self._directory / "server.log").read_text()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    """Both with a copy of one data directory."""
    (tmp_path / "bare.toml").write_text(
        "[encoders]\n[ban_checks]\nenabled = false\n[sandbox]\nworkers = 0\n"
    )
    first, second = tmp_path / "first", tmp_path / "second"
    with BankStore.open(first / "data", writer=True) as store:
        store.create_bank("alpha", "", Policy(hamming=(HammingRule(Signal.PDQ, block=31),)), EDIT)
        print_ = Fingerprint(bits={Signal.PDQ: np.frombuffer(BANNED.value, np.uint8)[None]})
        store.add_entries("alpha", [EntryDraft(print_)], EDIT)
    shutil.copytree(first, second)
    both = [Server(first), Server(second)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Server.start, both))
        yield both
        list(pool.map(Server.stop, both))


@dataclass
class Load:
    """Threads that ask all the time, and how their calls ended: "right" is wanted."""

    client: Either
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(THREADS + 1) as pool:
            threads = [pool.submit(self._match) for _ in range(THREADS)]
            threads.append(pool.submit(self._stream))
            try:
                yield
            finally:
                self._stopping.set()
        for thread in threads:
            thread.result()

    def wait_for_more(self, calls: int) -> None:
        wanted = self.outcomes.total() + calls
        deadline = time.monotonic() + START_S
        while self.outcomes.total() < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _match(self) -> None:
        for content in itertools.cycle((BANNED, OTHER)):
            if self._stopping.wait(PAUSE_S):
                return
            begun = time.monotonic()
            try:
                outcome: MatchResult | SimsearchError = self.client.match(content)
            except SimsearchError as error:
                outcome = error
            self._count(content, outcome, time.monotonic() - begun)

    def _stream(self) -> None:
        contents = [BANNED, OTHER] * (STREAMED // 2)
        while not self._stopping.wait(PAUSE_S):
            begun = time.monotonic()
            try:
                found = sorted(self.client.inner.stream(contents), key=lambda answer: answer[0])
            except SimsearchError as error:
                self._count(BANNED, error, time.monotonic() - begun)
                continue
            assert [number for number, _ in found] == list(range(STREAMED))
            for number, outcome in found:
                self._count(contents[number], outcome, 0.0)

    def _count(
        self, content: HashContent, outcome: MatchResult | SimsearchError, took_s: float
    ) -> None:
        wanted = Band.BLOCK if content is BANNED else Band.NONE
        with self._lock:
            self.slowest_s = max(self.slowest_s, took_s)
            self.outcomes[_words(outcome, wanted)] += 1


def _words(outcome: MatchResult | SimsearchError, wanted: Band) -> str:
    if isinstance(outcome, SimsearchError):
        return f"{outcome.reason}: {outcome.message}"
    return "right" if outcome.complete and outcome.verdict is wanted else "wrong"


@pytest.mark.slow
@pytest.mark.parametrize("flavour", [Blocking, Awaited], ids=["threads", "asyncio"])
def test_a_rolling_restart_fails_no_call(
    servers: list[Server],
    flavour: type[Blocking | Awaited],
    record_property: Callable[[str, object], None],
) -> None:
    """Each is stopped and started once the other one serves; every answer is right, and both end
    with status 0."""
    with opener(flavour)([server.address for server in servers]) as client:
        load = Load(client)
        with load.running():
            load.wait_for_more(CALLS_BETWEEN)
            for server in servers * ROUNDS:
                assert server.stop() == 0
                server.start()
                load.wait_for_more(CALLS_BETWEEN)
        record_property("calls", load.outcomes.total())
        record_property("slowest_s", load.slowest_s)
    assert set(load.outcomes) == {"right"}, load.outcomes
    assert all("Traceback" not in server.log for server in servers)


HASTY_S = 2.0
WATCHED_S = 30.0
LEFT_OUT_S = KEEPALIVE_S + KEEPALIVE_TIMEOUT_S + 2.0


@pytest.mark.slow
@pytest.mark.parametrize("flavour", [Blocking, Awaited], ids=["threads", "asyncio"])
def test_a_server_that_hangs_is_left_out(
    servers: list[Server],
    flavour: type[Blocking | Awaited],
    record_property: Callable[[str, object], None],
) -> None:
    """It takes connections and calls and answers none (SIGSTOP). After 15 s, or a little more on a
    busy machine, it gets no calls. Those that wait that long are answered by the other one; hasty
    ones fail until then, one after the other."""
    addresses = [server.address for server in servers]
    with (
        opener(flavour)(addresses, autobatch=False) as patient,
        opener(flavour)(addresses, autobatch=False) as hasty,
        ThreadPoolExecutor(2) as pool,
    ):
        for client in (patient, hasty):
            for _ in range(20):
                client.match(BANNED)
        servers[0].send(signal.SIGSTOP)
        watched = [pool.submit(_failures, patient, 30.0), pool.submit(_failures, hasty, HASTY_S)]
        try:
            of_patient, of_hasty = (future.result() for future in watched)
        finally:
            servers[0].send(signal.SIGCONT)
    record_property("failed_at_s", of_hasty)
    assert of_patient == []
    assert 0 < len(of_hasty) <= math.ceil(LEFT_OUT_S / HASTY_S)
    assert max(of_hasty) < LEFT_OUT_S + HASTY_S


def _failures(client: Either, deadline_s: float) -> list[float]:
    """Of calls one after the other: when they failed, in seconds."""
    failed, begun = [], time.monotonic()
    while time.monotonic() - begun < WATCHED_S:
        try:
            assert client.match(BANNED, deadline_s=deadline_s).verdict is Band.BLOCK
        except Unreachable:
            failed.append(time.monotonic() - begun)
        time.sleep(PAUSE_S)
    return failed


@pytest.mark.slow
def test_pings_of_a_client_do_not_cost_it_the_connection(servers: list[Server]) -> None:
    """gRPC's servers cut off who pings more than every five minutes; the fourth would be one too
    many. A health check is under way all the time."""
    states: list[grpc.ChannelConnectivity] = []
    options = channel_options(RetryPolicy(), RPCS, checks_health=True)
    with grpc.insecure_channel(servers[0].address, options) as channel:
        channel.subscribe(states.append, try_to_connect=True)
        time.sleep(5.5 * KEEPALIVE_S)
    assert states[-1] is grpc.ChannelConnectivity.READY
    assert states.count(grpc.ChannelConnectivity.READY) == 1
