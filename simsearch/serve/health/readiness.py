"""What an operator sees of a server: its metrics, its canary, and whether it is ready.

Ready says "ask me": loaded, warm, not draining, and the canary is right. Live says only that the
process answers, so that a wrong canary takes a server out of rotation, not into a restart loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import Final

from prometheus_client import make_wsgi_app

from simsearch.config import Config
from simsearch.serve.core.server_core import Core
from simsearch.serve.health.canary import Canary
from simsearch.serve.health.warmup import warm_up
from simsearch.serve.metrics.collector import ServerCollector, registry_of
from simsearch.serve.metrics.edit_latency import EditLatency
from simsearch.serve.metrics.http_endpoint import MetricsServer
from simsearch.serve.scheduling.executor import Work
from simsearch.telemetry import EventLog

log = EventLog(__name__)

LIVE_S: Final = 3.0
"""An event loop that does not come to a nap of nothing in this time does not live."""


def open_warm(config: Config) -> Core:
    """A core that has done everything once. Raises as Core.open."""
    core = Core.open(config)
    try:
        warm_up(core)
    except BaseException:
        core.close()
        raise
    return core


class HealthMonitor:
    """From `open`, before anything is loaded, to `close`, after the last call."""

    def __init__(
        self,
        config: Config,
        work: Work,
        metrics: ServerCollector,
        set_serving: Callable[[bool], Awaitable[None]],
    ) -> None:
        """`set_serving` tells whoever asks over gRPC."""
        self._config = config
        self._metrics = metrics
        self._canary = Canary(work, config.canary)
        self._set_serving = set_serving
        self._core: Core | None = None
        self._edits: EditLatency | None = None
        self._port: MetricsServer | None = None
        self._watching: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Answer scrapes and probes, where the configuration says at what address.

        Raises BadConfig.
        """
        if not self._config.metrics.listen:
            return
        loop = asyncio.get_running_loop()
        site = make_wsgi_app(registry_of(self._metrics))
        self._port = MetricsServer(
            self._config.metrics.listen, site, self._is_ready, lambda: _lives(loop)
        )
        log.info("metrics_listen", port=self._port.port)

    def begin(self, core: Core, on_ready: Callable[[], None]) -> None:
        """Probe from now on; `on_ready` is called once, when all is right for the first time."""
        self._core = core
        self._edits = EditLatency(core.store, core.follower)
        self._metrics.begin(core, self._edits)
        self._watching = asyncio.create_task(self._watch(core, on_ready))

    async def _watch(self, core: Core, on_ready: Callable[[], None]) -> None:
        announced = False

        async def told(right: bool) -> None:
            nonlocal announced
            if core.health.ready != right:
                core.health.ready = right
                await self._set_serving(right)
            if right and not announced:
                announced = True
                on_ready()

        await self._canary.watch(told)

    async def drain(self) -> None:
        """Not ready from now on, whatever the canary would find."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        if self._core is not None:
            self._core.health.ready = False
        await self._set_serving(False)

    def forget_core(self) -> None:
        """It is about to be closed: say nothing about it any more."""
        self._metrics.forget()
        if self._edits is not None:
            self._edits.close()
        self._core = None

    def close(self) -> None:
        if self._port is not None:
            self._port.close()

    def _is_ready(self) -> bool:
        core = self._core
        return core is not None and core.health.ready


def _lives(loop: asyncio.AbstractEventLoop) -> bool:
    """Asked from another thread."""
    nap = asyncio.sleep(0)
    try:
        asyncio.run_coroutine_threadsafe(nap, loop).result(LIVE_S)
    except (Late, RuntimeError):  # busy, or closed
        nap.close()
        return False
    return True
