"""Server certificates: read, checked, and reloaded for new connections when the files change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import grpc

from simsearch.config import TlsConfig
from simsearch.errors import BadConfig
from simsearch.serve.transport.reloading_files import FileReloader, ReloadCounts


@dataclass(frozen=True)
class CertificateFiles:
    """Content of the three files, in PEM. Without `client_ca` clients need no certificate."""

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """As gRPC wants it."""
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.cert)], root_certificates=self.client_ca
        )


class ServerTls:
    """Certificates of a server. Changed files apply to the next connection; open connections keep
    what they began with."""

    def __init__(self, config: TlsConfig) -> None:
        """Raises BadConfig."""
        self._config = config
        paths = [Path(p) for p in (config.cert, config.key, config.client_ca) if p]
        # Checked for every connection: three stat calls cost nothing beside a handshake.
        self._files = FileReloader("tls", paths, lambda: read_files(config), every_s=0.0)
        self._served = self._files.current()

    @property
    def counts(self) -> ReloadCounts:
        """Reloads since the start."""
        return self._files.counts

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`."""
        return grpc.dynamic_ssl_server_credentials(
            self._served.configuration(),
            self._changed,  # type: ignore[arg-type]  # None is documented: nothing changed
            require_client_authentication=bool(self._config.client_ca),
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC for each new connection; None: nothing has changed."""
        files = self._files.current()
        if files is self._served:
            return None
        self._served = files
        return files.configuration()


def read_files(config: TlsConfig) -> CertificateFiles:
    """Raises BadConfig where a file cannot be read, or key and certificate do not match."""
    files = CertificateFiles(
        cert=_read(config.cert),
        key=_read(config.key),
        client_ca=_read(config.client_ca) if config.client_ca else None,
    )
    _check_pair(config)
    if files.client_ca is not None:
        _check_authorities(config.client_ca, files.client_ca)
    return files


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as fault:
        raise BadConfig(f"[tls]: cannot read {path}: {fault.strerror}") from None


def _check_pair(config: TlsConfig) -> None:
    def passphrase() -> NoReturn:
        raise BadConfig(f"[tls]: {config.key} has a passphrase: store the key without one")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.cert, config.key, passphrase)
    except (ssl.SSLError, OSError):
        raise BadConfig(
            f"[tls]: {config.cert} and {config.key} are no certificate and its key, in PEM"
        ) from None


def _check_authorities(path: str, content: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=content.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):  # ValueError: the file is empty
        raise BadConfig(f"[tls]: client_ca {path} holds no certificates in PEM") from None
