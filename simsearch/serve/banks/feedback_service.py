"""FeedbackService: what people think of hits, and what waits for somebody to decide."""

from __future__ import annotations

from collections.abc import Mapping

from simsearch.bank.edit_checks import AFTER_MAX
from simsearch.bank.edits import opinions
from simsearch.errors import BadRequest, EntryInOtherBank, EntryNotFound
from simsearch.serve.auth.identity import current
from simsearch.serve.banks.entry_pages import page_key, page_pair, page_size
from simsearch.serve.core.edit_lag import wait_visible
from simsearch.serve.core.hit_counts import hit_counts_of
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.executor import Work
from simsearch.serve.transport.interceptors import Context
from simsearch.types import EVERY_BANK, BankAccess, HitCounts
from simsearch.v1 import feedback_pb2, feedback_pb2_grpc
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


class FeedbackService(feedback_pb2_grpc.FeedbackServiceServicer):
    """An opinion is an edit: durable when it is acknowledged, signed and with a reason."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def GiveOpinion(
        self, request: feedback_pb2.GiveOpinionRequest, context: Context
    ) -> feedback_pb2.GiveOpinionResponse:
        sees_all = current().reads == EVERY_BANK
        try:
            return await self._work.edit(lambda core: _give(core, request))
        except EntryInOtherBank:
            if sees_all:
                raise
            # A key must not tell a caller of banks that are not there for them.
            raise EntryNotFound(f"there is no entry {request.entry_key}") from None

    async def ListOpinions(
        self, request: feedback_pb2.ListOpinionsRequest, context: Context
    ) -> feedback_pb2.ListOpinionsResponse:
        return await self._work.edit(lambda core: _list(core, request))

    async def ListReview(
        self, request: feedback_pb2.ListReviewRequest, context: Context
    ) -> feedback_pb2.ListReviewResponse:
        reads = current().reads
        return await self._work.edit(lambda core: _review(core, request, reads))


def _give(core: Core, request: feedback_pb2.GiveOpinionRequest) -> feedback_pb2.GiveOpinionResponse:
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


def _list(
    core: Core, request: feedback_pb2.ListOpinionsRequest
) -> feedback_pb2.ListOpinionsResponse:
    size, after = page_size(core, request.page_size), page_pair(request.page_token or "0-0")
    wanted = opinions.Wanted(
        core.store.bank(request.bank).id,
        request.entry_key,
        opinion_kind_from(request.kind),
        time_from(request.since),
        time_from(request.until),
        request.actor,
    )
    _check_number(request.entry_key)
    with core.store.reading() as reading:
        page = reading.read(lambda tables: opinions.listed(tables, wanted, after, size))
    return feedback_pb2.ListOpinionsResponse(
        opinions=[
            opinion_to(told.opinion, request.bank, superseded=told.superseded)
            for told in page.opinions
        ],
        next_page_token=f"{page.rest[0]}-{page.rest[1]}" if page.rest else "",
    )


def _review(
    core: Core, request: feedback_pb2.ListReviewRequest, reads: BankAccess
) -> feedback_pb2.ListReviewResponse:
    size, after = page_size(core, request.page_size), page_key(request.page_token)
    asked = [core.store.bank(request.bank)] if request.bank else core.store.banks()
    names = {bank.id: bank.name for bank in asked if bank.name in reads}
    with core.store.reading() as reading:
        queue = reading.read(lambda tables: opinions.review(tables, frozenset(names), after, size))
    hits = hit_counts_of(core.store, core.hits, [each.entry.key for each in queue.waiting])
    return feedback_pb2.ListReviewResponse(
        items=[_item(each, names, hits) for each in queue.waiting],
        next_page_token=str(queue.rest or ""),
    )


def _item(
    each: opinions.Waiting, names: Mapping[int, str], hits: Mapping[int, HitCounts]
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
