"""gRPC port: listen address, TLS, limits of gRPC itself, health and reflection.

Nothing here knows encoders, banks or indexes: the server adds the services.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from simsearch.config import Config, ServerConfig, TlsConfig
from simsearch.config_file import split_address
from simsearch.errors import BadConfig
from simsearch.serve.transport.call_boundary import CallBoundary, CallLayer
from simsearch.serve.transport.certificates import ServerTls
from simsearch.serve.transport.slow_readers import UNREAD_S, SlowReaders
from simsearch.serve.transport.tls_version import check_only_tls_1_3
from simsearch.v1 import (
    bank_pb2,
    feedback_pb2,
    index_pb2,
    match_pb2,
    proposal_pb2,
)

DESCRIPTORS: Final = (
    match_pb2.DESCRIPTOR.services_by_name["MatchService"],
    bank_pb2.DESCRIPTOR.services_by_name["BankService"],
    feedback_pb2.DESCRIPTOR.services_by_name["FeedbackService"],
    proposal_pb2.DESCRIPTOR.services_by_name["ProposalService"],
    index_pb2.DESCRIPTOR.services_by_name["IndexService"],
)
SERVICES: Final = tuple(descriptor.full_name for descriptor in DESCRIPTORS)

LIVE: Final = "live"
"""The name that liveness probes ask for: it is SERVING while the port is open, ready or not."""

HEADERS_BYTES_MAX: Final = 16 << 10

TLS_OPTIONS: Final = (("grpc.max_connection_age_ms", 3_600_000),)
"""A certificate is checked when a connection begins, so a connection must not outlive it for long.
gRPC lets calls in flight finish."""

CALLS_PER_CONNECTION_MAX: Final = 1_024
"""Well over what is admitted: a call too many is refused by name, not queued in its client."""

PING_INTERVAL_MIN_S: Final = 5
"""Who pings more often is cut off (GOAWAY, too_many_pings). Our clients ping every 10 s."""

STOP_GRACE_S: Final = 2.0
"""Time for refusals on their way out and open health watches, once no call is in flight."""


def check_listen(config: Config) -> None:
    """Raises BadConfig where other machines could reach the port without TLS and identities,
    unless the configuration allows that explicitly."""
    host, _ = split_address(config.server.listen)
    if config.server.insecure_allow_remote_without_tls or _is_loopback(host):
        return
    if not (config.tls.cert and config.identity.file):
        missing = "[tls], calls could be read and changed on the way"
        if config.tls.cert:
            missing = "[identity], anybody who gets there could ban, retract and read"
        raise BadConfig(
            f"listen = {config.server.listen!r} is reachable from other machines, and without "
            f"{missing}: see docs/operate/identity.md, or use 127.0.0.1. Behind a guard of your "
            "own, set insecure_allow_remote_without_tls = true"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def tls_of(config: TlsConfig) -> ServerTls | None:
    """The configured certificates; None without TLS. Raises BadConfig."""
    return ServerTls(config) if config.cert else None


class GrpcPort:
    """A gRPC server with health and reflection. Services are added to `server` before `open`."""

    def __init__(
        self,
        config: ServerConfig,
        layers: Sequence[CallLayer],
        tls: ServerTls | None = None,
    ) -> None:
        """The first layer is the outermost; outside all of them stands the one for slow readers."""
        self._listen = config.listen
        self._tls = tls
        self.health = health.aio.HealthServicer()
        self.slow_readers = SlowReaders()
        self._unread_s = min(UNREAD_S, config.stream_idle_s)
        self._watching: asyncio.Task[None] | None = None
        self.server = grpc.aio.server(
            interceptors=[CallBoundary([self.slow_readers, *layers])],
            options=[
                ("grpc.max_receive_message_length", config.message_bytes_max),
                ("grpc.max_send_message_length", config.message_bytes_max),
                ("grpc.max_metadata_size", HEADERS_BYTES_MAX),
                # By default a quarter more, and what lies between the two is refused at random.
                ("grpc.absolute_max_metadata_size", HEADERS_BYTES_MAX),
                ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION_MAX),
                # Clients find a server that hangs by pings; gRPC permits one in five minutes.
                ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_S * 1000),
                ("grpc.keepalive_permit_without_calls", 1),
                # Two servers on one port would each hold half of the truth about who is up.
                ("grpc.so_reuseport", 0),
                *(TLS_OPTIONS if tls else ()),
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self.server
        )

    async def open(self) -> str:
        """Listen, with TLS 1.3 only, and report NOT_SERVING; returns the address, in which a
        configured port of 0 is the one that was chosen.

        Raises BadConfig.
        """
        address = await self.listen()
        if self._tls:
            await self._check_tls(split_address(address)[1])
        return address

    async def listen(self) -> str:
        """As `open`, without the check of the TLS version. Raises BadConfig."""
        port = self._bind()
        await self.health.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self.set_serving(False)
        self.slow_readers.check()
        await self.server.start()
        self._watching = asyncio.create_task(self.slow_readers.watch(self._unread_s))
        return _address_of(self._listen, port)

    async def set_serving(self, serving: bool) -> None:
        """Set what gRPC's health service answers."""
        answers = health_pb2.HealthCheckResponse
        status = answers.SERVING if serving else answers.NOT_SERVING
        for service in ("", *SERVICES):
            await self.health.set(service, status)

    async def close(self, grace_s: float | None) -> None:
        """Stop the server; calls in flight have `grace_s` to end, None: no time."""
        await self.server.stop(grace_s)
        if self._watching is not None:
            self._watching.cancel()

    def _bind(self) -> int:
        try:
            if self._tls:
                return self.server.add_secure_port(self._listen, self._tls.credentials())
            return self.server.add_insecure_port(self._listen)
        except RuntimeError:
            raise BadConfig(
                f"cannot listen on {self._listen}: is another server there? choose another port"
            ) from None

    async def _check_tls(self, port: int) -> None:
        try:
            await asyncio.to_thread(check_only_tls_1_3, _own_host(self._listen), port)
        except BadConfig:
            await self.server.stop(None)
            raise


def _address_of(listen: str, port: int) -> str:
    host, _ = split_address(listen)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _own_host(listen: str) -> str:
    """The host under which this process reaches its own port."""
    host, _ = split_address(listen)
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
