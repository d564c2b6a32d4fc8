"""A port of plain HTTP for the operator's machines: `/metrics`, `/ready` and `/live`.

In threads of its own, so that it answers while the event loop is busy, and with a bound on them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from simsearch.config import split_address
from simsearch.errors import BadConfig

CONNECTIONS_MAX: Final = 16
POLL_S: Final = 0.1
"""How soon it notices that it is closed."""

TIMEOUT_S: Final = 5.0
"""For a request to come and its answer to go."""

StartResponse: TypeAlias = Callable[[str, list[tuple[str, str]]], Any]
WebApp: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
Probe: TypeAlias = Callable[[], bool]


class MetricsServer:
    """Answers until it is closed."""

    def __init__(self, listen: str, metrics: WebApp, ready: Probe, live: Probe) -> None:
        """Raises BadConfig where it cannot listen."""
        host, port = split_address(listen)
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as fault:
            raise BadConfig(
                f"metrics: cannot listen on {listen} ({fault.strerror}): choose another address"
            ) from None
        self._server.set_app(_site(metrics, {"/ready": ready, "/live": live}))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="scrape-port", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _site(metrics: WebApp, probes: dict[str, Probe]) -> WebApp:
    def answer(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics(environ, start)
        if path not in probes:
            return _text(start, HTTPStatus.NOT_FOUND, "there are /metrics, /ready and /live")
        if probes[path]():
            return _text(start, HTTPStatus.OK, "yes")
        return _text(start, HTTPStatus.SERVICE_UNAVAILABLE, "no: see simsearch status")

    return answer


def _text(start: StartResponse, status: HTTPStatus, words: str) -> Iterable[bytes]:
    start(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{words}\n".encode()]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._room = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without asking the name service what this host is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes or says nothing is no event."""


class _Handler(WSGIRequestHandler):
    timeout = TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is no event."""
