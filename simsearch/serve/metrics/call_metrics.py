"""Call metrics: durations of calls by RPC and outcome, and of the stages of their work; traces."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from simsearch.errors import SimsearchError
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.transport.call_boundary import OURS, Call, CallLayer, Enter, Method
from simsearch.serve.transport.status_codes import HIDDEN
from simsearch.telemetry import RunningCall, set_running_call

OK: Final = "OK"
CANCELLED: Final = "CANCELLED"
"""The caller went before the answer."""


class Span(Protocol):
    """A trace span of one call."""

    def stage(self, name: str, began: float, ended: float) -> None:
        """As RunningCall.on_stage."""
        ...

    def end(self, outcome: str) -> None:
        """The call has ended, with OK, CANCELLED or the reason of an error."""
        ...


class Tracer(Protocol):
    """Makes the spans of calls."""

    def begin(self, rpc: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span:
        """A span of a call that begins now; its parent is the one named in the metadata."""
        ...


class CallMetrics(CallLayer):
    """Duration and outcome of every call, and the durations of its stages. To stand outside the
    layers that refuse calls, so that refusals are counted.

    Calls are by (RPC, outcome), as in ("MatchService/Match", "OVERLOADED"): names from the protos
    and reasons from the tree of errors, so that a caller cannot make more of them."""

    def __init__(self, metrics: EventMetrics, tracer: Tracer | None = None) -> None:
        self._metrics = metrics
        self._tracer = tracer

    def bind(self, method: Method) -> Enter | None:
        """Not health and reflection: probes every second would drown the calls."""
        if not method.is_ours:
            return None
        return partial(self._measured, method.name.removeprefix(OURS))

    def _measured(self, rpc: str, call: Call) -> _Measured:
        if self._tracer is None:
            return _Measured(self._metrics, rpc, None)
        metadata = tuple(call.context.invocation_metadata() or ())
        return _Measured(self._metrics, rpc, self._tracer.begin(rpc, metadata))


class _Measured:
    """Around one call: measures it, and receives the stages of its work."""

    __slots__ = ("_began", "_metrics", "_rpc", "_span")

    def __init__(self, metrics: EventMetrics, rpc: str, span: Span | None) -> None:
        self._metrics = metrics
        self._rpc = rpc
        self._span = span

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        set_running_call(RunningCall(f"{random.getrandbits(64):016x}", self._on_stage))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        outcome = _outcome_of(error)
        self._metrics.calls[self._rpc, outcome].observe(time.perf_counter() - self._began)
        if self._span:
            self._span.end(outcome)

    def _on_stage(self, name: str, began: float, ended: float) -> None:
        self._metrics.stages[name,].observe(ended - began)
        if self._span:
            self._span.stage(name, began, ended)


def _outcome_of(error: BaseException | None) -> str:
    """OK, CANCELLED, or the reason of the error that ended a call."""
    match error:
        case None:
            return OK
        case SimsearchError():
            return error.reason
        case asyncio.CancelledError() | GeneratorExit():
            return CANCELLED
        case _:
            return HIDDEN.reason
