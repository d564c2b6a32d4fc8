"""The server process: listen, load, serve, drain.

The port opens first and answers NOT_READY; the health service says SERVING once every encoder
and the view are loaded, and NOT_SERVING from the moment a stop is asked for.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import signal
import sys
from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from simsearch.config import Config, ServerConfig, split_address
from simsearch.errors import BadConfig
from simsearch.serve.bank_service import BankService
from simsearch.serve.core import Core
from simsearch.serve.index_service import IndexService
from simsearch.serve.interceptors import Gate
from simsearch.serve.match_service import MatchService
from simsearch.serve.work import Work
from simsearch.telemetry import EventLog
from simsearch.v1 import (
    bank_pb2,
    bank_pb2_grpc,
    index_pb2,
    index_pb2_grpc,
    match_pb2,
    match_pb2_grpc,
)

log = EventLog(__name__)

SWITCH_INTERVAL_S = 0.001

SERVICES = (
    match_pb2.DESCRIPTOR.services_by_name["MatchService"].full_name,
    bank_pb2.DESCRIPTOR.services_by_name["BankService"].full_name,
    index_pb2.DESCRIPTOR.services_by_name["IndexService"].full_name,
)

HEADERS_BYTES_MAX = 16 << 10

STOP_GRACE_S = 2.0
"""For refusals still on their way out and open health watches, once no call is in flight."""


def run(config: Config, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_ready` gets the address once searches are answered.

    Raises BadConfig, BankLocked and the other faults that keep a server from starting.
    """
    check_listen(config.server)
    asyncio.run(_run(config, on_ready))


def _leave_at_once(event: str, status: int) -> None:
    """Threads that would not stop must not keep the process: every acknowledged edit is on disk."""
    log.warning(event)
    os._exit(status)


def check_listen(server: ServerConfig) -> None:
    """Refuse to listen beyond this machine unless told to. Raises BadConfig."""
    host, _ = split_address(server.listen)
    if not (server.allow_remote or _is_loopback(host)):
        raise BadConfig(
            f"listen = {server.listen!r} is reachable from other machines and this server asks "
            "nobody who they are: use 127.0.0.1, or set allow_remote = true behind your own guard"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _run(config: Config, on_ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    work = Work(config.server.search_threads, config.server.match_timeout_s)
    gate = Gate(config.server.requests_max)
    probe = health.aio.HealthServicer()
    server = _server(config.server, work, gate, probe)
    port = _bind(server, config.server.listen)
    await _set_health(probe, serving=False)
    await server.start()
    loading = asyncio.create_task(asyncio.to_thread(Core.open, config))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            _leave_at_once("stopped_while_loading", 0)  # loading writes nothing
        core = await loading
        try:
            work.begin(core)
            _spare_the_collector()
            _share_the_interpreter()
            if not stop.is_set():
                await _set_health(probe, serving=True)
                host, _ = split_address(config.server.listen)
                on_ready(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            await stop.wait()
        finally:
            await _drain(config.server, server, gate, probe)
            if not work.close(config.server.drain_timeout_s):
                _leave_at_once("left_with_work_running", 1)
            core.close()
    finally:
        stopping.cancel()
        await server.stop(None)
    log.info("server_stopped")


def _share_the_interpreter() -> None:
    """Whoever computes in Python lets go after 1 ms instead of 5: a search asks for it some 20
    times, and beside a loading snapshot waited for most of them."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _spare_the_collector() -> None:
    """What models and their libraries have made by now is there to stay: half a million objects,
    which every full collection would look at again, and hold all calls for most of a second."""
    gc.collect()
    gc.freeze()


def _server(
    config: ServerConfig, work: Work, gate: Gate, probe: health.aio.HealthServicer
) -> grpc.aio.Server:
    server = grpc.aio.server(
        interceptors=[gate],
        options=[
            ("grpc.max_receive_message_length", config.message_bytes_max),
            ("grpc.max_send_message_length", config.message_bytes_max),
            ("grpc.max_metadata_size", HEADERS_BYTES_MAX),
            ("grpc.max_concurrent_streams", config.requests_max),
            # Two servers on one port would each hold half of the truth about who is up.
            ("grpc.so_reuseport", 0),
        ],
    )
    match_pb2_grpc.add_MatchServiceServicer_to_server(MatchService(work), server)
    bank_pb2_grpc.add_BankServiceServicer_to_server(BankService(work), server)
    index_pb2_grpc.add_IndexServiceServicer_to_server(IndexService(work), server)
    health_pb2_grpc.add_HealthServicer_to_server(probe, server)
    reflection.enable_server_reflection(
        (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server


def _bind(server: grpc.aio.Server, listen: str) -> int:
    try:
        return server.add_insecure_port(listen)
    except RuntimeError:
        raise BadConfig(
            f"cannot listen on {listen}: is another server there? choose another port"
        ) from None


async def _set_health(probe: health.aio.HealthServicer, *, serving: bool) -> None:
    status = (
        health_pb2.HealthCheckResponse.SERVING
        if serving
        else health_pb2.HealthCheckResponse.NOT_SERVING
    )
    for service in ("", *SERVICES):
        await probe.set(service, status)


async def _drain(
    config: ServerConfig, server: grpc.aio.Server, gate: Gate, probe: health.aio.HealthServicer
) -> None:
    """Not ready, then no new calls, then those in flight to their end, then stop."""
    await _set_health(probe, serving=False)
    gate.drain()
    try:
        await asyncio.wait_for(gate.idle(), config.drain_timeout_s)
    except TimeoutError:
        log.warning("drain_cut_short", in_flight=gate.in_flight)
    await server.stop(STOP_GRACE_S)
