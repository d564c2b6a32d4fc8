"""BankService: banks, their policies, and what is banned in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from simsearch.bank.edits.propose import four_eyes_in_force
from simsearch.bank.edits.same_content import check_contents
from simsearch.encode.fingerprint import merge
from simsearch.errors import (
    BadRequest,
    EntryInOtherBank,
    EntryNotFound,
    LimitExceeded,
    NeedsApproval,
    SimsearchError,
)
from simsearch.match.policy import check_policy
from simsearch.serve.auth.identity import Identity, current
from simsearch.serve.banks.ban_checks import held
from simsearch.serve.banks.bank_export import export_entries
from simsearch.serve.banks.change_log import get_change, get_log_head, list_changes, revert_changes
from simsearch.serve.banks.edit_terms import terms_of, waits_as
from simsearch.serve.banks.entry_drafts import (
    Prepared,
    all_or_first_refusal,
    prepare,
    read_contents,
    warnings_of,
)
from simsearch.serve.banks.entry_pages import list_entries
from simsearch.serve.banks.list_import import import_entries
from simsearch.serve.banks.nearest_entries import compare_entries, find_entries
from simsearch.serve.core.edit_lag import wait_visible
from simsearch.serve.core.hit_counts import hits_of
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.executor import Work
from simsearch.serve.transport.interceptors import Context
from simsearch.serve.transport.status_codes import item_error
from simsearch.types import (
    EVERY_BANK,
    BankAccess,
    Content,
    Entry,
    HashContent,
    Policy,
    VectorContent,
    WaitUntil,
)
from simsearch.v1 import bank_pb2, bank_pb2_grpc, policy_pb2
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

Request = TypeVar("Request")
Response = TypeVar("Response")


FINDS_AT_ONCE: Final = 2
"""They reach far, and run where edits do: no ban waits for more of them than these."""


class BankService(bank_pb2_grpc.BankServiceServicer):
    """Every edit is durable when it is acknowledged, and says who made it and why."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._finding = asyncio.Semaphore(FINDS_AT_ONCE)

    async def _edit(self, task: Callable[[Core, Request], Response], request: Request) -> Response:
        caller = current()
        try:
            return await self._work.edit(lambda core: task(core, request))
        except EntryInOtherBank as fault:
            raise _seen_by(caller, request, fault) from None

    async def CreateBank(
        self, request: bank_pb2.CreateBankRequest, context: Context
    ) -> bank_pb2.CreateBankResponse:
        return await self._edit(_create_bank, request)

    async def GetBank(
        self, request: bank_pb2.GetBankRequest, context: Context
    ) -> bank_pb2.GetBankResponse:
        return await self._edit(_get_bank, request)

    async def ListBanks(
        self, request: bank_pb2.ListBanksRequest, context: Context
    ) -> bank_pb2.ListBanksResponse:
        reads = current().reads
        return await self._work.edit(lambda core: _list_banks(core, reads))

    async def UpdateBank(
        self, request: bank_pb2.UpdateBankRequest, context: Context
    ) -> bank_pb2.UpdateBankResponse:
        return await self._edit(_update_bank, request)

    async def AddEntry(
        self, request: bank_pb2.AddEntryRequest, context: Context
    ) -> bank_pb2.AddEntryResponse:
        return await self._edit(_add_entry, request)

    async def BatchAddEntries(
        self, request: bank_pb2.BatchAddEntriesRequest, context: Context
    ) -> bank_pb2.BatchAddEntriesResponse:
        return await self._edit(_batch_add_entries, request)

    async def ImportEntries(
        self, request: bank_pb2.ImportEntriesRequest, context: Context
    ) -> bank_pb2.ImportEntriesResponse:
        return await self._edit(import_entries, request)

    async def GetEntry(
        self, request: bank_pb2.GetEntryRequest, context: Context
    ) -> bank_pb2.GetEntryResponse:
        return await self._edit(_get_entry, request)

    async def ListEntries(
        self, request: bank_pb2.ListEntriesRequest, context: Context
    ) -> bank_pb2.ListEntriesResponse:
        return await self._edit(list_entries, request)

    async def FindEntries(
        self, request: bank_pb2.FindEntriesRequest, context: Context
    ) -> bank_pb2.FindEntriesResponse:
        caller = current()
        async with self._finding:
            return await self._work.edit(lambda core: find_entries(core, request, caller))

    async def CompareEntries(
        self, request: bank_pb2.CompareEntriesRequest, context: Context
    ) -> bank_pb2.CompareEntriesResponse:
        caller = current()
        return await self._work.edit(lambda core: compare_entries(core, request, caller))

    async def ExtendEntry(
        self, request: bank_pb2.ExtendEntryRequest, context: Context
    ) -> bank_pb2.ExtendEntryResponse:
        return await self._edit(_extend_entry, request)

    async def MoveEntry(
        self, request: bank_pb2.MoveEntryRequest, context: Context
    ) -> bank_pb2.MoveEntryResponse:
        return await self._edit(_move_entry, request)

    async def RetractEntry(
        self, request: bank_pb2.RetractEntryRequest, context: Context
    ) -> bank_pb2.RetractEntryResponse:
        return await self._edit(_retract_entry, request)

    async def ExportEntries(
        self, request: bank_pb2.ExportEntriesRequest, context: Context
    ) -> bank_pb2.ExportEntriesResponse:
        return await self._edit(export_entries, request)

    async def ListChanges(
        self, request: bank_pb2.ListChangesRequest, context: Context
    ) -> bank_pb2.ListChangesResponse:
        reads = current().reads
        return await self._work.edit(lambda core: list_changes(core, request, reads))

    async def GetChange(
        self, request: bank_pb2.GetChangeRequest, context: Context
    ) -> bank_pb2.GetChangeResponse:
        reads = current().reads
        return await self._work.edit(lambda core: get_change(core, request, reads))

    async def GetLogHead(
        self, request: bank_pb2.GetLogHeadRequest, context: Context
    ) -> bank_pb2.GetLogHeadResponse:
        return await self._edit(get_log_head, request)

    async def RevertChanges(
        self, request: bank_pb2.RevertChangesRequest, context: Context
    ) -> bank_pb2.RevertChangesResponse:
        edits = current().edits
        return await self._work.edit(lambda core: revert_changes(core, request, edits))


def _seen_by(caller: Identity, request: Any, fault: EntryInOtherBank) -> SimsearchError:
    """A key must not tell a caller of banks that are not there for them."""
    everything = caller.reads == EVERY_BANK
    return fault if everything else EntryNotFound(f"there is no entry {request.key}")


# ---------------------------------------------------------------- banks


def _create_bank(core: Core, request: bank_pb2.CreateBankRequest) -> bank_pb2.CreateBankResponse:
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
        terms=terms_of(core),
    )
    wait_visible(core, change.seq, f"bank {bank.name!r} is stored")
    return bank_pb2.CreateBankResponse(bank=bank_to(bank), seq=change.seq)


def _get_bank(core: Core, request: bank_pb2.GetBankRequest) -> bank_pb2.GetBankResponse:
    return bank_pb2.GetBankResponse(bank=bank_to(core.store.bank(request.name)))


def _list_banks(core: Core, reads: BankAccess) -> bank_pb2.ListBanksResponse:
    return bank_pb2.ListBanksResponse(
        banks=[bank_to(bank) for bank in core.store.banks() if bank.name in reads]
    )


def _update_bank(core: Core, request: bank_pb2.UpdateBankRequest) -> bank_pb2.UpdateBankResponse:
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
        terms=terms_of(core),
    )
    wait_visible(core, change.seq, f"the update of bank {bank.name!r} is stored")
    return bank_pb2.UpdateBankResponse(
        bank=bank_to(bank), seq=change.seq, proposal_id=waits_as(change)
    )


# ---------------------------------------------------------------- entries


def _add_entry(core: Core, request: bank_pb2.AddEntryRequest) -> bank_pb2.AddEntryResponse:
    core.store.bank(request.bank)
    prepared = prepare(core, [request.entry])[0]
    if isinstance(prepared, SimsearchError):
        raise prepared
    [prepared] = held(core, request.bank, [prepared])
    [entry] = core.store.add_entries(
        request.bank, [prepared.draft], edit_from(request.edit), terms=terms_of(core)
    )
    if wait_from(request.wait_until) is WaitUntil.VISIBLE:
        wait_visible(core, entry.added.seq, f"entry {entry.key} is stored")
    return bank_pb2.AddEntryResponse(
        entry=entry_to(entry, request.bank),
        seq=entry.added.seq,
        warnings=prepared.warnings,
        proposal_id=entry.added.proposal,
        held=entry.held,
    )


def _batch_add_entries(
    core: Core, request: bank_pb2.BatchAddEntriesRequest
) -> bank_pb2.BatchAddEntriesResponse:
    core.store.bank(request.bank)
    count_max = core.config.limits.batch_items_max
    if len(request.entries) > count_max:
        raise LimitExceeded(f"{len(request.entries)} entries in one batch: {count_max} at most")
    prepared = prepare(core, request.entries)
    ready = held(core, request.bank, [p for p in prepared if isinstance(p, Prepared)])
    drafts, edit = [p.draft for p in ready], edit_from(request.edit)
    added = (
        core.store.add_entries(request.bank, drafts, edit, terms=terms_of(core)) if drafts else []
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
        held=entry.held,
    )


def _get_entry(core: Core, request: bank_pb2.GetEntryRequest) -> bank_pb2.GetEntryResponse:
    entry = core.store.entry(request.bank, request.key)
    hits = hits_of(core.store, core.hits, [entry.key])[entry.key]
    return bank_pb2.GetEntryResponse(entry=entry_to(entry, request.bank, hits=hits_to(hits)))


def _extend_entry(core: Core, request: bank_pb2.ExtendEntryRequest) -> bank_pb2.ExtendEntryResponse:
    before = core.store.entry(request.bank, request.key)
    contents = read_contents(core, request.contents)
    if isinstance(contents, SimsearchError):
        raise contents
    _check_vouched_for(core, request.bank, contents)
    fingerprints = all_or_first_refusal(core.fingerprinter.ban(contents))
    stored = core.store.fingerprints([before.key])[before.key]
    check_contents(
        before.key, stored, [p.fingerprint for p in fingerprints], partial=request.partial
    )
    entry, added = core.store.extend_entry(
        request.bank,
        request.key,
        merge(fingerprints),
        edit_from(request.edit),
        terms=terms_of(core),
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
    """Raises NeedsApproval of what cannot be compared with what was banned: it could be anything,
    and one person's word is not enough for it."""
    vouched = any(isinstance(content, VectorContent | HashContent) for content in contents)
    if vouched and four_eyes_in_force(core.store.bank(bank), terms_of(core)):
        raise NeedsApproval(
            f"bank {bank!r} needs a second person, and ready vectors and hashes cannot be held "
            "against what was banned: extend the entry from its content, or ban it anew"
        )


def _move_entry(core: Core, request: bank_pb2.MoveEntryRequest) -> bank_pb2.MoveEntryResponse:
    state = state_from(request.state)
    if state is None:
        raise BadRequest("the state is missing: set ACTIVE, SHADOW, DISPUTED or QUARANTINED")
    entry, change = core.store.move_entry(
        request.bank,
        request.key,
        state,
        edit_from(request.edit),
        until_us=time_from(request.until),
        terms=terms_of(core),
    )
    if change and wait_from(request.wait_until) is WaitUntil.VISIBLE:
        wait_visible(core, change.seq, f"the move of {entry.key} is stored")
    return bank_pb2.MoveEntryResponse(
        entry=entry_to(entry, request.bank),
        seq=change.seq if change else 0,
        proposal_id=waits_as(change),
    )


def _retract_entry(
    core: Core, request: bank_pb2.RetractEntryRequest
) -> bank_pb2.RetractEntryResponse:
    entry, change = core.store.retract_entry(
        request.bank, request.key, edit_from(request.edit), terms=terms_of(core)
    )
    if wait_from(request.wait_until) is WaitUntil.VISIBLE:
        wait_visible(core, change.seq, f"the retraction of {entry.key} is stored")
    return bank_pb2.RetractEntryResponse(
        entry=entry_to(entry, request.bank), seq=change.seq, proposal_id=waits_as(change)
    )


# ---------------------------------------------------------------- shared


def _policy(core: Core, message: policy_pb2.Policy) -> Policy:
    return check_policy(policy_from(message, core.space_id))
