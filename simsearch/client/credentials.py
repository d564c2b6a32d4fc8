"""Client credentials: TLS files, and the token that goes with every call.

A token proves its owner to whoever reads it, so it is never sent in clear text to another machine.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc

from simsearch.errors import BadRequest

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ClientTls:
    """Files in PEM. `ca`: who may vouch for the server, left out for those that this machine
    trusts; `cert` and `key`: who the client is, where the server asks for a certificate.
    `server_name`: the name that the server's certificate must carry, left out for that of its
    address; needed for addresses with several hosts."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""


@dataclass(frozen=True)
class Credentials:
    """`tls` None: clear text. `token`: as `simsearch token new` printed it."""

    tls: ClientTls | None = None
    token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(tls={self.tls!r}, token={'set' if self.token else 'none'})"

    @property
    def metadata(self) -> Metadata:
        """To be sent with every call over a channel that `check` let pass."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def check(self, address: str) -> None:
        """Raises BadRequest where the token would cross a network in clear text, or is none."""
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            raise BadRequest("the token has characters that no token has: was it copied whole?")
        if self.token and self.tls is None and not is_loopback(address):
            raise BadRequest(
                f"a token is not sent to {address} in clear text: use TLS (--ca, or tls=ClientTls()"
                " for the authorities that this machine trusts)"
            )


def channel_credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    """Raises BadRequest where a file cannot be read, or one of cert and key is missing."""
    if bool(tls.cert) != bool(tls.key):
        raise BadRequest("a client's cert and key go together: give both files, or neither")
    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))


def is_loopback(address: str) -> bool:
    """Whether "host:port" stays on this machine whatever a name server says."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as fault:
        raise BadRequest(f"cannot read {path}: {fault.strerror}") from None
