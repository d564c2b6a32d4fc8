"""Client transport: one gRPC channel to all addresses, opened at the first call, and what every
call over it has in common.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from simsearch.client.calls.rpcs import RPCS, Rpc
from simsearch.client.credentials import Credentials, Metadata
from simsearch.client.transport.error_mapping import error_of
from simsearch.client.transport.service_config import Options, RetryPolicy, channel_options
from simsearch.client.transport.target import Target, check_addresses, target_of
from simsearch.errors import BadRequest, SimsearchError, Unreachable


class Transport:
    """Safe between threads. Times are on the clock of time.monotonic(), in seconds."""

    def __init__(
        self,
        addresses: Sequence[str],
        credentials: Credentials,
        *,
        deadline_s: float,
        retry: RetryPolicy,
        metadata: Metadata,
    ) -> None:
        if not 0 < deadline_s < math.inf:
            raise BadRequest(f"deadline_s is {deadline_s}: give every call some time, and an end")
        self.addresses = tuple(addresses)
        self._server_name = credentials.tls.server_name if credentials.tls else ""
        check_addresses(
            self.addresses,
            with_tls=credentials.tls is not None,
            server_name=self._server_name,
        )
        for address in self.addresses:
            credentials.check(address)
        self.deadline_s = deadline_s
        self.retry = retry
        self.metadata = metadata
        self.closed = threading.Event()
        self.channel: Any = None
        self._opening = threading.Lock()
        self._stubs: dict[type[Any], Any] = {}

    def target(self) -> Target:
        """May block for name servers. Raises Unreachable."""
        return target_of(self.addresses, self._server_name)

    def open(self, target: Target, open_channel: Callable[[str, Options], Any]) -> None:
        """Unless that is done. Servers are asked for their health where there are several: one
        alone answers for itself, ready or not."""
        with self._opening:
            if self.channel is None:
                options = channel_options(
                    self.retry,
                    RPCS,
                    checks_health=len(self.addresses) > 1,
                    authority=target.authority,
                )
                self.channel = open_channel(target.uri, options)

    def method(self, rpc: Rpc) -> Callable[..., Any]:
        """To be called, over an open channel."""
        stub = self._stubs.get(rpc.service.stub)
        if stub is None:  # two threads may both make one: they are alike
            stub = self._stubs[rpc.service.stub] = rpc.service.stub(self.channel)
        method: Callable[..., Any] = getattr(stub, rpc.name)
        return method

    def deadline_of(self, deadline_s: float | None) -> float:
        return time.monotonic() + (self.deadline_s if deadline_s is None else deadline_s)

    def check_open(self) -> None:
        """Raises Unreachable on a closed client."""
        if self.closed.is_set():
            raise self.is_closed()

    def is_closed(self) -> Unreachable:
        return Unreachable("this client is closed: open another one")

    def too_late(self) -> Unreachable:
        """For a call that is given up before any server was asked, or had time to answer."""
        return Unreachable(
            f"no answer from {self._where} (DEADLINE_EXCEEDED): give calls more "
            "time, or the server fewer"
        )

    @contextmanager
    def errors_mapped(self) -> Iterator[None]:
        """Around a call: what gRPC raises comes out as an error of `simsearch.errors`."""
        try:
            yield
        except (grpc.RpcError, ValueError, grpc.aio.UsageError, asyncio.CancelledError) as fault:
            error = self._error_of(fault)
            if error is None:
                raise
            raise error from None

    def _error_of(self, fault: BaseException) -> SimsearchError | None:
        if self.closed.is_set() and _is_end_of_channel(fault):
            return self.is_closed()
        return error_of(fault, self._where) if isinstance(fault, grpc.RpcError) else None

    @property
    def _where(self) -> str:
        return " or ".join(self.addresses)


def _is_end_of_channel(fault: BaseException) -> bool:
    """How grpc and grpc.aio end calls of a channel that is closed under them. A task that is
    itself being cancelled is told apart: its CancelledError must go on."""
    if isinstance(fault, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or not task.cancelling()
    return True
