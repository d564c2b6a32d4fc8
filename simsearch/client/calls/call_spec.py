"""Call spec: one call to make, as the client's methods hand it to the transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from simsearch.client.calls.rpcs import Rpc

T = TypeVar("T")


@dataclass(frozen=True)
class CallSpec(Generic[T]):
    """`read` makes the result of the reply. `deadline_s`: for this call; None is the client's."""

    rpc: Rpc
    request: Message
    read: Callable[[Any], T]
    deadline_s: float | None = None


def whole(reply: T) -> T:
    """The reply as it is."""
    return reply
