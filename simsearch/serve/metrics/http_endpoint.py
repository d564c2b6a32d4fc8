"""Metrics server: `/metrics`, `/ready` and `/live` over plain HTTP.

It has threads of its own, so that it answers while the event loop is busy; their number is bounded.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from simsearch.config_file import split_address
from simsearch.errors import BadConfig

CONNECTIONS_MAX: Final = 16
POLL_S: Final = 0.1
"""Longest time for `close` to be noticed."""

TIMEOUT_S: Final = 5.0
"""Timeout of each read and write of a connection."""

StartResponse: TypeAlias = Callable[[str, list[tuple[str, str]]], Any]
WebApp: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
Probe: TypeAlias = Callable[[], bool]


class MetricsServer:
    """Answers from its construction to `close`."""

    def __init__(self, listen: str, metrics: WebApp, ready: Probe, live: Probe) -> None:
        """Raises BadConfig if it cannot listen at this address."""
        host, port = split_address(listen)
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as fault:
            raise BadConfig(
                f"metrics: cannot listen on {listen} ({fault.strerror}): choose another address"
            ) from None
        self._server.set_app(_site(metrics, {"/ready": ready, "/live": live}))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="metrics-server", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The TCP port."""
        port: int = self._server.server_address[1]
        return port

    def close(self) -> None:
        """Stop the thread and close the socket."""
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
        """Without the look-up of this host's name in http.server."""
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
        """Not logged: a client that disconnects or is silent."""


class _Handler(WSGIRequestHandler):
    timeout = TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Not logged: there is a scrape every few seconds."""
