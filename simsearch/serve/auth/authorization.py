"""Call authorization: identity, role, bank access and rate limit of every call; redaction.

It stands before admission, so that an unauthenticated caller takes no place in a queue and none of
its messages is parsed. Services read the caller as `identity.current()`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final, NoReturn

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from simsearch.errors import (
    BadRequest,
    BankNotFound,
    LimitExceeded,
    Overloaded,
    PermissionDenied,
    SimsearchError,
    Unauthenticated,
)
from simsearch.serve.auth.identities_file import Identities, identify
from simsearch.serve.auth.identity import LOCAL, Identity, act_for
from simsearch.serve.auth.permissions import Rule, rule_of
from simsearch.serve.auth.rate_limit import RateLimits, TokenBucket
from simsearch.serve.auth.redaction import without_scores
from simsearch.serve.transport.call_boundary import Call, CallLayer, Context, Enter, Method
from simsearch.serve.transport.port import DESCRIPTORS
from simsearch.serve.transport.reloading_files import FileReloader
from simsearch.telemetry import EventLog
from simsearch.v1 import bank_pb2, content_pb2
from simsearch.wire.field_limit import can_hold, check_fields

log = EventLog(__name__)

TLS_VERSION = b"TLSv1.3"

SMALL_BYTES: Final = 1 << 20
"""A message up to this size is cheap to parse, whatever is in it. A larger one is refused where its
type carries no content; otherwise its fields are counted first."""

_CONTENT: Final[Any] = content_pb2.Content.DESCRIPTOR
_REQUEST_TYPES: Final = {
    f"/{service.full_name}/{method.name}": method.input_type
    for service in DESCRIPTORS
    for method in service.methods
}

STREAM_WAIT_S_MAX = 30.0
"""How long one request of a stream waits for its quota. Only other calls of the same identity can
make it wait this long."""


@dataclass(frozen=True)
class AuthorizationCounts:
    """Calls admitted, and calls refused: not authenticated, not permitted, over a quota, or with a
    message that is malformed or too large. A stream that is ended counts as both."""

    admitted: int = 0
    unauthenticated: int = 0
    denied: int = 0
    over_quota: int = 0
    malformed: int = 0


class Authorization(CallLayer):
    """Identity, permission and quota of every call. Without an identities file every caller is
    LOCAL, who has every role."""

    parses = True  # once the caller is known

    def __init__(
        self,
        identities: FileReloader[Identities] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        tls: bool = True,
    ) -> None:
        """`tls`: the port may speak TLS, so that its version is checked."""
        self._identities = identities
        self._tls = tls
        self.rate_limits = RateLimits(clock)
        self._counted = dict.fromkeys((f.name for f in fields(AuthorizationCounts)), 0)

    @property
    def counts(self) -> AuthorizationCounts:
        """A copy of the counters."""
        return AuthorizationCounts(**self._counted)

    def bind(self, method: Method) -> Enter | None:
        """The checks of the method's row; None where it is open to everybody."""
        rule = rule_of(method.name)
        if rule.roles is None:
            return None
        rules = _MethodRules(self, method, rule)
        return rules.stream if method.is_stream else rules.unary

    def caller_of(self, context: Context) -> Identity:
        """Raises Unauthenticated."""
        if self._identities is None and not self._tls:
            return LOCAL
        auth = context.auth_context()
        if list(auth.get("transport_security_type", ())) == [b"ssl"]:
            _check_tls_version(list(auth.get("ssl_tls_version", ())))
        if self._identities is None:
            return LOCAL
        return identify(self._identities.current(), context.invocation_metadata() or (), auth)

    def count_admitted(self) -> None:
        """One call has passed every check."""
        self._counted["admitted"] += 1

    def refuse(self, context: Context, method: str, refusal: SimsearchError) -> NoReturn:
        """Count, log and raise a refusal."""
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
        raise refusal


class _MethodRules:
    """The checks of one RPC's calls."""

    def __init__(self, authorization: Authorization, method: Method, rule: Rule) -> None:
        self._authorization = authorization
        self._method = method
        self.rule = rule
        request_type = _REQUEST_TYPES.get(method.name)
        self._large = request_type if request_type and can_hold(request_type, _CONTENT) else None

    @contextmanager
    def unary(self, call: Call) -> Iterator[None]:
        """Around a call whose request is bytes; makes them a message."""
        try:
            caller = self.permitted(call.context)
            call.request = self.parse(call.request)
            _check_request(caller, self.rule, call.request)
            bucket = self.bucket(caller)
            bucket.begin_call(_weight(self.rule, call.request))
        except SimsearchError as refusal:
            self._authorization.refuse(call.context, self._method.name, refusal)
        self._act_for(caller, call)
        try:
            yield
        finally:
            bucket.end_call()

    @contextmanager
    def stream(self, call: Call) -> Iterator[None]:
        """Around a stream of requests that are bytes; makes them messages, each checked."""
        try:
            caller = self.permitted(call.context)
            bucket = self.bucket(caller)
            bucket.begin_call()
        except SimsearchError as refusal:
            self._authorization.refuse(call.context, self._method.name, refusal)
        call.request = requests = _CheckedRequests(self, call.request, call.context, caller)
        self._act_for(caller, call)
        try:
            yield
        except SimsearchError:
            if requests.refusal is None:
                raise
        finally:
            bucket.end_call()
        if requests.refusal is not None:
            self._authorization.refuse(call.context, self._method.name, requests.refusal)

    def bucket(self, caller: Identity) -> TokenBucket:
        """The rate limit of this caller."""
        return self._authorization.rate_limits.of(caller)

    def permitted(self, context: Context) -> Identity:
        """The caller, whose role may call this. Raises Unauthenticated and PermissionDenied."""
        caller = self._authorization.caller_of(context)
        _check_role(caller, self.rule, self._method.name)
        return caller

    def parse(self, raw: bytes) -> Any:
        """Raises BadRequest, LimitExceeded."""
        if len(raw) > SMALL_BYTES:
            _check_large(raw, self._large)
        try:
            return self._method.handler.request_deserializer(raw)
        except DecodeError:
            raise BadRequest(f"the message is no request of {self._method.name}") from None

    def _act_for(self, caller: Identity, call: Call) -> None:
        self._authorization.count_admitted()
        act_for(caller)
        if self._method.is_ours and not caller.may_see_scores:
            call.edit_response = without_scores


class _CheckedRequests:
    """A stream's requests, each checked as if it were a call of its own. The stream ends with the
    first that is not permitted any more; over the quota, requests are read more slowly."""

    def __init__(
        self,
        rules: _MethodRules,
        requests: AsyncIterator[bytes],
        context: Context,
        caller: Identity,
    ) -> None:
        self._rules = rules
        self._requests = requests
        self._context = context
        self._caller = caller
        self.refusal: SimsearchError | None = None

    def __aiter__(self) -> _CheckedRequests:
        return self

    async def __anext__(self) -> Any:
        raw = await anext(self._requests)
        try:
            request = self._rules.parse(raw)
            await self._admit(request)
        except SimsearchError as refusal:
            # Not raised here: the service still answers what it has, then the call is refused.
            self.refusal = refusal
            raise StopAsyncIteration from None
        return request

    async def _admit(self, request: Any) -> None:
        if self._rules.permitted(self._context) != self._caller:
            raise Unauthenticated("what this identity may do was changed: open the stream again")
        bucket, items = self._rules.bucket(self._caller), _weight(self._rules.rule, request)
        waited_s = 0.0
        while wait_s := bucket.try_charge(items):
            if waited_s > STREAM_WAIT_S_MAX:
                raise Overloaded(f"no room in your quota for {waited_s:.0f} s: open fewer streams")
            await asyncio.sleep(wait_s)
            waited_s += wait_s


# ---------------------------------------------------------------- checks


def _check_tls_version(versions: list[bytes]) -> None:
    if versions != [TLS_VERSION]:
        raise Unauthenticated("this connection is older than TLS 1.3: connect with TLS 1.3")


def _check_role(caller: Identity, rule: Rule, method: str) -> None:
    assert rule.roles is not None  # open RPCs are not checked
    if caller.roles & rule.roles:
        return
    needed = " or ".join(sorted(rule.roles)) or "a rule, which it has not: nobody may call it"
    raise PermissionDenied(
        f"{method.rpartition('/')[2]} needs the role {needed}; "
        f"{caller.name} is {', '.join(sorted(caller.roles))}"
    )


def _check_large(raw: bytes, descriptor: Descriptor | None) -> None:
    """`descriptor` of the message where its type carries content; None where it may not be large.
    Raises LimitExceeded and BadRequest."""
    if descriptor is None:
        raise LimitExceeded(
            f"{len(raw)} bytes in a request that carries no content: {SMALL_BYTES} at most"
        )
    check_fields(raw, descriptor)


def _check_request(caller: Identity, rule: Rule, request: Any) -> None:
    """Check the bank that a request names, and sign its edit. Raises BankNotFound where the caller
    may not read the bank, and PermissionDenied."""
    name: str = getattr(request, rule.bank) if rule.bank else ""
    if rule.bank and (name or not rule.any_bank):
        if rule.edits and name not in caller.edits:
            _refuse_edit(caller, name)
        if name not in caller.reads:
            raise BankNotFound(f"there is no bank {name[:80]!r} that {caller.name} may read")
    if rule.edits and caller is not LOCAL:
        _sign(caller, request.edit)


def _refuse_edit(caller: Identity, name: str) -> None:
    """The message must not depend on whether there is such a bank."""
    raise PermissionDenied(
        f"{caller.name} may not edit a bank called {name[:80]!r}: an operator can add it to "
        "edit_banks of this identity"
    )


def _sign(caller: Identity, edit: Any) -> None:
    """Write the caller's name into an edit. Raises PermissionDenied where another name is there."""
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
