"""Batch request: many callers' contents in one BatchMatch, and each caller's own outcome of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from simsearch.client.batching.batch_queue import AutoBatch, QueuedMatch
from simsearch.client.calls.call_spec import CallSpec
from simsearch.client.calls.match_calls import items_of
from simsearch.client.calls.rpcs import BATCH_MATCH, MATCH
from simsearch.client.transport.service_config import RetryPolicy
from simsearch.errors import (
    ContentTooLarge,
    InternalFault,
    LimitExceeded,
    NotReady,
    Overloaded,
    SimsearchError,
)
from simsearch.v1 import match_pb2
from simsearch.wire import item_error_from

HITS_MAX = 10_000
"""Contents × hits_max of one answer: servers refuse more."""

HITS_DEFAULT = 10

BLAMELESS = (LimitExceeded, ContentTooLarge, InternalFault)
"""Refusals of a whole batch that one content in it may have brought upon the others, or that there
are others: each is then asked about by itself."""

PASSING = (Overloaded, NotReady)
"""Refusals of one item that its own call would have tried again."""

F = TypeVar("F")


@dataclass(frozen=True)
class Alone:
    """The content is to be asked about by itself, after it failed with `after`."""

    after: SimsearchError | None = None


Answer: TypeAlias = match_pb2.MatchResponse | match_pb2.BatchMatchItem
"""What the `read` of a match call takes: each has a `result`."""

Settled: TypeAlias = Answer | SimsearchError | Alone


@dataclass(eq=False)
class PendingMatch(QueuedMatch, Generic[F]):
    """One caller's content, its deadline, and `future`, by which the caller waits for it."""

    spec: CallSpec[Any]
    deadline: float
    future: F


def pending(spec: CallSpec[Any], deadline: float, future: F, bounds: AutoBatch) -> PendingMatch[F]:
    request = _request_of(spec)
    hits = request.options.hits_max or HITS_DEFAULT
    return PendingMatch(
        kind=request.options.SerializeToString(deterministic=True),
        size_bytes=request.content.ByteSize(),
        items_max=max(1, min(bounds.items_max, HITS_MAX // max(1, hits))),
        spec=spec,
        deadline=deadline,
        future=future,
    )


def joined(batch: Sequence[PendingMatch[Any]]) -> CallSpec[Sequence[Settled]]:
    """The call that asks for all of them; one goes as it would have gone without us."""
    requests = [_request_of(item.spec) for item in batch]
    if len(requests) == 1:
        return CallSpec(MATCH, requests[0], lambda reply: [reply])
    request = match_pb2.BatchMatchRequest(
        contents=[r.content for r in requests], options=requests[0].options
    )
    return CallSpec(BATCH_MATCH, request, lambda reply: items_of(reply, len(requests)))


def refused(error: SimsearchError, count: int) -> Sequence[Settled]:
    """What becomes of each content where their call failed as a whole."""
    if count > 1 and isinstance(error, BLAMELESS):
        return [Alone()] * count
    return [copy.copy(error) for _ in range(count)]  # each is raised in a thread or task of its own


def answer_of(settled: Settled) -> Answer | Alone:
    """A caller's own answer, or its own error raised."""
    if isinstance(settled, SimsearchError):
        raise settled
    if isinstance(settled, match_pb2.BatchMatchItem) and settled.WhichOneof("outcome") != "result":
        error = item_error_from(settled.error)
        if isinstance(error, PASSING):
            return Alone(after=error)
        raise error
    return settled


def wait_before_repeat(after: SimsearchError | None, retry: RetryPolicy, deadline: float) -> float:
    """Seconds until a content is asked about by itself, after it failed with `after` in a batch.
    Raises `after` where it is not to be repeated, or not in time."""
    if after is None:
        return 0.0
    asked_ms = after.retry_after_ms if isinstance(after, Overloaded) else None
    wait_s = retry.backoff_s if asked_ms is None else asked_ms / 1000
    if retry.attempts_max == 1 or time.monotonic() + wait_s >= deadline:
        raise after
    return wait_s


def _request_of(spec: CallSpec[Any]) -> match_pb2.MatchRequest:
    assert isinstance(spec.request, match_pb2.MatchRequest)
    return spec.request
