"""The process: health, reflection, restart, drain, overload, and what it refuses to start with."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import grpc
import lmdb
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from simsearch.bank.records import keys as layout
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.config import Config, IdentityConfig, ServerConfig, TlsConfig
from simsearch.errors import BadConfig, BankFull, NotReady, Overloaded, SimsearchError, Unreachable
from simsearch.serve import server as running
from simsearch.serve.transport.call_boundary import CallBoundary, Method
from simsearch.serve.transport.concurrency_limit import ConcurrencyLimit
from simsearch.serve.transport.port import check_listen
from simsearch.serve.transport.status_codes import HIDDEN
from simsearch.types import Band, HashContent, Signal
from tests.serve.conftest import EDIT

HASH = HashContent(Signal.PDQ, b"\x96" * 32)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A configuration without encoders: such a server is up in a second."""
    path = tmp_path / "bare.toml"
    path.write_text("[encoders]\n[ban_checks]\nenabled = false\n")
    return path


def test_health_and_reflection_answer(server: ServerProcess) -> None:
    """A probe finds SERVING for each service; grpcurl finds the services."""
    with grpc.insecure_channel(server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "simsearch.v1.MatchService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {"simsearch.v1.MatchService", "simsearch.v1.BankService"} <= services


def test_status_tells_what_is_on(client: Client, bank: str) -> None:
    """Both encoders with their spaces, no lag, and the bank with its count."""
    client.add_entry(bank, [HASH], EDIT)
    status = client.status()
    assert {s.name: s.available for s in status.spaces} == {"copyclip": True, "minilm": True}
    assert all(s.space.startswith(s.name[:4]) or "MiniLM" in s.space for s in status.spaces)
    assert status.lag == 0
    assert {b.name: b.active_entries for b in status.banks}[bank] == 1
    assert status.snapshot.startswith("bank-")


def test_an_encoder_without_weights_is_off_and_the_rest_serves(tmp_path: Path) -> None:
    """No weights: the space is off with the remedy in GetStatus, hashes still match, asking for
    the space is refused by name, and a ban warns of the signal it will lack."""
    config = tmp_path / "config.toml"
    config.write_text('[encoders.big]\nkind = "open_clip"\nmodel = "ViT-L-14/laion2b_s32b_b82k"\n')
    server = ServerProcess(tmp_path, config)
    try:
        with Client(server.address) as client:
            (space,) = client.status().spaces
            assert not space.available
            assert "ViT-L-14" in space.reason
            client.create_bank("hashes", EDIT)
            client.add_entry("hashes", [HASH], EDIT)
            assert client.match(HASH).verdict is Band.BLOCK
            with pytest.raises(SimsearchError) as refusal:
                client.match_vector("big", np.eye(1, 768, dtype=np.float32))
            assert refusal.value.reason == "SPACE_UNAVAILABLE"
    finally:
        server.stop()


def test_a_killed_server_keeps_every_acknowledged_ban(tmp_path: Path, bare: Path) -> None:
    """kill -9, then start again on the same directory: all matches are there, keys go on."""
    server = ServerProcess(tmp_path, bare)
    with Client(server.address) as client:
        client.create_bank("alpha", EDIT)
        keys = [client.add_entry("alpha", [_hash(n)], EDIT).entry.key for n in range(20)]
        client.retract_entry("alpha", keys[0], EDIT)
    server.kill()
    again = ServerProcess(tmp_path, bare)
    try:
        with Client(again.address) as client:
            found = [client.match(_hash(n)).hits for n in range(20)]
            assert [h[0].entry_key for h in found[1:]] == keys[1:]
            assert found[0] == ()
            assert client.add_entry("alpha", [HASH], EDIT).entry.key > max(keys)
    finally:
        again.stop()


def _hash(number: int) -> HashContent:
    return HashContent(Signal.SHA256, bytes([number]) * 32)


def test_a_second_server_on_one_directory_is_refused(tmp_path: Path, bare: Path) -> None:
    """One writer: the second says who holds the directory, and the first goes on."""
    server = ServerProcess(tmp_path, bare)
    try:
        second = _serve("--config", str(bare), "--data-dir", str(server.data_dir))
        assert second.returncode == 7
        assert str(server.pid) in second.stderr
        with Client(server.address) as client:
            assert client.is_serving()
    finally:
        server.stop()


def test_a_newer_data_directory_is_refused(tmp_path: Path, bare: Path) -> None:
    """A directory that a later release wrote is not touched."""
    server = ServerProcess(tmp_path, bare)
    server.stop()
    _write_format(server.data_dir, layout.FORMAT + 1)
    refused = _serve("--config", str(bare), "--data-dir", str(server.data_dir))
    assert refused.returncode == 7
    assert str(layout.FORMAT + 1) in refused.stderr


def _write_format(path: Path, version: int) -> None:
    with lmdb.open(str(path), max_dbs=16) as environment:
        meta = environment.open_db(layout.META)
        with environment.begin(write=True) as change:
            sealed = layout.seal(layout.META_FORMAT, layout.pack_u32(version))
            change.put(layout.META_FORMAT, sealed, db=meta)


def test_a_typo_in_the_configuration_is_refused(tmp_path: Path) -> None:
    """The sentence names the key and what was probably meant."""
    path = tmp_path / "typo.toml"
    path.write_text('[server]\nlissten = "127.0.0.1:0"\n')
    refused = _serve("--config", str(path))
    assert refused.returncode == 7
    assert "unknown key 'lissten'; did you mean 'listen'?" in refused.stderr


def test_a_port_that_is_taken_is_refused(bare: Path, tmp_path: Path) -> None:
    """Also where the one who has it would share it."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = ["--config", str(bare), "--listen", address, "--data-dir", str(tmp_path / "data")]
        refused = _serve(*command)
    assert refused.returncode == 7
    assert f"cannot listen on {address}: is another server there?" in refused.stderr


def test_identities_that_cannot_be_read_keep_it_from_starting(tmp_path: Path) -> None:
    """A server that should ask who calls never serves without."""
    path = tmp_path / "config.toml"
    path.write_text('[encoders]\n[identity]\nfile = "nowhere.toml"\n')
    refused = _serve("--config", str(path), "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 7
    assert "cannot read nowhere.toml" in refused.stderr


def test_json_refusals_are_json(tmp_path: Path) -> None:
    """With --json a script can read why."""
    refused = _serve("--config", str(tmp_path / "absent.toml"), "--json")
    assert json.loads(refused.stderr)["error"]["reason"] == "BAD_CONFIG"


def _serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simsearch.cli", "serve", "--listen", "127.0.0.1:0"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("listen", ["0.0.0.0:50070", "192.168.1.5:50070", "example.org:1"])
def test_other_machines_are_not_listened_to_by_accident(listen: str) -> None:
    """Beyond loopback with TLS and identities, or where somebody says so in so many words."""
    server, tls = ServerConfig(listen=listen), TlsConfig(cert="c", key="k")
    identity = IdentityConfig(file="identities.toml")
    for tempting, missing in (
        (Config(server), r"without \[tls\]"),
        (Config(server, identity=identity), r"without \[tls\]"),
        (Config(server, tls=tls), r"without \[identity\]"),
    ):
        with pytest.raises(BadConfig, match=missing):
            check_listen(tempting)
    check_listen(Config(server, tls=tls, identity=identity))
    check_listen(Config(ServerConfig(listen=listen, insecure_allow_remote_without_tls=True)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(tmp_path: Path, bare: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM: exit status 0, no traceback, and the directory opens again."""
    server = ServerProcess(tmp_path, bare)
    os.kill(server.pid, number)
    assert server.wait() == 0
    assert "Traceback" not in (tmp_path / "server.log").read_text()
    server.stop()


@pytest.mark.parametrize("fault", [None, BadConfig("no")])
def test_what_was_frozen_is_thawed_at_the_end(
    monkeypatch: pytest.MonkeyPatch, fault: BadConfig | None
) -> None:
    """Or it would not be taken down with the interpreter, and libraries would call it leaked."""

    async def freezing(*_: object) -> None:
        gc.freeze()
        if fault:
            raise fault

    monkeypatch.setattr(running, "_run", freezing)
    with contextlib.suppress(BadConfig):
        running.run(Config(), lambda address: None)
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
def test_nothing_is_said_to_leak(tmp_path: Path) -> None:
    """A clean stop of a server with both encoders leaves no word behind."""
    server = ServerProcess(tmp_path)
    server.stop()
    assert (server.wait(), (tmp_path / "server.log").read_text()) == (0, "")


def test_calls_in_flight_are_finished_on_a_stop(tmp_path: Path, bare: Path) -> None:
    """No call that was admitted fails because the server was asked to stop."""
    server = ServerProcess(tmp_path, bare)
    outcomes: list[str] = []

    def hammer() -> None:
        with Client(server.address, deadline_s=5) as client:
            for _ in range(2000):
                try:
                    client.match(HASH)
                except (Unreachable, NotReady):
                    return
                except SimsearchError as error:
                    outcomes.append(repr(error))
                    return

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(hammer) for _ in range(4)]
        time.sleep(0.5)
        server.stop()
        for each in running:
            each.result(timeout=30)
    assert outcomes == []


# ---------------------------------------------------------------- the limit, without a network


class FakeContext:
    """Records what a call was ended with."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.OK
        self.words = ""

    def time_remaining(self) -> float | None:
        return None

    async def abort(self, code: grpc.StatusCode, words: str, trailers: object) -> None:
        self.code, self.words = code, words


async def _call(limit: ConcurrencyLimit, behaviour: Any) -> FakeContext:
    context = FakeContext()
    method = Method(
        "/simsearch.v1.BankService/GetBank", grpc.unary_unary_rpc_method_handler(behaviour)
    )
    await CallBoundary([limit]).wrap(method).unary_unary(None, cast(Any, context))
    return context


def test_more_calls_than_allowed_are_refused_at_once() -> None:
    """The limit: RESOURCE_EXHAUSTED for the call too many, and room again afterwards."""

    async def story() -> None:
        limit, release = ConcurrencyLimit(2), asyncio.Event()

        async def slow(request: object, context: object) -> None:
            await release.wait()

        first = [asyncio.create_task(_call(limit, slow)) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await _call(limit, slow)
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        release.set()
        assert [(await task).code for task in first] == [grpc.StatusCode.OK] * 2
        assert limit.in_flight == 0
        assert (await _call(limit, slow)).code is grpc.StatusCode.OK

    asyncio.run(story())


def test_a_bug_of_ours_is_internal_and_leaks_nothing() -> None:
    """An error nobody named becomes INTERNAL with a fixed sentence."""

    async def broken(request: object, context: object) -> None:
        raise RuntimeError("secret content")

    context = asyncio.run(_call(ConcurrencyLimit(1), broken))
    assert (context.code, context.words) == (grpc.StatusCode.INTERNAL, HIDDEN.message)


def test_a_draining_server_refuses_by_name() -> None:
    """After `drain`, new calls get UNAVAILABLE, which clients try elsewhere."""

    async def quick(request: object, context: object) -> None:
        return None

    limit = ConcurrencyLimit(1)
    limit.drain()
    context = asyncio.run(_call(limit, quick))
    assert context.code is grpc.StatusCode.UNAVAILABLE


def test_overload_carries_a_hint() -> None:
    """RESOURCE_EXHAUSTED says when to come back, in RetryInfo and as a pushback header."""
    from google.rpc import error_details_pb2, status_pb2

    from simsearch.serve.transport.status_codes import trailers_of

    trailers = dict(trailers_of(Overloaded("full", retry_after_ms=250)))
    assert trailers["grpc-retry-pushback-ms"] == "250"
    status = status_pb2.Status.FromString(bytes(trailers["grpc-status-details-bin"]))  # type: ignore[arg-type]
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 250


@pytest.mark.parametrize(
    ("error", "left_s", "pushback_ms"),
    [
        (Overloaded("full", retry_after_ms=250), None, "250"),
        (Overloaded("full", retry_after_ms=250), 0.3, "250"),
        (Overloaded("full", retry_after_ms=250), 0.2, "-1"),  # the caller hears it now
        (Overloaded("full", retry_after_ms=0), 5.0, "10"),  # gRPC never ends a wait of 0
        (BankFull("no room"), 5.0, "-1"),  # and no wait makes any
        (NotReady("draining"), 5.0, None),
    ],
)
def test_clients_are_told_whether_a_retry_helps(
    error: SimsearchError, left_s: float | None, pushback_ms: str | None
) -> None:
    """gRPC's own clients too: RESOURCE_EXHAUSTED always says so."""
    from simsearch.serve.transport.status_codes import trailers_of

    assert dict(trailers_of(error, left_s)).get("grpc-retry-pushback-ms") == pushback_ms
