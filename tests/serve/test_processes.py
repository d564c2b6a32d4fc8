"""A server of several processes: killed in part, killed whole, stopped under load."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from simsearch.cli.background import ServerProcess
from simsearch.client import Client
from simsearch.errors import BadConfig, SimsearchError
from simsearch.serve.supervisor import Child, _meeting_place, reserved
from simsearch.types import Band, HashContent, Signal
from simsearch.v1 import match_pb2, match_pb2_grpc
from simsearch.wire import content_to
from tests.serve.conftest import EDIT

HASH = HashContent(Signal.PDQ, b"\x96" * 32)
WAIT_S = 20.0


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A configuration without encoders: such a server is up in two seconds."""
    path = tmp_path / "bare.toml"
    path.write_text("[encoders]\n[guard]\nenabled = false\n[sandbox]\nworkers = 0\n")
    return path


@pytest.fixture
def server(tmp_path: Path, bare: Path) -> Iterator[ServerProcess]:
    """Two fronts, and a bank with one entry."""
    process = ServerProcess(tmp_path, bare, fronts=2)
    with Client(process.address) as client:
        client.create_bank("alpha", EDIT)
        client.add_entry("alpha", [HASH], EDIT)
    yield process
    process.stop()


def children(parent: int, role: str = "") -> set[int]:
    """The pids of a server's processes."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if ppid == parent and role.encode() in words:
            found.add(int(path.name))
    return found


def until(true: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + wait_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_serving(address: str) -> bool:
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def matched(address: str) -> str:
    """How one match over a connection of its own ended."""
    with Client(address, deadline_s=5) as client:
        try:
            return client.match(HASH).verdict.name
        except SimsearchError as error:
            return error.reason


def test_a_server_survives_the_death_of_its_processes(server: ServerProcess) -> None:
    """kill -9 of a front: the other one serves, and there are two again. kill -9 of the engine: by
    name, until there is another; every acknowledged ban is there."""
    pids = children(server.pid, "front")
    assert len(pids) == 2
    os.kill(min(pids), signal.SIGKILL)
    assert matched(server.address) == Band.BLOCK.name
    until(lambda: len(children(server.pid, "front") - {min(pids)}) == 2)
    (engine,) = children(server.pid, "engine")
    os.kill(engine, signal.SIGKILL)
    until(lambda: not is_serving(server.address))
    assert matched(server.address) in ("NOT_READY", "UNREACHABLE", Band.BLOCK.name)
    until(lambda: all(is_serving(server.address) for _ in range(6)))
    until(lambda: matched(server.address) == Band.BLOCK.name)
    assert children(server.pid, "engine").isdisjoint({engine})
    log = (server.data_dir.parent / "server.log").read_text()
    assert log.count("child_ended") == 2
    assert "Traceback" not in log


def test_a_stop_under_load_fails_no_call(server: ServerProcess) -> None:
    """Those in flight are answered, new ones refused by name; every process ends, with status 0."""
    outcomes: list[str] = []
    answered = 0

    def hammer() -> None:
        nonlocal answered
        with Client(server.address, deadline_s=5, autobatch=False) as client:
            while True:
                try:
                    answered += client.match(HASH).verdict is Band.BLOCK
                except SimsearchError as error:
                    outcomes.append(error.reason)
                    return

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: answered > 20)
    before = children(server.pid)
    with grpc.insecure_channel(server.address) as channel:
        requests: queue.Queue[Any] = queue.Queue()
        item = match_pb2.StreamMatchItem(id=1, content=content_to(HASH))
        requests.put(match_pb2.StreamMatchRequest(items=[item]))
        stream: Any = match_pb2_grpc.MatchServiceStub(channel).StreamMatch(iter(requests.get, None))
        next(stream)
        os.kill(server.pid, signal.SIGTERM)
        assert b"NOT_READY" in _details(lambda: list(stream))
        requests.put(None)
    assert server.wait() == 0
    for thread in threads:
        thread.join(WAIT_S)
    assert set(outcomes) <= {"NOT_READY", "UNREACHABLE"}
    assert len(before) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
    log = (server.data_dir.parent / "server.log").read_text()
    assert "Traceback" not in log
    assert "Fatal" not in log


def test_without_its_parent_a_server_ends(server: ServerProcess) -> None:
    """kill -9 of the parent: nobody is left, and the directory can be served again."""
    pids = children(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    again = ServerProcess(server.data_dir.parent, server.data_dir.parent / "bare.toml", fronts=1)
    try:
        assert matched(again.address) == Band.BLOCK.name
    finally:
        again.stop()


@pytest.mark.slow
def test_what_is_large_and_what_is_long(server: ServerProcess) -> None:
    """A message of 20 MiB, and a stream of 5,000 items, each answered once."""
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = match_pb2_grpc.MatchServiceStub(channel)
        request = match_pb2.MatchRequest()
        request.content.image = bytes(20 << 20)
        with pytest.raises(grpc.RpcError) as failure:
            stub.Match(request, timeout=WAIT_S)
        assert cast(grpc.Call, failure.value).code() is grpc.StatusCode.INVALID_ARGUMENT
        items = (match_pb2.StreamMatchItem(id=n, content=content_to(HASH)) for n in range(5_000))
        requests = (match_pb2.StreamMatchRequest(items=[item]) for item in items)
        found = [a.id for r in stub.StreamMatch(requests, timeout=60) for a in r.answers]
        assert sorted(found) == list(range(5_000))


@pytest.mark.slow
def test_a_stream_ends_by_name_with_the_engine(server: ServerProcess) -> None:
    """kill -9 of the engine in the middle of one; and of the front that it goes through."""
    for role, expected in (("engine", "UNREACHABLE"), ("front", "")):
        with grpc.insecure_channel(
            server.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stub: Any = match_pb2_grpc.MatchServiceStub(channel)
            stop = threading.Event()

            def endless(stop: threading.Event = stop) -> Iterator[match_pb2.StreamMatchRequest]:
                while not stop.wait(0.001):
                    item = match_pb2.StreamMatchItem(id=1, content=content_to(HASH))
                    yield match_pb2.StreamMatchRequest(items=[item])

            call = stub.StreamMatch(endless(), timeout=WAIT_S)
            next(call)
            for pid in children(server.pid, role):
                os.kill(pid, signal.SIGKILL)
            assert expected.encode() in _details(lambda call=call: list(call))  # type: ignore[misc]
            stop.set()
        until(lambda: all(is_serving(server.address) for _ in range(6)))


def _details(call: Callable[[], object]) -> bytes:
    """The rich status of a call that is refused as UNAVAILABLE; empty without one."""
    with pytest.raises(grpc.RpcError) as failure:
        call()
    ended = cast(grpc.Call, failure.value)
    assert ended.code() is grpc.StatusCode.UNAVAILABLE
    trailers: Any = dict(cast(Any, ended.trailing_metadata()) or ())
    return bytes(trailers.get("grpc-status-details-bin", b""))


# ---------------------------------------------------------------- what it does not start with


def test_a_port_that_is_taken_is_refused() -> None:
    """Also where the one who has it would share it, and while its fronts have not begun."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(BadConfig, match="is another server there"),
            reserved(f"127.0.0.1:{port}"),
        ):
            pass
    with (
        reserved("127.0.0.1:0") as address,
        pytest.raises(BadConfig, match="is another server there"),
        reserved(address),
    ):
        pass
    with reserved(address) as again:
        assert again == address


def test_the_fronts_of_one_server_share_its_port() -> None:
    """And nobody else does."""
    with reserved("127.0.0.1:0") as address:
        port = int(address.rpartition(":")[2])
        with socket.socket() as first, socket.socket() as second, socket.socket() as other:
            for ours in (first, second):
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                ours.bind(("127.0.0.1", port))
                ours.listen()
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))


@pytest.mark.parametrize("name", ["absent", "x" * 100])
def test_without_a_place_to_meet_it_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Told in words, not by a socket's error."""
    if name != "absent":
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with pytest.raises(BadConfig, match="TMPDIR"), _meeting_place():
        pass


@pytest.mark.parametrize(
    ("config", "status", "words"),
    [
        ('[identity]\nfile = "nowhere.toml"\n', 7, "cannot read nowhere.toml"),
        ("[server]\ndata_dir = '/dev/null/x'\n", 1, ""),
    ],
    ids=["a front refuses", "the engine fails"],
)
def test_what_keeps_a_process_from_starting_is_told(
    tmp_path: Path, config: str, status: int, words: str
) -> None:
    """By the parent, in the words and with the exit status of a server of one process."""
    path = tmp_path / "config.toml"
    path.write_text(f"[encoders]\n[sandbox]\nworkers = 0\n{config}")
    command = [sys.executable, "-m", "simsearch.cli", "serve", "--config", str(path)]
    command += ["--listen", "127.0.0.1:0", "--fronts", "1"]
    command += ["--data-dir", str(tmp_path / "data")] if "data_dir" not in config else []
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.returncode == 0) is False
    assert words in ran.stderr
    if words:
        assert ran.returncode == status


def test_what_ends_again_and_again_is_given_up() -> None:
    """A few times it is started anew, later each time; then no more."""
    child = Child("front", {}, lambda: None)
    waits = [child.ended(now) for now in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, None]
    patient = Child("front", {}, lambda: None)
    assert None not in [patient.ended(60.0 * n) for n in range(50)]
