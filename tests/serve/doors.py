"""The two forms of a server: one process, and fronts before an engine, here in one event loop."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from simsearch.config import Config
from simsearch.serve.engine import EngineDoor
from simsearch.serve.front import Front, FrontGuard
from simsearch.serve.guard import Guard
from simsearch.serve.handlers import EngineGuard
from simsearch.serve.interceptors import Gate
from simsearch.serve.server import PublicDoor
from simsearch.serve.tls import ServerTls
from simsearch.serve.work import Work


class Form(StrEnum):
    ONE_PROCESS = "one process"
    FRONTS = "fronts"


FORM = ContextVar("form", default=Form.ONE_PROCESS)
"""In which form servers are opened; the fixture `form` sets it."""


@asynccontextmanager
async def opened(
    config: Config,
    work: Work,
    gate: Gate,
    guard: Guard | None = None,
    tls: ServerTls | None = None,
) -> AsyncIterator[str]:
    """The address of a server of the current form; between front and engine is the real wire."""
    local = replace(config, server=replace(config.server, listen="127.0.0.1:0"))
    guard = guard or Guard()
    if FORM.get() is Form.ONE_PROCESS:
        door = PublicDoor(local, work, gate, guard=guard, tls=tls)
        address = await door.listen()
        await door.set_serving(True)
        try:
            yield address
        finally:
            await door.close(None)
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "engine"
        engine = EngineDoor(local, work, gate, path=path, guard=_behind(guard))
        front = _Front(local, path, _before(guard), tls)
        await engine.open()
        await engine.set_serving(True)
        address = await front.open()
        await front.link.changed.wait()
        try:
            yield address
        finally:
            await front.close(None)
            await engine.close(None)


class _Front(Front):
    """In a process where gRPC was imported before it was told to speak TLS 1.3 alone."""

    async def _listen(self) -> str:
        return await self._port.listen()


def _before(guard: Guard) -> FrontGuard:
    """Of the same callers; its counts are the test's."""
    front = FrontGuard(guard._directory)
    front._counted = guard._counted
    return front


def _behind(guard: Guard) -> EngineGuard:
    engine = EngineGuard(asks=guard._directory is not None)
    engine._counted, engine.meters = guard._counted, guard.meters
    return engine
