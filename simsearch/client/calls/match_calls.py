"""Match calls: judging one content, or many in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from simsearch.client.calls.call_spec import CallSpec
from simsearch.client.calls.rpcs import BATCH_MATCH, MATCH
from simsearch.errors import InternalFault, SimsearchError
from simsearch.types import (
    Content,
    HashContent,
    ImageContent,
    MatchOptions,
    MatchResult,
    Signal,
    TextContent,
    VectorContent,
)
from simsearch.v1 import (
    match_pb2,
)
from simsearch.wire import (
    content_to,
    item_error_from,
    options_to,
    result_from,
)

Outcome: TypeAlias = MatchResult | SimsearchError
"""Of one content among many."""


def match(
    content: Content, options: MatchOptions | None = None, *, deadline_s: float | None = None
) -> CallSpec[MatchResult]:
    """Judge one content. Calls that come while others are under way go to the server together,
    unless the client was opened with `autobatch=False`."""
    request = match_pb2.MatchRequest(
        content=content_to(content), options=options_to(options or MatchOptions())
    )
    return CallSpec(MATCH, request, _matched, deadline_s)


def match_batch(
    contents: Sequence[Content],
    options: MatchOptions | None = None,
    *,
    deadline_s: float | None = None,
) -> CallSpec[list[Outcome]]:
    """Judge many in one call: one result or error per content, in order."""
    request = match_pb2.BatchMatchRequest(
        contents=[content_to(c) for c in contents],
        options=options_to(options or MatchOptions()),
    )
    return CallSpec(BATCH_MATCH, request, _outcomes(len(contents)), deadline_s)


def match_image(
    data: bytes, banks: Sequence[str] = (), *, deadline_s: float | None = None
) -> CallSpec[MatchResult]:
    """Judge an encoded image file (JPEG, PNG, WebP, GIF)."""
    return match(ImageContent(data), MatchOptions(tuple(banks)), deadline_s=deadline_s)


def match_text(
    text: str, banks: Sequence[str] = (), *, deadline_s: float | None = None
) -> CallSpec[MatchResult]:
    """Judge a text."""
    return match(TextContent(text), MatchOptions(tuple(banks)), deadline_s=deadline_s)


def match_vector(
    space: str,
    vectors: np.ndarray,
    banks: Sequence[str] = (),
    *,
    deadline_s: float | None = None,
) -> CallSpec[MatchResult]:
    """Judge ready unit vectors, (dim,) or (n, dim), float16 or float32."""
    content = VectorContent(space, np.atleast_2d(vectors))
    return match(content, MatchOptions(tuple(banks)), deadline_s=deadline_s)


def match_hash(
    signal: Signal, value: bytes, banks: Sequence[str] = (), *, deadline_s: float | None = None
) -> CallSpec[MatchResult]:
    """Judge a ready hash."""
    return match(HashContent(signal, value), MatchOptions(tuple(banks)), deadline_s=deadline_s)


def _matched(reply: match_pb2.MatchResponse | match_pb2.BatchMatchItem) -> MatchResult:
    return result_from(reply.result)


def _outcomes(count: int) -> Callable[[match_pb2.BatchMatchResponse], list[Outcome]]:
    def read(reply: match_pb2.BatchMatchResponse) -> list[Outcome]:
        return [outcome_from(item) for item in items_of(reply, count)]

    return read


def items_of(reply: match_pb2.BatchMatchResponse, count: int) -> Sequence[match_pb2.BatchMatchItem]:
    """The answers to `count` contents, in their order. Raises InternalFault for any other number:
    an answer must never be read as another content's."""
    if len(reply.items) != count:
        raise InternalFault(f"the server gave {len(reply.items)} answers to {count} contents")
    return reply.items


def outcome_from(item: match_pb2.BatchMatchItem) -> Outcome:
    if item.WhichOneof("outcome") == "result":
        return result_from(item.result)
    return item_error_from(item.error)
