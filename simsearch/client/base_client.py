"""Base client: how `Client` and `AsyncClient` are opened, and what they tell of themselves."""

from __future__ import annotations

import inspect
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simsearch.client.batching.batch_queue import AutoBatch
from simsearch.client.credentials import ClientTls, Credentials, Metadata
from simsearch.client.transport.channel import Transport
from simsearch.client.transport.service_config import RetryPolicy
from simsearch.types import Priority

DEADLINE_S: Final = 30.0
PRIORITY: Final = "simsearch-priority"


@dataclass(frozen=True)
class ClientCounts:
    """What autobatching did so far: `batched` contents went to the server in `batches`."""

    batches: int = 0
    batched: int = 0


class BatchCounter:
    """Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = ClientCounts()

    def add(self, contents: int) -> None:
        """One batch of so many."""
        with self._lock:
            before = self._counts
            self._counts = ClientCounts(before.batches + 1, before.batched + contents)

    def snapshot(self) -> ClientCounts:
        return self._counts


class BaseClient(ABC):
    """`addresses`: one "host:port" or several that serve the same banks. Of several, those that
    are ready take turns; a name in a list is resolved once, when the client makes its first call.
    `deadline_s` bounds every call, retries and waiting included; each method takes one of its own.
    `token`, `tls`: credentials and trust. `priority`: BULK lets interactive work go
    first."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        deadline_s: float = DEADLINE_S,
        autobatch: bool | AutoBatch = True,
        retry: RetryPolicy | None = None,
        token: str = "",
        tls: ClientTls | None = None,
        priority: Priority | None = None,
    ) -> None:
        self._credentials = Credentials(tls, token)
        self._transport = Transport(
            [addresses] if isinstance(addresses, str) else addresses,
            self._credentials,
            deadline_s=deadline_s,
            retry=retry or RetryPolicy(),
            metadata=(*self._credentials.metadata, *_lane_metadata(priority)),
        )
        self._counter = BatchCounter()
        self._begin(AutoBatch() if autobatch is True else autobatch or None)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that the client was opened with."""
        return self._transport.addresses

    @property
    def counts(self) -> ClientCounts:
        """What autobatching did so far."""
        return self._counter.snapshot()

    @abstractmethod
    def _begin(self, bounds: AutoBatch | None) -> None: ...


def _lane_metadata(priority: Priority | None) -> Metadata:
    """Left out, the server's choice: StreamMatch is bulk, all else interactive."""
    return () if priority is None else ((PRIORITY, priority.name.lower()),)


def as_method(call: Callable[..., Any], build: Callable[..., Any]) -> None:
    """Let a method that was made of a function of `calls` be read like one that was written."""
    own = inspect.signature(build)
    self_ = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    returned = _returned(own)
    words = inspect.getdoc(build)
    call.__name__, call.__doc__ = build.__name__, words
    if "_pb2." in returned:
        call.__doc__ = f"{words}\n\nReturns protobuf: `{returned}` of `simsearch.v1`."
    call.__signature__ = own.replace(  # type: ignore[attr-defined]  # inspect reads it
        parameters=[self_, *own.parameters.values()], return_annotation=returned
    )


def _returned(build: inspect.Signature) -> str:
    """ "Bank" of "CallSpec[Bank]"."""
    found = re.fullmatch(r"CallSpec\[(.*)\]", build.return_annotation)
    assert found is not None
    return found[1]
