"""BankService: banks, their policies, and their entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import grpc

from simsearch.bank.edits.propose import four_eyes_in_force
from simsearch.bank.edits.same_content import check_contents
from simsearch.encode.fingerprint import merge
from simsearch.errors import (
    BadRequest,
    LimitExceeded,
    NeedsApproval,
    SimsearchError,
)
from simsearch.match.policy import check_policy
from simsearch.serve.auth.identity import Identity
from simsearch.serve.banks.ban_checks import with_review_reasons
from simsearch.serve.banks.bank_export import export_entries
from simsearch.serve.banks.change_log import get_change, get_log_head, list_changes, revert_changes
from simsearch.serve.banks.edit_rpcs import Handler, add_edit_service
from simsearch.serve.banks.edit_terms import current_terms, proposal_id_of
from simsearch.serve.banks.entry_drafts import (
    Prepared,
    all_or_first_refusal,
    prepare,
    read_contents,
    wanted_of_extension,
    warnings_of,
    without_allowed,
)
from simsearch.serve.banks.entry_pages import list_entries
from simsearch.serve.banks.list_import import import_entries
from simsearch.serve.banks.nearest_entries import compare_entries, find_entries
from simsearch.serve.core.edit_lag import wait_visible
from simsearch.serve.core.hit_counts import hit_counts_of
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.executor import EditExecutor
from simsearch.serve.transport.status_codes import item_error
from simsearch.types import (
    Content,
    Entry,
    HashContent,
    Policy,
    VectorContent,
    WaitUntil,
)
from simsearch.v1 import bank_pb2, policy_pb2
from simsearch.wire import (
    bank_kind_from,
    bank_to,
    edit_from,
    entry_to,
    four_eyes_from,
    hits_to,
    policy_from,
    signals_to,
    state_from,
    time_from,
    wait_from,
)

SERVICE: Final = bank_pb2.DESCRIPTOR.services_by_name["BankService"]

FINDS_AT_ONCE: Final = 2
"""Searches of FindEntries reach far and share the edit threads: edits never wait for more of them
than these."""


def add_bank_service(executor: EditExecutor, server: grpc.aio.Server) -> None:
    """Register the service. Every edit is durable when it is acknowledged, and carries its actor
    and reason."""
    add_edit_service(SERVICE, HANDLERS, executor, server, {"FindEntries": FINDS_AT_ONCE})


# ---------------------------------------------------------------- banks


def _create_bank(
    core: Core, request: bank_pb2.CreateBankRequest, caller: Identity
) -> bank_pb2.CreateBankResponse:
    kind = bank_kind_from(request.kind)
    given = request.HasField("policy")
    policy = _policy(core, request.policy) if given else core.default_policy(kind)
    bank, change = core.store.create_bank(
        request.name,
        request.description,
        policy,
        edit_from(request.edit),
        kind=kind,
        owner=request.owner,
        enabled_ratio=request.enabled_ratio if request.HasField("enabled_ratio") else 1.0,
        four_eyes=four_eyes_from(request.four_eyes),
        terms=current_terms(core),
    )
    wait_visible(core, change.seq, f"bank {bank.name!r} is stored")
    return bank_pb2.CreateBankResponse(bank=bank_to(bank), seq=change.seq)


def _get_bank(
    core: Core, request: bank_pb2.GetBankRequest, caller: Identity
) -> bank_pb2.GetBankResponse:
    return bank_pb2.GetBankResponse(bank=bank_to(core.store.bank(request.name)))


def _list_banks(
    core: Core, request: bank_pb2.ListBanksRequest, caller: Identity
) -> bank_pb2.ListBanksResponse:
    return bank_pb2.ListBanksResponse(
        banks=[bank_to(bank) for bank in core.store.banks() if bank.name in caller.reads]
    )


def _update_bank(
    core: Core, request: bank_pb2.UpdateBankRequest, caller: Identity
) -> bank_pb2.UpdateBankResponse:
    bank, change = core.store.update_bank(
        request.name,
        edit_from(request.edit),
        description=request.description if request.HasField("description") else None,
        policy=_policy(core, request.policy) if request.HasField("policy") else None,
        owner=request.owner if request.HasField("owner") else None,
        archived=request.archived if request.HasField("archived") else None,
        enabled_ratio=request.enabled_ratio if request.HasField("enabled_ratio") else None,
        four_eyes=four_eyes_from(request.four_eyes) or None,
        etag=request.etag,
        terms=current_terms(core),
    )
    wait_visible(core, change.seq, f"the update of bank {bank.name!r} is stored")
    return bank_pb2.UpdateBankResponse(
        bank=bank_to(bank), seq=change.seq, proposal_id=proposal_id_of(change)
    )


# ---------------------------------------------------------------- entries


def _add_entry(
    core: Core, request: bank_pb2.AddEntryRequest, caller: Identity
) -> bank_pb2.AddEntryResponse:
    core.store.bank(request.bank)
    prepared = prepare(core, request.bank, [request.entry])[0]
    if isinstance(prepared, SimsearchError):
        raise prepared
    [prepared] = with_review_reasons(core, request.bank, [prepared])
    [entry] = core.store.add_entries(
        request.bank, [prepared.draft], edit_from(request.edit), terms=current_terms(core)
    )
    if wait_from(request.wait_until) is WaitUntil.VISIBLE:
        wait_visible(core, entry.added.seq, f"entry {entry.key} is stored")
    return bank_pb2.AddEntryResponse(
        entry=entry_to(entry, request.bank),
        seq=entry.added.seq,
        warnings=prepared.warnings,
        proposal_id=entry.added.proposal,
        held=entry.review_reasons,
    )


def _batch_add_entries(
    core: Core, request: bank_pb2.BatchAddEntriesRequest, caller: Identity
) -> bank_pb2.BatchAddEntriesResponse:
    core.store.bank(request.bank)
    count_max = core.config.limits.batch_items_max
    if len(request.entries) > count_max:
        raise LimitExceeded(f"{len(request.entries)} entries in one batch: {count_max} at most")
    prepared = prepare(core, request.bank, request.entries)
    ready = with_review_reasons(
        core, request.bank, [p for p in prepared if isinstance(p, Prepared)]
    )
    drafts, edit = [p.draft for p in ready], edit_from(request.edit)
    added = (
        core.store.add_entries(request.bank, drafts, edit, terms=current_terms(core))
        if drafts
        else []
    )
    seq = added[-1].added.seq if added else 0
    if wait_from(request.wait_until) is WaitUntil.VISIBLE:
        wait_visible(core, seq, f"{len(added)} entries are stored")
    left = iter(added)
    return bank_pb2.BatchAddEntriesResponse(items=[_add_item(p, left) for p in prepared], seq=seq)


def _add_item(prepared: Prepared | SimsearchError, left: Iterator[Entry]) -> bank_pb2.BatchAddItem:
    if isinstance(prepared, SimsearchError):
        return bank_pb2.BatchAddItem(error=item_error(prepared))
    entry = next(left)
    return bank_pb2.BatchAddItem(
        key=entry.key,
        warnings=prepared.warnings,
        proposal_id=entry.added.proposal,
        held=entry.review_reasons,
    )


def _get_entry(
    core: Core, request: bank_pb2.GetEntryRequest, caller: Identity
) -> bank_pb2.GetEntryResponse:
    entry = core.store.entry(request.bank, request.key)
    hits = hit_counts_of(core.store, core.hits, [entry.key])[entry.key]
    return bank_pb2.GetEntryResponse(entry=entry_to(entry, request.bank, hits=hits_to(hits)))


def _extend_entry(
    core: Core, request: bank_pb2.ExtendEntryRequest, caller: Identity
) -> bank_pb2.ExtendEntryResponse:
    before = core.store.entry(request.bank, request.key)
    contents = read_contents(core, request.contents)
    if isinstance(contents, SimsearchError):
        raise contents
    _check_vouched_for(core, request.bank, contents)
    stored = core.store.fingerprints([before.key])[before.key]
    wanted = wanted_of_extension(core.store.bank(request.bank).policy, stored)
    whole = all_or_first_refusal(core.fingerprinter.ban(contents, wanted=wanted))
    fingerprints, _ = without_allowed(core, contents, whole)
    check_contents(
        before.key, stored, [p.fingerprint for p in fingerprints], partial=request.partial
    )
    entry, added = core.store.extend_entry(
        request.bank,
        request.key,
        merge(fingerprints),
        edit_from(request.edit),
        terms=current_terms(core),
    )
    if wait_from(request.wait_until) is WaitUntil.VISIBLE:
        wait_visible(core, entry.last.seq, f"the extension of {entry.key} is stored")
    return bank_pb2.ExtendEntryResponse(
        entry=entry_to(entry, request.bank),
        seq=entry.last.seq if added.rows() else 0,
        added=signals_to(added.rows()),
        warnings=warnings_of(fingerprints),
    )


def _check_vouched_for(core: Core, bank: str, contents: Sequence[Content]) -> None:
    """Raises NeedsApproval for ready vectors and hashes in a four-eyes bank: these cannot be
    compared with the entry's content, so a second person is needed."""
    vouched = any(isinstance(content, VectorContent | HashContent) for content in contents)
    if vouched and four_eyes_in_force(core.store.bank(bank), current_terms(core)):
        raise NeedsApproval(
            f"bank {bank!r} needs a second person, and ready vectors and hashes cannot be held "
            "against what was banned: extend the entry from its content, or ban it anew"
        )


def _move_entry(
    core: Core, request: bank_pb2.MoveEntryRequest, caller: Identity
) -> bank_pb2.MoveEntryResponse:
    state = state_from(request.state)
    if state is None:
        raise BadRequest("the state is missing: set ACTIVE, SHADOW, DISPUTED or QUARANTINED")
    entry, change = core.store.move_entry(
        request.bank,
        request.key,
        state,
        edit_from(request.edit),
        until_us=time_from(request.until),
        terms=current_terms(core),
    )
    if change and wait_from(request.wait_until) is WaitUntil.VISIBLE:
        wait_visible(core, change.seq, f"the move of {entry.key} is stored")
    return bank_pb2.MoveEntryResponse(
        entry=entry_to(entry, request.bank),
        seq=change.seq if change else 0,
        proposal_id=proposal_id_of(change),
    )


def _retract_entry(
    core: Core, request: bank_pb2.RetractEntryRequest, caller: Identity
) -> bank_pb2.RetractEntryResponse:
    entry, change = core.store.retract_entry(
        request.bank, request.key, edit_from(request.edit), terms=current_terms(core)
    )
    if wait_from(request.wait_until) is WaitUntil.VISIBLE:
        wait_visible(core, change.seq, f"the retraction of {entry.key} is stored")
    return bank_pb2.RetractEntryResponse(
        entry=entry_to(entry, request.bank), seq=change.seq, proposal_id=proposal_id_of(change)
    )


# ---------------------------------------------------------------- shared


def _policy(core: Core, message: policy_pb2.Policy) -> Policy:
    return check_policy(policy_from(message, core.space_id))


HANDLERS: Final[Mapping[str, Handler]] = {
    "CreateBank": _create_bank,
    "GetBank": _get_bank,
    "ListBanks": _list_banks,
    "UpdateBank": _update_bank,
    "AddEntry": _add_entry,
    "BatchAddEntries": _batch_add_entries,
    "ImportEntries": import_entries,
    "GetEntry": _get_entry,
    "ListEntries": list_entries,
    "FindEntries": find_entries,
    "CompareEntries": compare_entries,
    "ExtendEntry": _extend_entry,
    "MoveEntry": _move_entry,
    "RetractEntry": _retract_entry,
    "ExportEntries": export_entries,
    "ListChanges": list_changes,
    "GetChange": get_change,
    "GetLogHead": get_log_head,
    "RevertChanges": revert_changes,
}
