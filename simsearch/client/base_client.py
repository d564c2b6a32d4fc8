"""What `Client` and `AsyncClient` have in common: how one is opened, what it tells of itself."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from simsearch.client.batching.batch_queue import AutoBatch
from simsearch.client.credentials import ClientTls, Credentials, Metadata
from simsearch.client.pool import channels_by_default
from simsearch.client.retry import RetryPolicy
from simsearch.client.sending import ClientCounts, Sender
from simsearch.types import Priority

DEADLINE_S: Final = 30.0
PRIORITY: Final = "simsearch-priority"


class BaseClient(ABC):
    """`addresses`: one "host:port" or several that serve the same banks. `deadline_s` bounds every
    call, retries and waiting included; each method takes one of its own. `channels`: connections
    to each address, by default one for two cores, four at most. `token` and `tls`: who the caller
    is, and whom it trusts. `priority`: BULK lets interactive work go first."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        deadline_s: float = DEADLINE_S,
        autobatch: bool | AutoBatch = True,
        retry: RetryPolicy | None = None,
        channels: int | None = None,
        token: str = "",
        tls: ClientTls | None = None,
        priority: Priority | None = None,
    ) -> None:
        listed = [addresses] if isinstance(addresses, str) else addresses
        self._credentials = Credentials(tls, token)
        for address in listed:
            self._credentials.check(address)
        self._sender = Sender(
            listed,
            self._open_channel,
            deadline_s=deadline_s,
            channels=channels_by_default() if channels is None else channels,
            retry=retry or RetryPolicy(),
            metadata=(*self._credentials.metadata, *_lane_metadata(priority)),
        )
        self._begin(AutoBatch() if autobatch is True else autobatch or None)

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._sender.addresses

    @property
    def counts(self) -> ClientCounts:
        return self._sender.counter.snapshot()

    @property
    def addresses_aside(self) -> tuple[str, ...]:
        """Those that failed or asked for a pause, and are not asked now."""
        return tuple(self._sender.pool.aside())

    @abstractmethod
    def _begin(self, bounds: AutoBatch | None) -> None: ...

    @abstractmethod
    def _open_channel(self, address: str) -> Any: ...


def _lane_metadata(priority: Priority | None) -> Metadata:
    """Left out, the server's choice: StreamMatch is bulk, all else interactive."""
    return () if priority is None else ((PRIORITY, priority.name.lower()),)


def as_method(call: Callable[..., Any], build: Callable[..., Any]) -> None:
    """Let a method that was made of a function of `calls` be read like one that was written."""
    own = inspect.signature(build)
    self_ = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    call.__name__, call.__doc__ = build.__name__, build.__doc__
    call.__signature__ = own.replace(  # type: ignore[attr-defined]  # inspect reads it
        parameters=[self_, *own.parameters.values()], return_annotation=inspect.Signature.empty
    )
