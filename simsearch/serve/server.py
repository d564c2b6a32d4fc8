"""Server process: listen, load, serve, drain.

The port opens first and answers NOT_READY. The health service reports SERVING once every encoder
and the view are loaded and warm and the canary passes, and NOT_SERVING from the moment a stop is
requested.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence

from prometheus_client import disable_created_metrics

from simsearch.config import Config, ServerConfig
from simsearch.serve.auth.authorization import Authorization
from simsearch.serve.auth.identities_file import watch_identities
from simsearch.serve.banks.bank_service import add_bank_service
from simsearch.serve.banks.feedback_service import add_feedback_service
from simsearch.serve.banks.proposal_service import add_proposal_service
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.health.readiness import HealthMonitor, open_warm
from simsearch.serve.health.status_service import IndexService
from simsearch.serve.matching.match_service import add_match_service
from simsearch.serve.metrics.call_metrics import CallMetrics
from simsearch.serve.metrics.collector import ServerCollector
from simsearch.serve.metrics.tracing import tracing_to
from simsearch.serve.scheduling.executor import Executors
from simsearch.serve.transport.call_boundary import CallLayer
from simsearch.serve.transport.certificates import ServerTls
from simsearch.serve.transport.concurrency_limit import ConcurrencyLimit
from simsearch.serve.transport.port import STOP_GRACE_S, GrpcPort, check_listen, tls_of
from simsearch.telemetry import EventLog
from simsearch.v1 import index_pb2_grpc

log = EventLog(__name__)

SWITCH_INTERVAL_S = 0.001


def port_of(
    config: Config,
    executors: Executors,
    layers: Sequence[CallLayer],
    tls: ServerTls | None = None,
) -> GrpcPort:
    """The port with every service; the first layer is the outermost."""
    port = GrpcPort(config.server, layers, tls)
    add_match_service(executors.matches, port.server)
    add_bank_service(executors.edits, port.server)
    add_feedback_service(executors.edits, port.server)
    add_proposal_service(executors.edits, port.server)
    index_pb2_grpc.add_IndexServiceServicer_to_server(IndexService(executors.edits), port.server)
    return port


def run(config: Config, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_ready` gets the address once the server is ready.

    Raises BadConfig, BankLocked and the other faults that keep a server from starting.
    """
    check_listen(config)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the time series
    try:
        asyncio.run(_run(config, on_ready))
    finally:
        # Frozen objects are not freed with the interpreter, and libraries that count theirs
        # (nanobind, by way of torch) would report them on standard error as leaked.
        gc.unfreeze()


def _leave_at_once(event: str, status: int) -> None:
    """Threads that do not stop must not keep the process: every acknowledged edit is on disk."""
    log.warning(event)
    os._exit(status)


async def _run(config: Config, on_ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    executors = Executors(config.server)
    limit = ConcurrencyLimit(config.server.requests_max, config.server.streams_max)
    tracing = tracing_to(config.telemetry.otlp_endpoint)
    metrics = EventMetrics()
    call_metrics = CallMetrics(metrics, tracing)
    tls = tls_of(config.tls)
    authorization = Authorization(watch_identities(config.identity), tls=tls is not None)
    port = port_of(config, executors, [call_metrics, authorization, limit], tls)
    collector = ServerCollector(authorization, limit, executors.matches)
    monitor = HealthMonitor(config, executors.matches, metrics, collector, port.set_serving)
    monitor.open()
    address = await port.open()
    loading = asyncio.create_task(asyncio.to_thread(open_warm, config, metrics))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            _leave_at_once("stopped_while_loading", 0)  # a write in progress is rolled back by LMDB
        core = await loading
        try:
            executors.begin(core)
            _freeze_gc()
            _lower_gil_interval()
            if not stop.is_set():
                monitor.begin(core, lambda: on_ready(address))
            await stop.wait()
        finally:
            await monitor.drain()
            await _drain(config.server, port, limit, executors)
            if not executors.close(config.server.drain_timeout_s):
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


def _lower_gil_interval() -> None:
    """GIL switch interval 5 -> 1 ms: a search re-acquires the GIL about 20 times, and waited a full
    interval most times while a snapshot was loading."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _freeze_gc() -> None:
    """Models and libraries have made half a million objects that stay. Every full collection would
    traverse them, and block all calls for most of a second."""
    gc.collect()
    gc.freeze()


async def _drain(
    config: ServerConfig, port: GrpcPort, limit: ConcurrencyLimit, executors: Executors
) -> None:
    """Refuse new calls, let those in flight end, then close the port."""
    limit.drain()
    executors.matches.drain()
    try:
        await asyncio.wait_for(limit.idle(), config.drain_timeout_s)
    except TimeoutError:
        log.warning("drain_cut_short", in_flight=limit.in_flight)
    await port.close(STOP_GRACE_S)
