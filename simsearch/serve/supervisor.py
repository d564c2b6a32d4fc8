"""`--fronts N`: the parent of one engine and N fronts. It serves nothing itself.

It holds the port, starts the others as fresh interpreters, gives each its
configuration through a pipe, and starts anew what ends without having been asked to: a front within
a second, the engine, too, whose fronts say NOT_READY meanwhile. What ends again and again is not
started for ever: the server then stops, with a status that is not 0. The pipe also says that the
parent lives: where it is killed, the others stop by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from simsearch.config import Config, split_address
from simsearch.errors import BadConfig, InternalFault, SimsearchError, every_error
from simsearch.serve.listening import address_of, cannot_listen, check_listen
from simsearch.telemetry import EventLog

log = EventLog(__name__)

ENDS_MAX: Final = 5
ENDS_WITHIN_S: Final = 120.0
"""A child that ends more often than so in so long is given up, and the server with it."""

BACKOFF_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0

SOCKET_PATH_MAX: Final = 107
"""Bytes."""

STOP_MARGIN_S: Final = 10.0
"""For what a child does after its drain, until it is killed."""

TOLD_BYTES_MAX: Final = 1 << 16


def run(config: Config, log_level: str, on_ready: Callable[[str], None]) -> int:
    """Serve until SIGINT or SIGTERM; the exit status. `on_ready` gets the address once every front
    answers searches.

    Raises BadConfig, BankLocked and the other faults that keep a server from starting, and the
    fault of a child that ended too often.
    """
    check_listen(config)
    with _meeting_place() as directory, reserved(config.server.listen) as address:
        server = dataclasses.replace(config.server, listen=address)
        settings = {
            "config": dataclasses.asdict(dataclasses.replace(config, server=server)),
            "socket": str(directory / "engine"),
            "log_level": log_level,
        }
        drain_s = config.server.drain_timeout_s
        family = Supervisor(settings, config.server.fronts, drain_s, lambda: on_ready(address))
        return asyncio.run(family.run())


# ---------------------------------------------------------------- what is held


@contextmanager
def _meeting_place() -> Iterator[Path]:
    """A directory that is this user's alone, for the engine's socket: its path is short, as it must
    be, and not in the data directory, which the engine makes. Raises BadConfig."""
    with contextlib.ExitStack() as undo:
        try:
            directory = undo.enter_context(tempfile.TemporaryDirectory(prefix="simsearch-"))
        except OSError as fault:
            raise BadConfig(
                f"fronts meet their engine in a temporary directory: {fault.strerror}: let TMPDIR "
                "name one that can be written"
            ) from None
        path = Path(directory) / "engine"
        if len(os.fsencode(path)) > SOCKET_PATH_MAX:
            raise BadConfig(f"{path} is too long for a socket: let TMPDIR name a shorter one")
        yield Path(directory)


@contextmanager
def reserved(listen: str) -> Iterator[str]:
    """The address, its port chosen where it was 0, kept for processes of ours: sockets that do not
    listen, beside which only who shares the port may. Raises BadConfig where somebody has it."""
    host, port = split_address(listen)
    with contextlib.ExitStack() as held:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family in dict.fromkeys((f, a[0]) for f, _, _, _, a in found):
                port = _reserve(*family, port, held)
        except OSError:
            raise cannot_listen(listen) from None
        yield address_of(listen, port)


def _reserve(
    family: socket.AddressFamily, host: str | int, port: int, held: contextlib.ExitStack
) -> int:
    """Raises OSError where another server listens."""
    with socket.socket(family) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for those that only linger
        alone.bind((host, port))
    ours = held.enter_context(socket.socket(family))
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        ours.bind((host, port))
    except OSError:
        # Connections of a server before this one linger; until a front listens, a server that
        # starts at the same moment is not kept out.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind((host, port))
    return int(ours.getsockname()[1])


# ---------------------------------------------------------------- children


class Child:
    """One process: what it said, and how often it ended."""

    def __init__(self, role: str, settings: dict[str, Any], heard: Callable[[], None]) -> None:
        """`heard` is called when it serves."""
        self.role = role
        self.refusal: SimsearchError | None = None
        """Why it did not start, where it said so."""
        self.ends = 0
        self._settings = json.dumps(settings).encode() + b"\n"
        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self._recent: deque[float] = deque()

    async def live(self) -> int:
        """Its exit status, once it has ended."""
        self.refusal = None
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "simsearch.serve.child", self.role),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=TOLD_BYTES_MAX,
            start_new_session=True,  # Ctrl-C is for the parent, which then stops the children
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._settings)
        async for line in self._process.stdout:
            self._listen(json.loads(line))
        return await self._process.wait()

    def _listen(self, told: dict[str, str]) -> None:
        if "refused" in told:
            kind = every_error().get(told["refused"], InternalFault)
            self.refusal = kind(told["message"])
        else:
            self._heard()

    async def stop(self, timeout_s: float) -> int:
        """SIGTERM, and SIGKILL where that is not enough; the exit status."""
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            return await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            log.error("child_killed", role=self.role)
            self._process.kill()
            return await self._process.wait()

    def fault(self, status: int) -> SimsearchError:
        return self.refusal or InternalFault(
            f"the {self.role} of this server ended with status {status}: its log says why"
        )

    def ended(self, now: float) -> float | None:
        """Seconds to wait before it is started again; None: it has ended too often."""
        self.ends += 1
        self._recent.append(now)
        while self._recent[0] < now - ENDS_WITHIN_S:
            self._recent.popleft()
        if len(self._recent) > ENDS_MAX:
            return None
        return min(BACKOFF_S * 2.0 ** (len(self._recent) - 1), BACKOFF_MAX_S)


class Supervisor:
    """One engine and its fronts, from the first start to the last stop."""

    def __init__(
        self,
        settings: dict[str, Any],
        fronts: int,
        drain_timeout_s: float,
        on_ready: Callable[[], None],
    ) -> None:
        self._drain_timeout_s = drain_timeout_s
        self._on_ready = on_ready
        self._serving: set[int] = set()
        self._fronts_wanted = fronts
        self._ready = False
        self._engine = Child("engine", settings, lambda: None)
        self._fronts = [
            Child("front", settings, lambda number=n: self._serves(number))  # type: ignore[misc]
            for n in range(fronts)
        ]

    async def run(self) -> int:
        """The exit status. Raises the fault of a child that does not stay."""
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        keeping = [
            asyncio.create_task(self._keep(child)) for child in (self._engine, *self._fronts)
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *keeping], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task  # raises what keeps the server from going on
        finally:
            stopping.cancel()
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            status = await self._stop()
        return status

    async def _keep(self, child: Child) -> None:
        while True:
            status = await child.live()
            log.error("child_ended", role=child.role, status=status, ends=child.ends + 1)
            wait_s = child.ended(time.monotonic())
            if not self._ready or wait_s is None:
                raise child.fault(status)
            await asyncio.sleep(wait_s)

    async def _stop(self) -> int:
        """The engine first: it tells the fronts, and answers what is in flight through them. Its
        exit status."""
        timeout_s = 2 * self._drain_timeout_s + STOP_MARGIN_S
        status = await self._engine.stop(timeout_s)
        await asyncio.gather(*(front.stop(timeout_s) for front in self._fronts))
        return status

    def _serves(self, number: int) -> None:
        self._serving.add(number)
        if not self._ready and len(self._serving) == self._fronts_wanted:
            self._ready = True
            self._on_ready()
