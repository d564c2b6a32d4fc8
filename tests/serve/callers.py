"""Identities for a test: the file that says who is who, and servers that ask for them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc

from simsearch.config import ApprovalConfig, CacheConfig
from simsearch.serve.auth.authorization import Authorization
from simsearch.serve.auth.identities_file import load_identities
from simsearch.serve.auth.tokens import new_token, record_of
from simsearch.serve.transport.certificates import ServerTls
from simsearch.serve.transport.reloading_files import FileReloader
from simsearch.types import Role
from tests.serve.house import APPROVAL, served

DENIED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


@dataclass
class Callers:
    """The identities file at `path`, and the token of each identity in it."""

    path: Path
    tokens: dict[str, str] = field(default_factory=dict)
    _tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, *roles: str, **keys: Any) -> None:
        """With access to every bank, to read and to edit, but for what `keys` say otherwise."""
        self.tokens[name] = new_token()
        records = [str(record_of(self.tokens[name]))]
        given = {"roles": [*roles], "banks": ["*"], "edit_banks": ["*"], "tokens": records}
        self._tables[name] = given | keys
        self.write()

    def change(self, name: str, **keys: Any) -> None:
        self._tables[name] |= keys
        self.write()

    def remove(self, name: str) -> None:
        del self._tables[name]
        self.write()

    def write(self) -> None:
        lines = []
        for name, table in self._tables.items():
            lines.append(f'[identities."{name}"]')
            lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
        beside = self.path.with_suffix(".new")
        beside.write_text("\n".join(lines) + "\n")
        os.replace(beside, self.path)

    def authorization(self, clock: Callable[[], float] | None = None) -> Authorization:
        """Looks at the file at every call."""
        read = partial(load_identities, self.path)
        directory = FileReloader("identities", [self.path], read, every_s=0.0)
        return Authorization(directory, clock) if clock else Authorization(directory)


def _toml(value: object) -> str:
    return json.dumps(value)  # alike, for strings, numbers, booleans and lists of them


@dataclass(frozen=True)
class Served:
    address: str
    callers: Callers
    authorization: Authorization

    def metadata(self, name: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.callers.tokens[name]}"),)


@contextmanager
def guarded(
    directory: Path,
    callers: Callers,
    clock: Callable[[], float] | None = None,
    tls: ServerTls | None = None,
    approval: ApprovalConfig = APPROVAL,
) -> Iterator[Served]:
    authorization = callers.authorization(clock)
    with served(
        directory / "bank",
        {},
        CacheConfig(),
        authorization=authorization,
        tls=tls,
        approval=approval,
    ) as address:
        yield Served(address, callers, authorization)


def one_of_each(path: Path) -> Callers:
    """An identity of each role, called by it."""
    callers = Callers(path)
    for role in Role:
        callers.add(role, role)
    return callers


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    """How a raw call ended."""
    try:
        call()
    except grpc.RpcError as failure:
        return cast(grpc.Call, failure).code()
    return grpc.StatusCode.OK


def raw_call(
    channel: grpc.Channel, method: str, metadata: Sequence[tuple[str, str]], kind: str
) -> Callable[[], object]:
    """An empty request of any RPC, by the kind of its handler, and the first of its answers."""
    multi = getattr(channel, kind)(method)
    request = iter([b""]) if kind.startswith("stream") else b""

    def call() -> object:
        answer = multi(request, metadata=metadata, timeout=10)
        if not kind.endswith("stream"):
            return answer
        first = next(iter(answer), None)
        answer.cancel()
        return first

    return call
