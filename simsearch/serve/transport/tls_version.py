"""TLS version: allows 1.3 only, for which gRPC for Python has no setting.

gRPC reads the list of TLS 1.2 cipher suites from the environment when it is imported. The one suite
named here needs a pre-shared key; gRPC never has one, so no TLS 1.2 handshake can succeed. The
suites of TLS 1.3 are not affected. This has no effect where gRPC was imported earlier, so a server
probes its own port before it serves.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from types import MappingProxyType

from simsearch.errors import BadConfig

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {"GRPC_SSL_CIPHER_SUITES": "ECDHE-PSK-CHACHA20-POLY1305"}
)
"""To be set before the first import of grpc."""

PROBE_TIMEOUT_S = 5.0
_HANDSHAKE = b"\x16"
"""First byte of a server's answer that continues the handshake; a refusal is an alert, or nothing.
It comes before any certificate is requested, so the probe needs none."""


def check_only_tls_1_3(host: str, port: int) -> None:
    """Raises BadConfig where the server at this address speaks TLS 1.2, or no TLS at all."""
    if not _answers(host, port, ssl.TLSVersion.TLSv1_3):
        raise BadConfig(f"no TLS 1.3 handshake came about with {host}:{port}: see [tls]")
    if _answers(host, port, ssl.TLSVersion.TLSv1_2):
        (setting,) = ENVIRONMENT.items()
        raise BadConfig(
            "this process would speak TLS 1.2, because gRPC was imported before it was told not "
            f"to: start it as `simsearch serve`, or with {'='.join(setting)} in the environment"
        )


def _answers(host: str, port: int, version: ssl.TLSVersion) -> bool:
    """Whether the server continues the handshake of a client that speaks this version alone."""
    try:
        with socket.create_connection((host, port), PROBE_TIMEOUT_S) as connection:
            connection.sendall(_client_hello(version))
            return connection.recv(1) == _HANDSHAKE
    except OSError:
        return False


def _client_hello(version: ssl.TLSVersion) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the handshake ends here: nothing is sent or trusted
    context.set_alpn_protocols(["h2"])
    context.maximum_version = version
    context.minimum_version = version
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(received, sent, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("a handshake cannot end before the other side answers")
