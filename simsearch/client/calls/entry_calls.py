"""Entry calls: banning, listing, finding, moving and retracting."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter

from simsearch.client.calls.call_spec import CallSpec, whole
from simsearch.client.calls.rpcs import (
    ADD_ENTRY,
    BATCH_ADD_ENTRIES,
    COMPARE_ENTRIES,
    EXPORT_ENTRIES,
    EXTEND_ENTRY,
    FIND_ENTRIES,
    GET_ENTRY,
    IMPORT_ENTRIES,
    LIST_ENTRIES,
    MOVE_ENTRY,
    RETRACT_ENTRY,
)
from simsearch.errors import SimsearchError
from simsearch.types import (
    Content,
    Edit,
    EntryState,
    WaitUntil,
)
from simsearch.v1 import (
    bank_pb2,
)
from simsearch.wire import (
    content_to,
    edit_to,
    item_error_from,
    time_to,
    wait_to,
)


def add_entry(
    bank: str,
    contents: Sequence[Content],
    edit: Edit,
    *,
    labels: Sequence[str] = (),
    source: str = "",
    source_id: str = "",
    note: str = "",
    state: EntryState = EntryState.ACTIVE,
    expires_us: int = 0,
    severity: str = "",
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> CallSpec[bank_pb2.AddEntryResponse]:
    """Ban one item; its contents become rows of one entry. It may begin as a DRAFT or in the
    SHADOW; `expires_us` (microseconds since 1970): it retracts itself then."""
    draft = bank_pb2.EntryDraft(
        contents=[content_to(c) for c in contents],
        labels=labels,
        source=source,
        source_id=source_id,
        note=note,
        state=int(state),  # type: ignore[arg-type]
        expire_time=time_to(expires_us),
        severity=severity,
    )
    request = bank_pb2.AddEntryRequest(
        bank=bank, entry=draft, edit=edit_to(edit), wait_until=wait_to(wait_until)
    )
    return CallSpec(ADD_ENTRY, request, whole, deadline_s)


def add_entries(
    bank: str,
    items: Sequence[Content],
    edit: Edit,
    *,
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> CallSpec[list[int | SimsearchError]]:
    """Ban many items of one content each: a key or an error per item, in order."""
    request = bank_pb2.BatchAddEntriesRequest(
        bank=bank,
        entries=[bank_pb2.EntryDraft(contents=[content_to(c)]) for c in items],
        edit=edit_to(edit),
        wait_until=wait_to(wait_until),
    )
    return CallSpec(BATCH_ADD_ENTRIES, request, _keys, deadline_s)


def _keys(reply: bank_pb2.BatchAddEntriesResponse) -> list[int | SimsearchError]:
    return [
        item.key if item.WhichOneof("outcome") == "key" else item_error_from(item.error)
        for item in reply.items
    ]


def import_entries(
    request: bank_pb2.ImportEntriesRequest, *, deadline_s: float | None = None
) -> CallSpec[bank_pb2.ImportEntriesResponse]:
    """A part of a list; a part that was done before is answered as it was then."""
    return CallSpec(IMPORT_ENTRIES, request, whole, deadline_s)


def get_entry(bank: str, key: int, *, deadline_s: float | None = None) -> CallSpec[bank_pb2.Entry]:
    """One banned item and its changes."""
    request = bank_pb2.GetEntryRequest(bank=bank, key=key)
    return CallSpec(GET_ENTRY, request, attrgetter("entry"), deadline_s)


def list_entries(
    request: bank_pb2.ListEntriesRequest, *, deadline_s: float | None = None
) -> CallSpec[bank_pb2.ListEntriesResponse]:
    """One page of the entries that the request chooses, in key order. A page may be short, or
    empty, before the last: go on while there is a `next_page_token`."""
    return CallSpec(LIST_ENTRIES, request, whole, deadline_s)


def find_entries(
    content: Content,
    banks: Sequence[str] = (),
    *,
    states: Collection[EntryState] = (),
    entries_max: int = 0,
    cosine_min: float | None = None,
    hamming_max: int | None = None,
    deadline_s: float | None = None,
) -> CallSpec[bank_pb2.FindEntriesResponse]:
    """The entries nearest to a content, best first, whatever the banks' thresholds and in whatever
    state: for people who look around. Nothing is judged by it."""
    request = bank_pb2.FindEntriesRequest(
        content=content_to(content),
        banks=banks,
        states=[int(state) for state in states],  # type: ignore[misc]
        entries_max=entries_max,
        cosine_min=cosine_min,
        hamming_max=hamming_max,
    )
    return CallSpec(FIND_ENTRIES, request, whole, deadline_s)


def compare_entries(
    bank: str, key: int, other_key: int, *, other_bank: str = "", deadline_s: float | None = None
) -> CallSpec[bank_pb2.CompareEntriesResponse]:
    """Two entries, of one bank or of two, and how near they are by each signal that both have."""
    request = bank_pb2.CompareEntriesRequest(
        bank=bank, key=key, other_bank=other_bank, other_key=other_key
    )
    return CallSpec(COMPARE_ENTRIES, request, whole, deadline_s)


def extend_entry(
    bank: str,
    key: int,
    contents: Sequence[Content],
    edit: Edit,
    *,
    partial: bool = False,
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> CallSpec[bank_pb2.ExtendEntryResponse]:
    """Give an entry the signals that it lacks, from the contents it was banned with: all of
    them or, with `partial`, those that are left. Ready vectors and hashes cannot be compared
    with what was banned: the caller vouches for them. Raises ContentMismatch."""
    request = bank_pb2.ExtendEntryRequest(
        bank=bank,
        key=key,
        contents=[content_to(c) for c in contents],
        edit=edit_to(edit),
        wait_until=wait_to(wait_until),
        partial=partial,
    )
    return CallSpec(EXTEND_ENTRY, request, whole, deadline_s)


def move_entry(
    bank: str,
    key: int,
    state: EntryState,
    edit: Edit,
    *,
    until_us: int = 0,
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> CallSpec[bank_pb2.MoveEntryResponse]:
    """Make an entry ACTIVE, SHADOW or QUARANTINED; `until_us` (microseconds since 1970): it goes
    back by itself then. Raises EntryRetracted, and BadRequest where it cannot go there."""
    request = bank_pb2.MoveEntryRequest(
        bank=bank,
        key=key,
        state=int(state),  # type: ignore[arg-type]
        until=time_to(until_us),
        edit=edit_to(edit),
        wait_until=wait_to(wait_until),
    )
    return CallSpec(MOVE_ENTRY, request, whole, deadline_s)


def retract_entry(
    bank: str,
    key: int,
    edit: Edit,
    *,
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> CallSpec[bank_pb2.RetractEntryResponse]:
    """Take a ban back. Raises EntryRetracted where that was done before."""
    request = bank_pb2.RetractEntryRequest(
        bank=bank, key=key, edit=edit_to(edit), wait_until=wait_to(wait_until)
    )
    return CallSpec(RETRACT_ENTRY, request, whole, deadline_s)


def export_entries(
    request: bank_pb2.ExportEntriesRequest, *, deadline_s: float | None = None
) -> CallSpec[bank_pb2.ExportEntriesResponse]:
    """A page of a bank with its fingerprints; go on with `next_page_token` until it is empty."""
    return CallSpec(EXPORT_ENTRIES, request, whole, deadline_s)
