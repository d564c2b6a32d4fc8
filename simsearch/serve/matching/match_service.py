"""MatchService: matches content against the banks.

Calls are admitted by the weight of their requests, then parsed, matched and answered on the match
threads.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final

import grpc

from simsearch.config import LimitsConfig
from simsearch.errors import BadRequest, LimitExceeded, PermissionDenied, SimsearchError
from simsearch.match.matcher import Outcome
from simsearch.serve.auth.identity import Identity, current
from simsearch.serve.core.server_core import Core
from simsearch.serve.matching.match_steps import match_all
from simsearch.serve.matching.match_stream import MatchStream
from simsearch.serve.scheduling.admission import Demand
from simsearch.serve.scheduling.executor import MatchExecutor
from simsearch.serve.scheduling.scheduler import Steps
from simsearch.serve.transport.call_boundary import Context
from simsearch.serve.transport.status_codes import item_error
from simsearch.types import CallContext, MatchOptions, Priority
from simsearch.v1 import match_pb2
from simsearch.wire import options_from, result_to
from simsearch.wire.request_weight import (
    Unparsed,
    Weight,
    weighed_batch,
    weighed_match,
    weighed_stream,
)

SERVICE: Final = match_pb2.DESCRIPTOR.services_by_name["MatchService"].full_name

HITS_PER_CALL_MAX: Final = 10_240
"""Bound on contents × hits_max, as a response is built whole: a batch of 1,024 with the default of
10 hits each is within it."""

PRIORITY_KEY: Final = "simsearch-priority"
PRIORITIES: Final = {priority.name.lower(): priority for priority in Priority}


def add_match_service(executor: MatchExecutor, server: grpc.aio.Server) -> None:
    """Register the service. Its requests arrive weighed and unparsed, which generated code cannot
    do."""
    service = MatchService(executor)
    methods: dict[str, Any] = {
        "Match": grpc.unary_unary_rpc_method_handler(
            service.match, weighed_match, match_pb2.MatchResponse.SerializeToString
        ),
        "BatchMatch": grpc.unary_unary_rpc_method_handler(
            service.batch_match, weighed_batch, match_pb2.BatchMatchResponse.SerializeToString
        ),
        "StreamMatch": grpc.stream_stream_rpc_method_handler(
            service.stream_match, weighed_stream, match_pb2.StreamMatchResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])


class MatchService:
    """Matches one content, a batch, or a stream of them."""

    def __init__(self, executor: MatchExecutor) -> None:
        self._executor = executor

    async def match(
        self, request: Unparsed[match_pb2.MatchRequest], context: Context
    ) -> match_pb2.MatchResponse:
        """One content."""
        demand = self._demand(request.weight, context, Priority.INTERACTIVE)
        return await self._executor.match(partial(_match, request, current()), demand)

    async def batch_match(
        self, request: Unparsed[match_pb2.BatchMatchRequest], context: Context
    ) -> match_pb2.BatchMatchResponse:
        """Many contents, each with an outcome of its own."""
        self._check_count(request.weight.items)
        demand = self._demand(request.weight, context, Priority.INTERACTIVE)
        return await self._executor.match(partial(_batch_match, request, current()), demand)

    async def stream_match(
        self, requests: AsyncIterator[Unparsed[match_pb2.StreamMatchRequest]], context: Context
    ) -> AsyncGenerator[match_pb2.StreamMatchResponse, None]:
        """Contents as they come, answered as they are done; bulk unless the metadata says
        otherwise, and without a deadline of its own."""
        caller = current()

        def demand(weight: Weight) -> Demand:
            return self._demand(weight, context, Priority.BULK, math.inf)

        def options(raw: match_pb2.MatchOptions) -> MatchOptions:
            return _options(raw, caller)

        stream = MatchStream(self._executor, requests, demand, options)
        async with aclosing(stream.answers()) as answers:
            async for response in answers:
                yield response

    def _demand(
        self, weight: Weight, context: Context, priority: Priority, default_s: float | None = None
    ) -> Demand:
        """`default_s` in place of the server's default deadline."""
        remaining_s = context.time_remaining()
        return self._executor.demand(
            weight, _priority(context, priority), default_s if remaining_s is None else remaining_s
        )

    def _check_count(self, count: int) -> None:
        count_max = self._executor.loaded().config.limits.batch_items_max
        if count > count_max:
            raise LimitExceeded(f"{count} contents in one batch: {count_max} at most; send several")


# ---------------------------------------------------------------- on the match threads


def _match(
    request: Unparsed[match_pb2.MatchRequest], caller: Identity, core: Core, call: CallContext
) -> Steps[match_pb2.MatchResponse]:
    message = request.parse()
    options = _options(message.options, caller)
    [outcome] = yield from match_all(core, [message.content], options, call)
    if isinstance(outcome, SimsearchError):
        raise outcome
    return match_pb2.MatchResponse(result=result_to(outcome))


def _batch_match(
    request: Unparsed[match_pb2.BatchMatchRequest], caller: Identity, core: Core, call: CallContext
) -> Steps[match_pb2.BatchMatchResponse]:
    message = request.parse()
    options = _options(message.options, caller)
    _check_hits(len(message.contents), options, core.config.limits)
    outcomes = yield from match_all(core, message.contents, options, call)
    response = match_pb2.BatchMatchResponse(items=_items(outcomes))
    _check_answer(response.ByteSize(), core.config.server.message_bytes_max)
    return response


# ---------------------------------------------------------------- checks and conversions


def _priority(context: Context, default: Priority) -> Priority:
    for key, value in context.invocation_metadata() or ():
        if key == PRIORITY_KEY:
            if value not in PRIORITIES:
                raise BadRequest(
                    f"there is no priority of that name: set {PRIORITY_KEY} to "
                    f"{' or '.join(PRIORITIES)}, or leave it out"
                )
            return PRIORITIES[value]
    return default


def _options(message: match_pb2.MatchOptions, caller: Identity) -> MatchOptions:
    """Raises PermissionDenied."""
    if message.with_shadow and not caller.may_see_scores:
        raise PermissionDenied(
            f"with_shadow is for who may see scores, and {caller.name} may not: leave it out"
        )
    return replace(options_from(message), access=caller.reads)


def _check_hits(count: int, options: MatchOptions, limits: LimitsConfig) -> None:
    if count * options.hits_max > HITS_PER_CALL_MAX:
        raise LimitExceeded(
            f"{count} contents with {options.hits_max} hits each: {HITS_PER_CALL_MAX} hits in one "
            "answer at most; ask for fewer hits or send fewer contents"
        )


def _check_answer(nbytes: int, nbytes_max: int) -> None:
    if nbytes > nbytes_max:
        raise LimitExceeded(
            f"the answer has {nbytes} bytes: {nbytes_max} in one message at most; ask for fewer "
            "hits or send fewer contents"
        )


def _items(outcomes: Sequence[Outcome]) -> list[match_pb2.BatchMatchItem]:
    """One item for each outcome; the message of an outcome that repeats is built once."""
    made: dict[int, match_pb2.BatchMatchItem] = {}
    return [made.get(id(o)) or made.setdefault(id(o), _item(o)) for o in outcomes]


def _item(outcome: Outcome) -> match_pb2.BatchMatchItem:
    if isinstance(outcome, SimsearchError):
        return match_pb2.BatchMatchItem(error=item_error(outcome))
    return match_pb2.BatchMatchItem(result=result_to(outcome))
