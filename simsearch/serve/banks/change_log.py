"""Change log: the edits on record, listed and reverted."""

from __future__ import annotations

from collections.abc import Mapping

from simsearch.bank import log_search
from simsearch.bank.audit import head_of
from simsearch.bank.edit_checks import AFTER_MAX
from simsearch.bank.edits.revert import CHANGES_AT_ONCE, Reverted
from simsearch.bank.log_search import ChangeFilter, ChangePage, LinkedChange, search
from simsearch.bank.state_reader import StateReader
from simsearch.errors import BadRequest
from simsearch.serve.auth.identity import Identity
from simsearch.serve.banks.edit_terms import current_terms
from simsearch.serve.banks.entry_pages import page_size
from simsearch.serve.core.edit_lag import wait_visible
from simsearch.serve.core.server_core import Core
from simsearch.types import BankAccess, WaitUntil
from simsearch.v1 import bank_pb2
from simsearch.wire import (
    bank_to,
    edit_from,
    entry_to,
    kinds_from,
    logged_change_to,
    time_from,
    wait_from,
)


def list_changes(
    core: Core, request: bank_pb2.ListChangesRequest, caller: Identity
) -> bank_pb2.ListChangesResponse:
    """One page of the changes of a bank, or of all banks that the caller may read."""
    size = page_size(core, request.page_size)
    names = _banks(core, request.bank, caller.reads)
    since_us, until_us = time_from(request.since), time_from(request.until)
    kinds = kinds_from(request.kinds)
    span = ChangeFilter(
        frozenset(names), since_us, until_us, request.actor, request.entry_key, kinds
    )
    with core.store.reading() as reading:
        found = search(
            reading,
            span,
            after_seq=_seq(request.after_seq),
            before_seq=_seq(request.before_seq) or reading.seq + 1,
            limit=size,
            newest=request.newest,
        )
    low, high = found.rest or (0, 0)
    return bank_pb2.ListChangesResponse(
        changes=[logged_change_to(c, names[c.bank_id], link) for c, link in found.changes],
        more=found.rest is not None,
        next_after_seq=low,
        next_before_seq=high,
    )


def get_change(
    core: Core, request: bank_pb2.GetChangeRequest, caller: Identity
) -> bank_pb2.GetChangeResponse:
    """One change, with what it changed. Raises BadRequest where there is none, with the same
    message for a change of a bank that the caller may not read."""
    seq, names = _seq(request.seq), _banks(core, "", caller.reads)
    with core.store.reading() as reading:
        found = log_search.stored_change(reading, seq)
    if found is None or found.change.bank_id not in names:
        raise BadRequest(f"there is no change {seq} that you may read: list the changes")
    change, name = found.change, names[found.change.bank_id]
    entries = core.store.entries_by_key([change.entry_key]) if change.entry_key else {}
    return bank_pb2.GetChangeResponse(
        change=logged_change_to(change, name, found.link),
        content=found.content.hex(),
        bank_before=bank_to(found.bank_before) if found.bank_before else None,
        entry=entry_to(entries[change.entry_key], name) if entries else None,
    )


def get_log_head(
    core: Core, request: bank_pb2.GetLogHeadRequest, caller: Identity
) -> bank_pb2.GetLogHeadResponse:
    """The last seq and link of the log's hash chain."""
    with core.store.reading() as reading:
        head = head_of(reading, core.store.store_id)
    return bank_pb2.GetLogHeadResponse(store_id=head.store_id, seq=head.seq, link=head.link.hex())


def revert_changes(
    core: Core, request: bank_pb2.RevertChangesRequest, caller: Identity
) -> bank_pb2.RevertChangesResponse:
    """Revert one person's changes of a time span, newest first, a part of them in each call.

    Raises BadRequest.
    """
    if not request.changes_of or not request.HasField("since"):
        raise BadRequest("whose changes, and since when? set changes_of and since")
    names = _banks(core, request.bank, caller.edits)
    since_us, until_us = time_from(request.since), time_from(request.until)
    span = ChangeFilter(frozenset(names), since_us, until_us, request.changes_of)
    edit, wait = edit_from(request.edit), wait_from(request.wait_until)
    with core.store.reading() as reading:
        found = _part(reading, span, _seq(request.before_seq))
    changes = found.changes[::-1]
    seqs = [change.seq for change, _ in changes]
    done = core.store.revert(span, seqs, edit, dry_run=request.dry_run, terms=current_terms(core))
    answer = bank_pb2.RevertChangesResponse(
        changes=[
            _reverted_to(reverted, logged, names, dry_run=request.dry_run)
            for reverted, logged in zip(done, changes, strict=False)  # not all of them were reached
        ],
        next_before_seq=seqs[len(done) - 1] if len(done) < len(seqs) else _next(found),
    )
    answer.seq = max((each.seq for each in answer.changes), default=0)
    if answer.seq and wait is WaitUntil.VISIBLE:
        wait_visible(core, answer.seq, f"{len(done)} changes are dealt with")
    return answer


def _part(reading: StateReader, span: ChangeFilter, before_seq: int) -> ChangePage:
    return search(
        reading,
        span,
        after_seq=0,
        before_seq=before_seq or reading.seq + 1,
        limit=CHANGES_AT_ONCE,
        newest=True,
    )


def _next(found: ChangePage) -> int:
    return found.rest[1] if found.rest else 0


def _reverted_to(
    reverted: Reverted, logged: LinkedChange, names: Mapping[int, str], *, dry_run: bool
) -> bank_pb2.RevertedChange:
    undone = reverted.by is not None
    return bank_pb2.RevertedChange(
        change=logged_change_to(logged.change, names[logged.change.bank_id], logged.link),
        outcome=bank_pb2.REVERT_OUTCOME_UNDONE if undone else bank_pb2.REVERT_OUTCOME_SKIPPED,
        detail=reverted.why,
        seq=reverted.by.seq if reverted.by and not dry_run else 0,
        entry_key=0 if dry_run else reverted.key,
    )


def _banks(core: Core, name: str, access: BankAccess) -> dict[int, str]:
    """Names by id, of the named bank or of all in the access. Raises BankNotFound."""
    if name:
        bank = core.store.bank(name)
        return {bank.id: bank.name}
    return {bank.id: bank.name for bank in core.store.banks() if bank.name in access}


def _seq(number: int) -> int:
    if number > AFTER_MAX:
        raise BadRequest(f"there is no change {number}: send back the number as it came")
    return number
