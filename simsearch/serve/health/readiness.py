"""Health monitor: serves metrics and probes, runs the canary and sets readiness.

Ready means loaded, warm, not draining, and no fault found by the canary. Live means only that the
process answers, so that a canary fault takes a server out of rotation, not into a restart loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import Final

from prometheus_client import make_wsgi_app

from simsearch.config import Config
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.core.server_core import Core
from simsearch.serve.health.canary import Canary
from simsearch.serve.health.warmup import warm_up
from simsearch.serve.metrics.collector import ServerCollector, scraped_registry
from simsearch.serve.metrics.edit_latency import EditLatency
from simsearch.serve.metrics.http_endpoint import MetricsServer
from simsearch.serve.scheduling.executor import MatchExecutor
from simsearch.telemetry import EventLog

log = EventLog(__name__)

LIVE_S: Final = 3.0
"""An event loop that runs nothing new within this time is not live."""


def open_warm(config: Config, metrics: EventMetrics) -> Core:
    """A core after its warm-up. Raises as Core.open."""
    core = Core.open(config, metrics)
    try:
        warm_up(core)
    except BaseException:
        core.close()
        raise
    return core


class HealthMonitor:
    """Runs from `open`, before anything is loaded, to `close`, after the last call."""

    def __init__(
        self,
        config: Config,
        executor: MatchExecutor,
        metrics: EventMetrics,
        collector: ServerCollector,
        set_serving: Callable[[bool], Awaitable[None]],
    ) -> None:
        """`set_serving` sets the status of the gRPC health service."""
        self._config = config
        self._metrics = metrics
        self._collector = collector
        self._canary = Canary(executor, config.canary)
        self._set_serving = set_serving
        self._core: Core | None = None
        self._edits: EditLatency | None = None
        self._server: MetricsServer | None = None
        self._watching: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Serve metrics and probes at the configured address, if there is one. Raises
        BadConfig."""
        if not self._config.metrics.listen:
            return
        loop = asyncio.get_running_loop()
        site = make_wsgi_app(scraped_registry(self._metrics, self._collector))
        self._server = MetricsServer(
            self._config.metrics.listen, site, self._is_ready, lambda: _is_live(loop)
        )
        log.info("metrics_listen", port=self._server.port)

    def begin(self, core: Core, on_ready: Callable[[], None]) -> None:
        """Run the canary from now on; `on_ready` is called once, after the first probe without a
        fault."""
        self._core = core
        self._edits = EditLatency(core.store, core.follower, core.metrics.edit_visible)
        self._collector.begin(core)
        self._watching = asyncio.create_task(self._watch(core, on_ready))

    async def _watch(self, core: Core, on_ready: Callable[[], None]) -> None:
        announced = False

        async def set_ready(ready: bool) -> None:
            nonlocal announced
            if core.health.ready != ready:
                core.health.ready = ready
                await self._set_serving(ready)
            if ready and not announced:
                announced = True
                on_ready()

        await self._canary.watch(set_ready)

    async def drain(self) -> None:
        """Stop the canary; not ready from now on."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        if self._core is not None:
            self._core.health.ready = False
        await self._set_serving(False)

    def forget_core(self) -> None:
        """Stop reading the core, which is about to be closed."""
        self._collector.forget()
        if self._edits is not None:
            self._edits.close()
        self._core = None

    def close(self) -> None:
        """Stop serving metrics and probes."""
        if self._server is not None:
            self._server.close()

    def _is_ready(self) -> bool:
        core = self._core
        return core is not None and core.health.ready


def _is_live(loop: asyncio.AbstractEventLoop) -> bool:
    """To be called from another thread."""
    nap = asyncio.sleep(0)
    try:
        asyncio.run_coroutine_threadsafe(nap, loop).result(LIVE_S)
    except (Late, RuntimeError):  # busy, or closed
        nap.close()
        return False
    return True
