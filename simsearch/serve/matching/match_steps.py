"""Match steps: contents of one call, matched on a match thread, some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from simsearch.errors import SimsearchError
from simsearch.match.matcher import Outcome
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.scheduler import Steps
from simsearch.types import (
    CallContext,
    Content,
    FileContent,
    MatchOptions,
    Priority,
    TextContent,
    VectorContent,
)
from simsearch.v1 import content_pb2
from simsearch.wire import contents_from

STEP_COSTS: Final = {Priority.INTERACTIVE: 32_000, Priority.BULK: 4_000}
"""How much is encoded and searched in one step, in characters of text; between steps a call may be
cancelled or overtaken."""

IMAGE_COST: Final = 1_000
ROW_COST: Final = 10


def match_all(
    core: Core, messages: Sequence[content_pb2.Content], options: MatchOptions, call: CallContext
) -> Steps[list[Outcome]]:
    """One outcome per message, in order: an error where it cannot be read, else the match."""
    read = contents_from(messages, core.dim_of)
    contents = [c for c in read if not isinstance(c, SimsearchError)]
    matched: list[Outcome] = []
    for part in slices(contents, STEP_COSTS[call.priority]):
        if matched:
            yield
        matched += core.matcher.match(part, options, call)
    outcomes = iter(matched)
    answers = [c if isinstance(c, SimsearchError) else next(outcomes) for c in read]
    core.metrics.count_answers(answers)
    core.hits.add(answers)
    return answers if options.with_shadow else [_without_shadow(answer) for answer in answers]


def _without_shadow(answer: Outcome) -> Outcome:
    """The same object, where it has no shadow hits."""
    if isinstance(answer, SimsearchError) or not answer.shadow:
        return answer
    return replace(answer, shadow=())


def slices(contents: Sequence[Content], cost_max: int) -> Iterator[Sequence[Content]]:
    """Consecutive contents up to a cost; no contents are one empty slice, so that the options are
    still checked."""
    start = cost = 0
    for end, content in enumerate(contents):
        cost += _cost(content)
        if cost > cost_max and end > start:
            yield contents[start:end]
            start, cost = end, _cost(content)
    yield contents[start:]


def _cost(content: Content) -> int:
    """Roughly, in characters of text."""
    match content:
        case VectorContent(vectors=vectors):
            return ROW_COST * len(vectors)
        case FileContent(data):
            return IMAGE_COST + len(data) // 200
        case TextContent(text):
            return len(text)
        case _:
            return ROW_COST
