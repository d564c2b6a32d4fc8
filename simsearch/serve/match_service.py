"""MatchService: content in, results out; work goes to the match threads, in slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from simsearch.errors import LimitExceeded, SimsearchError
from simsearch.match.matcher import Outcome
from simsearch.serve.core import Core
from simsearch.serve.errors import item_error
from simsearch.serve.interceptors import Context
from simsearch.serve.work import Stop, Work
from simsearch.types import Content, ImageContent, MatchOptions, TextContent, VectorContent
from simsearch.v1 import content_pb2, match_pb2, match_pb2_grpc
from simsearch.wire import content_from, options_from, result_to

SLICE_COST = 32_000
"""How much is encoded and searched before a call is asked whether it is still wanted."""

IMAGE_COST = 2_000
HITS_PER_CALL_MAX = 10_000
"""Contents × hits_max: bounds the size of an answer, which is built whole."""


class MatchService(match_pb2_grpc.MatchServiceServicer):
    """Judges one content or a batch."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def Match(
        self, request: match_pb2.MatchRequest, context: Context
    ) -> match_pb2.MatchResponse:
        def one(core: Core, stop: Stop) -> match_pb2.MatchResponse:
            outcome = _match(core, [request.content], options_from(request.options), stop)[0]
            if isinstance(outcome, SimsearchError):
                raise outcome
            return match_pb2.MatchResponse(result=result_to(outcome))

        return await self._work.match(one)

    async def BatchMatch(
        self, request: match_pb2.BatchMatchRequest, context: Context
    ) -> match_pb2.BatchMatchResponse:
        def all_of_them(core: Core, stop: Stop) -> match_pb2.BatchMatchResponse:
            options = options_from(request.options)
            _check_size(len(request.contents), options, core.config.limits.batch_items_max)
            outcomes = _match(core, request.contents, options, stop)
            return match_pb2.BatchMatchResponse(items=[_item(o) for o in outcomes])

        return await self._work.match(all_of_them)


def _check_size(count: int, options: MatchOptions, count_max: int) -> None:
    if count > count_max:
        raise LimitExceeded(f"{count} contents in one batch: {count_max} at most; send several")
    if count * options.hits_max > HITS_PER_CALL_MAX:
        raise LimitExceeded(
            f"{count} contents with {options.hits_max} hits each: {HITS_PER_CALL_MAX} hits in one "
            "answer at most; ask for fewer hits or send fewer contents"
        )


def _match(
    core: Core, messages: Sequence[content_pb2.Content], options: MatchOptions, stop: Stop
) -> list[Outcome]:
    """One outcome per message: those that cannot be read are refused, the others matched."""
    read = [_read(core, message) for message in messages]
    contents = [c for c in read if not isinstance(c, SimsearchError)]
    matched: list[Outcome] = []
    for part in _slices(contents):
        stop.check()
        matched += core.matcher.match(part, options)
    outcomes = iter(matched)
    return [c if isinstance(c, SimsearchError) else next(outcomes) for c in read]


def _slices(contents: Sequence[Content]) -> Iterator[Sequence[Content]]:
    """Neighbours together up to a cost; an empty batch is one slice, whose options are checked."""
    start = cost = 0
    for end, content in enumerate(contents):
        cost += _cost(content)
        if cost > SLICE_COST and end > start:
            yield contents[start:end]
            start, cost = end, _cost(content)
    yield contents[start:]


def _cost(content: Content) -> int:
    """In characters of text, roughly."""
    match content:
        case ImageContent(data):
            return IMAGE_COST + len(data) // 200
        case TextContent(text):
            return len(text)
        case VectorContent(vectors=vectors):
            return 100 * len(vectors)
        case _:
            return 100


def _read(core: Core, message: content_pb2.Content) -> Content | SimsearchError:
    try:
        return content_from(message, core.dim_of)
    except SimsearchError as refusal:
        return refusal


def _item(outcome: Outcome) -> match_pb2.BatchMatchItem:
    if isinstance(outcome, SimsearchError):
        return match_pb2.BatchMatchItem(error=item_error(outcome))
    return match_pb2.BatchMatchItem(result=result_to(outcome))
