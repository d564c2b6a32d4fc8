"""Nearest entries: the entries most similar to a content, and the similarity of two entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from simsearch.encode.fingerprint import AllSignals, ContentFingerprint
from simsearch.errors import (
    BadRequest,
    BankNotFound,
    EntryInOtherBank,
    EntryNotFound,
    LimitExceeded,
    PermissionDenied,
)
from simsearch.match.nearest import DistanceLimits, NearestEntries, compare, find_nearest
from simsearch.serve.auth.identity import Identity
from simsearch.serve.banks.entry_drafts import all_or_first_refusal
from simsearch.serve.core.server_core import Core
from simsearch.types import (
    EVERY_BANK,
    Bank,
    Entry,
    EntryState,
    SignalReport,
    SignalState,
)
from simsearch.v1 import bank_pb2
from simsearch.wire import content_from, entry_to, evidence_to, report_to, states_from

ENTRIES_DEFAULT: Final = 20


def find_entries(
    core: Core, request: bank_pb2.FindEntriesRequest, caller: Identity
) -> bank_pb2.FindEntriesResponse:
    """The entries nearest to a content. Raises what a match of the content would, PermissionDenied,
    LimitExceeded and BadRequest."""
    content = content_from(request.content, core.dim_of)
    limits, states = _reach(request, caller), states_from(request.states)
    if EntryState.RETRACTED in states:
        raise BadRequest("retracted entries cannot be found: their rows are gone; list them")
    limit, limit_max = request.entries_max or ENTRIES_DEFAULT, core.config.limits.page_size_max
    if not 1 <= limit <= limit_max:
        raise LimitExceeded(f"entries_max is {limit}: ask for 1 to {limit_max}")
    _banks(core.follower.view.banks, request, caller)
    [asked] = all_or_first_refusal(core.fingerprinter.query([content], AllSignals()))
    view = core.follower.view
    banks = _banks(view.banks, request, caller)
    found = find_nearest(asked, content, view, banks, states, limit=limit, limits=limits)
    if asked.refusal is not None and not found.found:
        raise asked.refusal
    return bank_pb2.FindEntriesResponse(
        entries=_found_to(found),
        truncated=found.truncated,
        signals=[report_to(report) for report in (*asked.reports, *_off(core, asked))],
        snapshot=view.snapshot,
        seq=view.seq,
    )


def _reach(request: bank_pb2.FindEntriesRequest, caller: Identity) -> DistanceLimits:
    """The request's bounds. Raises PermissionDenied for callers who may not see scores: bounds of
    their own would reveal them."""
    cosine_min = request.cosine_min if request.HasField("cosine_min") else None
    hamming_max = request.hamming_max if request.HasField("hamming_max") else None
    if (cosine_min, hamming_max) != (None, None) and not caller.may_see_scores:
        raise PermissionDenied(
            "cosine_min and hamming_max are for who may see scores, and "
            f"{caller.name} may not: leave them out"
        )
    return DistanceLimits.of(cosine_min, hamming_max)


def _banks(
    there: Mapping[str, Bank], request: bank_pb2.FindEntriesRequest, caller: Identity
) -> list[Bank]:
    """The banks named in the request, each once, or all readable ones. Raises BankNotFound."""
    for name in request.banks:
        if name not in there or name not in caller.reads:
            raise BankNotFound(f"there is no bank {name[:80]!r} that {caller.name} may read")
    names = dict.fromkeys(request.banks) or there
    return [there[name] for name in names if name in caller.reads]


def _off(core: Core, asked: ContentFingerprint) -> Iterator[SignalReport]:
    """Reports of the encoders that would have encoded this content and are off."""
    for encoder in core.encoders:
        if encoder.space is None and encoder.home is asked.modality:
            yield SignalReport(encoder.name, SignalState.UNAVAILABLE, encoder.off_reason)


def _found_to(nearest: NearestEntries) -> list[bank_pb2.FoundEntry]:
    return [
        bank_pb2.FoundEntry(
            entry=entry_to(near.entry, near.bank),
            evidence=[evidence_to(each) for each in near.evidence],
        )
        for near in nearest.found
    ]


def compare_entries(
    core: Core, request: bank_pb2.CompareEntriesRequest, caller: Identity
) -> bank_pb2.CompareEntriesResponse:
    """The evidence that two entries give for each other. Raises BankNotFound, EntryNotFound,
    EntryInOtherBank. Authorization has checked `bank`, not `other_bank`."""
    name = request.other_bank or request.bank
    if name not in caller.reads:
        raise BankNotFound(f"there is no bank {name[:80]!r} that {caller.name} may read")
    entry = _entry(core, request.bank, request.key, caller)
    other = _entry(core, name, request.other_key, caller)
    fingerprints = core.store.fingerprints([entry.key, other.key])
    return bank_pb2.CompareEntriesResponse(
        entry=entry_to(entry, request.bank),
        other=entry_to(other, name),
        evidence=[
            evidence_to(e) for e in compare(fingerprints[entry.key], fingerprints[other.key])
        ],
    )


def _entry(core: Core, bank: str, key: int, caller: Identity) -> Entry:
    """The entry of that key, which must not reveal a bank that the caller may not read."""
    try:
        return core.store.entry(bank, key)
    except EntryInOtherBank:
        if caller.reads == EVERY_BANK:
            raise
        raise EntryNotFound(f"there is no entry {key}") from None
