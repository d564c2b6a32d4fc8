"""What a relayed call meets in the engine: its guard, its context, and the handler of its RPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import grpc

from simsearch.errors import Unauthenticated
from simsearch.internal.v1 import relay_pb2
from simsearch.serve.guard import Guard, GuardCounts
from simsearch.serve.identity import LOCAL, Identity
from simsearch.serve.interceptors import Chain, Context
from simsearch.serve.relay import Headers, caller_from, headers_from, headers_to


class EngineGuard(Guard):
    """The guard of an engine: asks nobody who they are, for their front did."""

    def __init__(
        self,
        *,
        asks: bool,
        clock: Callable[[], float] = time.monotonic,
        at_fronts: Callable[[], GuardCounts] = GuardCounts,
    ) -> None:
        """`asks`: the fronts ask for identities, and nobody is LOCAL. `at_fronts` is what they
        refused."""
        super().__init__(clock=clock)
        self._asks = asks
        self._at_fronts = at_fronts

    def who(self, context: Context) -> Identity:
        caller = cast(RelayedContext, context).caller
        if self._asks and caller is LOCAL:
            raise Unauthenticated("this engine takes calls of known callers only")
        return caller

    @property
    def counts(self) -> GuardCounts:
        own, theirs = super().counts, self._at_fronts()
        return GuardCounts(
            **{f.name: getattr(own, f.name) + getattr(theirs, f.name) for f in fields(GuardCounts)}
        )


class RelayedContext:
    """What a handler may ask of the call, and set on its answer: see relay.py."""

    def __init__(self, opening: relay_pb2.Opening) -> None:
        self.caller = caller_from(opening.caller)
        self.ending = relay_pb2.Ending()
        self._deadline_s = opening.deadline_s
        self._peer = opening.peer
        self._headers = headers_from(opening.headers)

    def time_remaining(self) -> float | None:
        return self._deadline_s - time.monotonic() if self._deadline_s else None

    def invocation_metadata(self) -> Headers:
        return self._headers

    def peer(self) -> str:
        return self._peer

    def code(self) -> int:
        return self.ending.code

    def trailing_metadata(self) -> Headers:
        return headers_from(self.ending.trailers)

    def set_code(self, code: grpc.StatusCode) -> None:
        self.ending.code = code.value[0]

    def set_details(self, words: str) -> None:
        self.ending.details = words

    def set_trailing_metadata(self, trailers: Headers) -> None:
        del self.ending.trailers[:]
        self.ending.trailers.extend(headers_to(trailers))


@dataclass(frozen=True)
class _Details:
    """What an interceptor asks about a call before it begins."""

    method: str
    invocation_metadata: tuple[()] = ()


class Handlers:
    """Takes services as a gRPC server does, and gives each method's handler behind the
    interceptors, the first of them outermost."""

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self._chain = Chain(interceptors)
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._generic += handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """The same once more, for a server that can make use of it."""

    async def of(self, method: str) -> Any:
        """None where there is no such method."""
        details = cast(grpc.HandlerCallDetails, _Details(method))
        return await self._chain.intercept_service(self._service, details)

    async def _service(self, details: grpc.HandlerCallDetails) -> Any:
        found = (generic.service(details) for generic in self._generic)
        return next((handler for handler in found if handler is not None), None)
