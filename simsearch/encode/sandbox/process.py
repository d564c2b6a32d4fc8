"""Worker process: starts a decode worker, sends it images, and kills it at the first fault."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from simsearch.encode.image.decoder import DecodedImage, ImageRequest
from simsearch.encode.sandbox.wire_format import (
    Kind,
    ProtocolError,
    WorkerSettings,
    receive_answer,
    receive_kind,
    send_request,
)
from simsearch.errors import NoSandbox, SimsearchError

WORKER_MODULE = "simsearch.encode.sandbox.worker"

START_S_MAX = 60.0
"""Between a start and READY; a tenth of a second of computing and some imports."""

END_S_MAX = 5.0
"""For the system to take a killed process away."""

# What the server imports is what the worker imports, wherever it comes from. -I alone leaves
# out the current directory and every environment variable.
_BOOT = "import importlib, sys; sys.path[:] = sys.argv[3:]; importlib.import_module(sys.argv[1])"

_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""All of it. One thread: workers are the parallelism, and each thread would take memory."""


class Loss(Enum):
    """How a worker was lost over an image."""

    UNBEGUN = "unbegun"
    """Before it had read the image: not the image's doing."""
    STARVED = "starved"
    """It had time on the clock and none on a processor: not the image's doing either."""
    HUNG = "hung"
    CRASHED = "crashed"


class WorkerLost(Exception):
    """The worker is no more. `detail` says how it ended, for the log."""

    def __init__(self, loss: Loss, detail: str) -> None:
        super().__init__(detail)
        self.loss = loss
        self.detail = detail


@dataclass(eq=False)
class Worker:
    """Asked by one thread at a time. `images` is how many it was given, `begun` whether it has
    read the last one whole."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    images: int = 0
    begun: bool = False
    _answering: bool = False

    @classmethod
    def start(cls, settings: WorkerSettings, module: str = WORKER_MODULE) -> Worker:
        """Returns before it is ready. Linux ends a worker with the *thread* that started it.
        Raises NoSandbox."""
        command = [sys.executable, "-I", "-c", f"{_BOOT}.main()", module, settings.to_json()]
        command += [os.path.abspath(path) for path in sys.path]
        with contextlib.ExitStack() as opened:
            try:
                ours, theirs = (opened.enter_context(end) for end in socket.socketpair())
                process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=_ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,  # Ctrl-C is for the server, which drains
                )
            except OSError as fault:
                raise _no_sandbox(f"{sys.executable}: {fault.strerror}") from None
            return cls(process, ours.dup())

    def wait_ready(self) -> None:
        """Raises NoSandbox with the end of what it said; then it is killed."""
        assert self.process.stderr is not None
        try:
            receive_kind(self.link, Kind.READY, time.monotonic() + START_S_MAX)
        except (OSError, EOFError, ProtocolError) as fault:
            self.process.kill()
            said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
            self.kill()
            raise _no_sandbox(said[-1] if said else type(fault).__name__) from None
        self.process.stderr.close()

    @property
    def fit(self) -> bool:
        """Alive, not in the middle of an answer, and silent as it should be unasked."""
        if self._answering or self.process.poll() is not None:
            return False
        poller = select.poll()
        poller.register(self.link, select.POLLIN)
        return not poller.poll(0)

    def decode(self, data: bytes, request: ImageRequest, timeout_s: float) -> DecodedImage:
        """Raises what the image is refused for, and WorkerLost."""
        deadline = time.monotonic() + timeout_s
        spent_s = computed_s(self.process.pid)
        self._answering, self.begun = True, False
        self.images += 1
        try:
            send_request(self.link, data, request, deadline)
            receive_kind(self.link, Kind.BEGUN, deadline)
            self.begun = True
            answer = receive_answer(self.link, request, deadline)
        except SimsearchError:
            self._answering = False
            raise
        except TimeoutError:
            spent_s = computed_s(self.process.pid) - spent_s
            self.kill()
            starved = not self.begun or spent_s < timeout_s / 2
            said = f"computed {spent_s:.1f} s of {timeout_s:g} s"
            raise WorkerLost(Loss.STARVED if starved else Loss.HUNG, said) from None
        except (OSError, EOFError, ProtocolError) as fault:
            self.kill()
            raise WorkerLost(self._loss(), self._last_words(fault)) from None
        self._answering = False
        return answer

    def kill(self) -> None:
        """At once, whatever it does. It has nothing to lose."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S_MAX)
        self.link.close()
        if self.process.stderr:
            self.process.stderr.close()

    def _loss(self) -> Loss:
        if self.process.returncode == -signal.SIGXCPU:
            return Loss.HUNG
        return Loss.CRASHED if self.begun else Loss.UNBEGUN

    def _last_words(self, fault: Exception) -> str:
        return f"{type(fault).__name__} {fault}, status {self.process.returncode}"


def computed_s(pid: int) -> float:
    """Seconds on a processor so far. Where the system does not tell, all time counts as such."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return time.monotonic()
    user, system = told.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _no_sandbox(cause: str) -> NoSandbox:
    return NoSandbox(
        f"the workers that decode images do not start ({cause}): mend that, or set workers = 0 in "
        "[sandbox] and trust every image with the server's own process"
    )
