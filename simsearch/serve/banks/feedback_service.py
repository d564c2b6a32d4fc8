"""FeedbackService: opinions on hits, and the queue of entries that need a review."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

from simsearch.bank.edit_checks import AFTER_MAX
from simsearch.bank.edits import opinions
from simsearch.errors import BadRequest
from simsearch.serve.auth.identity import Identity
from simsearch.serve.banks.edit_rpcs import Handler, add_edit_service
from simsearch.serve.banks.entry_pages import page_key, page_pair, page_size
from simsearch.serve.core.edit_lag import wait_visible
from simsearch.serve.core.hit_counts import hit_counts_of
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.executor import EditExecutor
from simsearch.types import HitCounts
from simsearch.v1 import feedback_pb2
from simsearch.wire import (
    change_to,
    edit_from,
    entry_to,
    hits_to,
    opinion_from,
    opinion_kind_from,
    opinion_to,
    time_from,
)

SERVICE: Final = feedback_pb2.DESCRIPTOR.services_by_name["FeedbackService"]


def add_feedback_service(executor: EditExecutor, server: grpc.aio.Server) -> None:
    """Register the service. An opinion is an edit: durable when it is acknowledged, signed and with
    a reason."""
    add_edit_service(SERVICE, HANDLERS, executor, server)


def _give_opinion(
    core: Core, request: feedback_pb2.GiveOpinionRequest, caller: Identity
) -> feedback_pb2.GiveOpinionResponse:
    opinion, disputed = core.store.give_opinion(
        request.bank,
        request.entry_key,
        opinion_from(request),
        edit_from(request.edit),
        disputes_max=core.config.feedback.disputes_max,
    )
    last = disputed or opinion.change
    if disputed:
        wait_visible(core, last.seq, f"entry {request.entry_key} is disputed")
    return feedback_pb2.GiveOpinionResponse(
        opinion=opinion_to(opinion, request.bank), seq=last.seq, disputed=disputed is not None
    )


def _list_opinions(
    core: Core, request: feedback_pb2.ListOpinionsRequest, caller: Identity
) -> feedback_pb2.ListOpinionsResponse:
    size, after = page_size(core, request.page_size), page_pair(request.page_token or "0-0")
    wanted = opinions.OpinionFilter(
        core.store.bank(request.bank).id,
        request.entry_key,
        opinion_kind_from(request.kind),
        time_from(request.since),
        time_from(request.until),
        request.actor,
    )
    _check_number(request.entry_key)
    with core.store.reading() as reading:
        page = reading.read(lambda tables: opinions.list_opinions(tables, wanted, after, size))
    return feedback_pb2.ListOpinionsResponse(
        opinions=[
            opinion_to(each.opinion, request.bank, superseded=each.superseded)
            for each in page.opinions
        ],
        next_page_token=f"{page.rest[0]}-{page.rest[1]}" if page.rest else "",
    )


def _list_review(
    core: Core, request: feedback_pb2.ListReviewRequest, caller: Identity
) -> feedback_pb2.ListReviewResponse:
    size, after = page_size(core, request.page_size), page_key(request.page_token)
    banks = [core.store.bank(request.bank)] if request.bank else core.store.banks()
    names = {bank.id: bank.name for bank in banks if bank.name in caller.reads}
    with core.store.reading() as reading:
        queue = reading.read(
            lambda tables: opinions.review_queue(tables, frozenset(names), after, size)
        )
    hits = hit_counts_of(core.store, core.hits, [each.entry.key for each in queue.items])
    return feedback_pb2.ListReviewResponse(
        items=[_item(each, names, hits) for each in queue.items],
        next_page_token=str(queue.rest or ""),
    )


def _item(
    each: opinions.ReviewItem, names: Mapping[int, str], hits: Mapping[int, HitCounts]
) -> feedback_pb2.ReviewItem:
    entry, bank = each.entry, names[each.entry.bank_id]
    return feedback_pb2.ReviewItem(
        entry=entry_to(entry, bank, hits=hits_to(hits[entry.key])),
        since=change_to(each.since),
        opinions=[opinion_to(opinion, bank) for opinion in each.opinions],
    )


# ---------------------------------------------------------------- pages


def _check_number(number: int) -> int:
    if number > AFTER_MAX:
        raise BadRequest(f"there is no entry or change {number}: send the number as it came")
    return number


HANDLERS: Final[Mapping[str, Handler]] = {
    "GiveOpinion": _give_opinion,
    "ListOpinions": _list_opinions,
    "ListReview": _list_review,
}
