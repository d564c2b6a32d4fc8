"""The command as a shell runs it, and a server that refuses everything it is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
import pytest
import typer

from simsearch.cli.app import app, main
from simsearch.errors import SimsearchError
from simsearch.lazy_commands import LazyGroup
from simsearch.serve.transport.status_codes import status_of, trailers_of
from simsearch.v1 import bank_pb2, bank_pb2_grpc

NOBODY = "127.0.0.1:1"
"""An address where nothing listens."""


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Ran]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `simsearch WORDS…` in this process."""

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["simsearch", *words])
        try:
            main()
            code: object = 0
        except SystemExit as stop:
            code = stop.code or 0
        assert isinstance(code, int)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def commands() -> dict[str, Any]:
    """Every command by its words, as in "simsearch entry add"."""

    root = typer.main.get_command(app)
    assert isinstance(root, LazyGroup)
    return dict(root.leaves("simsearch"))


class Refusing(bank_pb2_grpc.BankServiceServicer):
    """A BankService whose every reading call fails with one error, as a real server's would."""

    def __init__(self, error: SimsearchError) -> None:
        self._error = error

    def GetBank(self, request: bank_pb2.GetBankRequest, context: grpc.ServicerContext) -> NoReturn:
        context.set_trailing_metadata(trailers_of(self._error))
        context.abort(status_of(self._error), self._error.message)


@contextmanager
def serving(bank: bank_pb2_grpc.BankServiceServicer) -> Iterator[str]:
    """The address of a server with this one service."""
    server = grpc.server(ThreadPoolExecutor(1))
    bank_pb2_grpc.add_BankServiceServicer_to_server(bank, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
