"""MatchService: content in, results out; work goes to the match threads."""

from __future__ import annotations

from collections.abc import Sequence

from simsearch.errors import LimitExceeded, SimsearchError
from simsearch.match.matcher import Outcome
from simsearch.serve.core import Core
from simsearch.serve.errors import item_error
from simsearch.serve.interceptors import Context
from simsearch.serve.work import Work
from simsearch.types import Content
from simsearch.v1 import content_pb2, match_pb2, match_pb2_grpc
from simsearch.wire import content_from, options_from, result_to


class MatchService(match_pb2_grpc.MatchServiceServicer):
    """Judges one content or a batch."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def Match(
        self, request: match_pb2.MatchRequest, context: Context
    ) -> match_pb2.MatchResponse:
        def one(core: Core) -> match_pb2.MatchResponse:
            outcome = _match(core, [request.content], request.options)[0]
            if isinstance(outcome, SimsearchError):
                raise outcome
            return match_pb2.MatchResponse(result=result_to(outcome))

        return await self._work.match(one)

    async def BatchMatch(
        self, request: match_pb2.BatchMatchRequest, context: Context
    ) -> match_pb2.BatchMatchResponse:
        def all_of_them(core: Core) -> match_pb2.BatchMatchResponse:
            _check_count(len(request.contents), core.config.limits.batch_items_max)
            outcomes = _match(core, request.contents, request.options)
            return match_pb2.BatchMatchResponse(items=[_item(o) for o in outcomes])

        return await self._work.match(all_of_them)


def _check_count(count: int, count_max: int) -> None:
    if count > count_max:
        raise LimitExceeded(f"{count} contents in one batch: {count_max} at most; send several")


def _match(
    core: Core, messages: Sequence[content_pb2.Content], options: match_pb2.MatchOptions
) -> list[Outcome]:
    """One outcome per message: those that cannot be read are refused, the others matched."""
    read = [_read(core, message) for message in messages]
    contents = [c for c in read if not isinstance(c, SimsearchError)]
    outcomes = iter(core.matcher.match(contents, options_from(options)))
    return [c if isinstance(c, SimsearchError) else next(outcomes) for c in read]


def _read(core: Core, message: content_pb2.Content) -> Content | SimsearchError:
    try:
        return content_from(message, core.dim_of)
    except SimsearchError as refusal:
        return refusal


def _item(outcome: Outcome) -> match_pb2.BatchMatchItem:
    if isinstance(outcome, SimsearchError):
        return match_pb2.BatchMatchItem(error=item_error(outcome))
    return match_pb2.BatchMatchItem(result=result_to(outcome))
