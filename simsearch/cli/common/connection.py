"""How a command reaches its server: the options that say who calls, for every such command."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from simsearch.errors import BadRequest

if TYPE_CHECKING:
    from simsearch.client import Client

TOKEN_VARIABLE = "SIMSEARCH_TOKEN"
"""The token itself; there is no option for it, because others see what a command was given."""

TOKEN_FILE_BYTES_MAX = 4096

TokenFile = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option(
        "--token-file",
        envvar="SIMSEARCH_TOKEN_FILE",
        help=f"a file with your token  [default: ${TOKEN_VARIABLE}]",
    ),
]
Ca = Annotated[
    str, typer.Option("--ca", envvar="SIMSEARCH_CA", help="TLS: who vouches for the server (PEM)")
]
Cert = Annotated[
    str, typer.Option("--cert", envvar="SIMSEARCH_CERT", help="TLS: your certificate (PEM)")
]
Key = Annotated[str, typer.Option("--key", envvar="SIMSEARCH_KEY", help="TLS: its key (PEM)")]


@dataclass(frozen=True)
class Caller:
    """What the options say; paths are empty where they were left out."""

    token_file: Path | None = None
    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def has_credentials(self) -> bool:
        return bool(self.token_file or os.environ.get(TOKEN_VARIABLE) or self.cert)

    def token(self) -> str:
        """Raises BadRequest."""
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE, "").strip()
        try:
            with self.token_file.open(encoding="utf-8") as file:
                token = file.read(TOKEN_FILE_BYTES_MAX).strip()
        except (OSError, UnicodeDecodeError):
            raise BadRequest(f"cannot read a token from {self.token_file}") from None
        if not token:
            raise BadRequest(f"{self.token_file} is empty: put your token there")
        return token


_caller: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039  # frozen


def asks_a_server(command: Callable[..., None]) -> Callable[..., None]:
    """The command with --token-file, --ca, --cert and --key, which `connect` then uses."""

    @functools.wraps(command)
    def with_caller(
        token_file: Path | None, tls_ca: str, tls_cert: str, tls_key: str, **given: Any
    ) -> None:
        before = _caller.set(Caller(token_file, tls_ca, tls_cert, tls_key))
        try:
            command(**given)
        finally:
            _caller.reset(before)

    parameters = [
        parameter
        for function in (command, _asked)
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
    ]
    # typer reads these two.
    with_caller.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_caller.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return with_caller


def _asked(
    *, token_file: TokenFile = None, tls_ca: Ca = "", tls_cert: Cert = "", tls_key: Key = ""
) -> None:
    """The options that are added; only its signature is used."""


def connect(server: str) -> Client:
    """A client of the server, as whom the options say. Raises BadRequest."""
    from simsearch.client import Client
    from simsearch.client.credentials import ClientTls

    caller = _caller.get()
    tls = ClientTls(caller.ca, caller.cert, caller.key)
    return Client(server, token=caller.token(), tls=None if tls == ClientTls() else tls)


def has_credentials() -> bool:
    """Whether the server will be told who calls."""
    return _caller.get().has_credentials
