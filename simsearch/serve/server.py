"""The server process: listen, load, serve, drain.

The port opens first and answers NOT_READY; the health service says SERVING once every encoder and
the view are loaded and warm and the canary is right, and NOT_SERVING from the moment a stop is
asked for.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence

import grpc
from prometheus_client import disable_created_metrics

from simsearch.config import Config, ServerConfig
from simsearch.serve.auth.authorization import Guard
from simsearch.serve.auth.identities_file import directory_of
from simsearch.serve.banks.bank_service import BankService
from simsearch.serve.banks.feedback_service import FeedbackService
from simsearch.serve.banks.proposal_service import ProposalService
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.health.readiness import HealthMonitor, open_warm
from simsearch.serve.health.status_service import IndexService
from simsearch.serve.matching.match_service import add_match_service
from simsearch.serve.metrics.call_metrics import Observer
from simsearch.serve.metrics.collector import ServerCollector
from simsearch.serve.metrics.tracing import tracing_to
from simsearch.serve.scheduling.executor import Work
from simsearch.serve.transport.certificates import ServerTls
from simsearch.serve.transport.interceptors import Gate
from simsearch.serve.transport.port import STOP_GRACE_S, Port, check_listen, tls_of
from simsearch.telemetry import EventLog
from simsearch.v1 import (
    bank_pb2_grpc,
    feedback_pb2_grpc,
    index_pb2_grpc,
    proposal_pb2_grpc,
)

log = EventLog(__name__)

SWITCH_INTERVAL_S = 0.001


def port_of(
    config: Config,
    work: Work,
    guard: Guard,
    gate: Gate,
    observers: Sequence[grpc.aio.ServerInterceptor] = (),
    tls: ServerTls | None = None,
) -> Port:
    """The port with every service behind the guard and the gate; observers come before them."""
    port = Port(config.server, [*observers, guard, gate], tls)
    _add_services(work, port.server)
    return port


def _add_services(work: Work, server: grpc.aio.Server) -> None:
    add_match_service(work, server)
    bank_pb2_grpc.add_BankServiceServicer_to_server(BankService(work), server)
    feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(FeedbackService(work), server)
    proposal_pb2_grpc.add_ProposalServiceServicer_to_server(ProposalService(work), server)
    index_pb2_grpc.add_IndexServiceServicer_to_server(IndexService(work), server)


def run(config: Config, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_ready` gets the address once searches are answered.

    Raises BadConfig, BankLocked and the other faults that keep a server from starting.
    """
    check_listen(config)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of time series
    try:
        asyncio.run(_run(config, on_ready))
    finally:
        # What stays frozen is not taken down with the interpreter, and libraries that count their
        # objects (nanobind's, by way of torch) print them on standard error as leaked.
        gc.unfreeze()


def _leave_at_once(event: str, status: int) -> None:
    """Threads that would not stop must not keep the process: every acknowledged edit is on disk."""
    log.warning(event)
    os._exit(status)


async def _run(config: Config, on_ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    work = Work(config.server)
    gate = Gate(config.server.requests_max, config.server.streams_max)
    tracing = tracing_to(config.telemetry.otlp_endpoint)
    metrics = EventMetrics()
    observer = Observer(metrics, tracing)
    tls = tls_of(config.tls)
    guard = Guard(directory_of(config.identity), tls=tls is not None)
    port = port_of(config, work, guard, gate, [observer], tls)
    collector = ServerCollector(guard, gate, work)
    monitor = HealthMonitor(config, work, metrics, collector, port.set_serving)
    monitor.open()
    address = await port.open()
    loading = asyncio.create_task(asyncio.to_thread(open_warm, config, metrics))
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
                monitor.begin(core, lambda: on_ready(address))
            await stop.wait()
        finally:
            await monitor.drain()
            await _drain(config.server, port, gate, work)
            if not work.close(config.server.drain_timeout_s):
                _leave_at_once("left_with_work_running", 1)
            monitor.forget_core()
            core.close()
    finally:
        stopping.cancel()
        await port.close(None)
        if tracing:
            await asyncio.to_thread(tracing.close)
        monitor.close()
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


async def _drain(config: ServerConfig, port: Port, gate: Gate, work: Work) -> None:
    """No new calls, then those in flight to their end, then stop."""
    gate.drain()
    work.drain()
    try:
        await asyncio.wait_for(gate.idle(), config.drain_timeout_s)
    except TimeoutError:
        log.warning("drain_cut_short", in_flight=gate.in_flight)
    await port.close(STOP_GRACE_S)
