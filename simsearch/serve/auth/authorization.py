"""In front of everything: who calls, may they, and not more than their share.

The guard stands before admission, so that a stranger takes no place in a queue and none of a
stranger's messages is parsed. What it finds out reaches the services as `identity.current()`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from simsearch.errors import (
    BadRequest,
    BankNotFound,
    LimitExceeded,
    Overloaded,
    PermissionDenied,
    SimsearchError,
    Unauthenticated,
)
from simsearch.serve.auth.identities_file import Directory, identify
from simsearch.serve.auth.identity import LOCAL, Identity, act_for
from simsearch.serve.auth.permissions import Rule, rule_of
from simsearch.serve.auth.rate_limit import Meter, Meters
from simsearch.serve.auth.redaction import without_scores
from simsearch.serve.transport.interceptors import OURS, Context, end_with
from simsearch.serve.transport.port import DESCRIPTORS
from simsearch.serve.transport.reloading_files import Reloading
from simsearch.serve.transport.status_codes import HIDDEN
from simsearch.telemetry import EventLog
from simsearch.v1 import bank_pb2, content_pb2
from simsearch.wire.field_limit import can_hold, check_fields

log = EventLog(__name__)

TLS_VERSION = b"TLSv1.3"

SMALL_BYTES: Final = 1 << 20
"""A message up to here cannot cost much, whatever is in it; one without content has no need of
more, and of others the fields are counted."""

_CONTENT: Final[Any] = content_pb2.Content.DESCRIPTOR
_ASKS: Final = {
    f"/{service.full_name}/{method.name}": method.input_type
    for service in DESCRIPTORS
    for method in service.methods
}

STREAM_WAIT_S_MAX = 30.0
"""How long one request of a stream waits for its quota: only other calls can make it as long."""


@dataclass(frozen=True)
class GuardCounts:
    """Calls let in, and calls refused: of nobody known, of somebody who may not, over a quota, or
    no message, or one too large. A stream that is ended is counted as both."""

    admitted: int = 0
    unauthenticated: int = 0
    denied: int = 0
    over_quota: int = 0
    malformed: int = 0


class Guard(grpc.aio.ServerInterceptor):
    """Identity, permission and quota of every call. Without a directory every caller is LOCAL,
    who may do all that some role may."""

    def __init__(
        self,
        directory: Reloading[Directory] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        tls: bool = True,
    ) -> None:
        """`tls`: the port may speak it, so that its version is to be looked at."""
        self._directory = directory
        self._tls = tls
        self.meters = Meters(clock)
        self._counted = dict.fromkeys((f.name for f in fields(GuardCounts)), 0)

    @property
    def counts(self) -> GuardCounts:
        return GuardCounts(**self._counted)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        rule = rule_of(details.method)
        if handler is None or rule.roles is None:
            return handler
        guarded = _Guarded(self, details.method, rule, handler)
        streams = handler.request_streaming and handler.response_streaming
        kind: Any = (
            grpc.stream_stream_rpc_method_handler
            if streams
            else grpc.unary_unary_rpc_method_handler
        )
        behaviour = guarded.stream if streams else guarded.unary
        # Not deserialised by gRPC: the guard does that, once it knows who sent it.
        return kind(behaviour, None, handler.response_serializer)

    # ------------------------------------------------------------ asked by a call

    def caller_of(self, context: Context) -> Identity:
        """Raises Unauthenticated."""
        if self._directory is None and not self._tls:
            return LOCAL
        auth = context.auth_context()
        if list(auth.get("transport_security_type", ())) == [b"ssl"]:
            _check_tls_version(list(auth.get("ssl_tls_version", ())))
        if self._directory is None:
            return LOCAL
        return identify(self._directory.current(), context.invocation_metadata() or (), auth)

    @contextmanager
    def refusing(self, context: Context, method: str) -> Iterator[None]:
        """Whatever is refused within is the end of the call, by name."""
        try:
            yield
        except SimsearchError as refusal:
            self._refuse(context, method, refusal)
        except Exception:
            # Whatever goes wrong here lets nobody in, lets nothing out, and is not told.
            log.error("guard_failed", method=method, exc_info=True)
            end_with(context, HIDDEN)

    def count_admitted(self) -> None:
        self._counted["admitted"] += 1

    def _refuse(self, context: Context, method: str, refusal: SimsearchError) -> None:
        match refusal:
            case Unauthenticated():
                self._counted["unauthenticated"] += 1
            case Overloaded():
                self._counted["over_quota"] += 1
            case BadRequest() | LimitExceeded():
                self._counted["malformed"] += 1
            case _:
                self._counted["denied"] += 1
        log.info("call_refused", method=method, reason=refusal.reason, peer=context.peer())
        end_with(context, refusal)


class _Guarded:
    """One RPC's handler behind the guard."""

    def __init__(self, guard: Guard, method: str, rule: Rule, handler: Any) -> None:
        self._guard = guard
        self._method = method
        self.rule = rule
        self._handler = handler
        asks = _ASKS.get(method)
        self._large = asks if asks and can_hold(asks, _CONTENT) else None

    async def unary(self, raw: bytes, context: Context) -> Any:
        with self._guard.refusing(context, self._method):
            caller = self.permitted(context)
            request = self.parse(raw)
            _check_request(caller, self.rule, request)
            meter = self.meter(caller)
            with meter.call():
                meter.charge(_weight(self.rule, request))
                self._guard.count_admitted()
                act_for(caller)
                response = await self._handler.unary_unary(request, context)
            return self._seen_by(caller, response)
        return None

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        with self._guard.refusing(context, self._method):
            caller = self.permitted(context)
            metered = _Metered(self, requests, context, caller)
            with self.meter(caller).call():
                self._guard.count_admitted()
                act_for(caller)
                async with aclosing(self._handler.stream_stream(metered, context)) as responses:
                    async for response in responses:
                        yield self._seen_by(caller, response)
            if metered.refusal is not None:
                raise metered.refusal

    def meter(self, caller: Identity) -> Meter:
        return self._guard.meters.of(caller)

    def permitted(self, context: Context) -> Identity:
        """The caller, whose role may call this. Raises Unauthenticated and PermissionDenied."""
        caller = self._guard.caller_of(context)
        _check_role(caller, self.rule, self._method)
        return caller

    def parse(self, raw: bytes) -> Any:
        """Raises BadRequest, LimitExceeded."""
        if len(raw) > SMALL_BYTES:
            _check_large(raw, self._large)
        try:
            return self._handler.request_deserializer(raw)
        except DecodeError:
            raise BadRequest(f"the message is no request of {self._method}") from None

    def _seen_by(self, caller: Identity, response: Any) -> Any:
        ours = isinstance(response, Message) and self._method.startswith(OURS)
        if ours and not caller.may_see_scores:
            without_scores(response)
        return response


class _Metered:
    """A stream's requests, each looked at as if it were a call of its own: who may no longer call
    ends here, and who sends more than the quota is read more slowly."""

    def __init__(
        self, guarded: _Guarded, requests: AsyncIterator[bytes], context: Context, caller: Identity
    ) -> None:
        self._guarded = guarded
        self._requests = requests
        self._context = context
        self._caller = caller
        self.refusal: SimsearchError | None = None

    def __aiter__(self) -> _Metered:
        return self

    async def __anext__(self) -> Any:
        raw = await anext(self._requests)
        try:
            request = self._guarded.parse(raw)
            await self._let_in(request)
        except SimsearchError as refusal:
            # Not raised here: the service answers what it has, and the guard has the last word.
            self.refusal = refusal
            raise StopAsyncIteration from None
        return request

    async def _let_in(self, request: Any) -> None:
        if self._guarded.permitted(self._context) != self._caller:
            raise Unauthenticated("what this identity may do was changed: open the stream again")
        meter, items = self._guarded.meter(self._caller), _weight(self._guarded.rule, request)
        waited_s = 0.0
        while wait_s := meter.try_charge(items):
            if waited_s > STREAM_WAIT_S_MAX:
                raise Overloaded(f"no room in your quota for {waited_s:.0f} s: open fewer streams")
            await asyncio.sleep(wait_s)
            waited_s += wait_s


# ---------------------------------------------------------------- what is checked


def _check_tls_version(versions: list[bytes]) -> None:
    if versions != [TLS_VERSION]:
        raise Unauthenticated("this connection is older than TLS 1.3: connect with TLS 1.3")


def _check_role(caller: Identity, rule: Rule, method: str) -> None:
    assert rule.roles is not None  # open RPCs are not guarded
    if caller.roles & rule.roles:
        return
    needed = " or ".join(sorted(rule.roles)) or "a rule, which it has not: nobody may call it"
    raise PermissionDenied(
        f"{method.rpartition('/')[2]} needs the role {needed}; "
        f"{caller.name} is {', '.join(sorted(caller.roles))}"
    )


def _check_large(raw: bytes, descriptor: Descriptor | None) -> None:
    """`descriptor` of the message, where it is of a kind that may be large. Raises LimitExceeded
    and BadRequest."""
    if descriptor is None:
        raise LimitExceeded(
            f"{len(raw)} bytes in a request that carries no content: {SMALL_BYTES} at most"
        )
    check_fields(raw, descriptor)


def _check_request(caller: Identity, rule: Rule, request: Any) -> None:
    """Raises BankNotFound of a bank that is not there for the caller, and PermissionDenied."""
    name: str = getattr(request, rule.bank) if rule.bank else ""
    if rule.bank and (name or not rule.any_bank):
        if rule.edits and name not in caller.edits:
            _refuse_edit(caller, name)
        if name not in caller.reads:
            raise BankNotFound(f"there is no bank {name[:80]!r} that {caller.name} may read")
    if rule.edits and caller is not LOCAL:
        _sign(caller, request.edit)


def _refuse_edit(caller: Identity, name: str) -> None:
    """In words that do not depend on whether there is such a bank."""
    raise PermissionDenied(
        f"{caller.name} may not edit a bank called {name[:80]!r}: an operator can add it to "
        "edit_banks of this identity"
    )


def _sign(caller: Identity, edit: Any) -> None:
    """What stands on the record is who called. Raises PermissionDenied."""
    if edit.actor not in ("", caller.name):
        raise PermissionDenied(
            f"{caller.name} cannot sign as {edit.actor[:80]!r}: leave the actor of the edit empty"
        )
    edit.actor = caller.name


def _weight(rule: Rule, request: Any) -> int:
    """Items in one request, rows of hashes among them; an empty batch weighs 1."""
    items = len(getattr(request, rule.items)) if rule.items else 1
    if isinstance(request, bank_pb2.ImportEntriesRequest):
        items += len(request.hashes.about_of)
    return max(1, items)
