"""List import: parts of a list from the wire to the bank, with an outcome for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simsearch.bank.edit_checks import NORM_TOLERANCE, check_drafts
from simsearch.bank.edits.imports import ImportedPart, ImportItem, RowOutcome
from simsearch.bank.records.fingerprints import are_unit
from simsearch.encode.digests import hash_bytes
from simsearch.errors import (
    BadInput,
    BadRequest,
    LimitExceeded,
    LowInformation,
    NotFound,
    SimsearchError,
)
from simsearch.serve.auth.identity import Identity
from simsearch.serve.banks.ban_checks import check_hashes
from simsearch.serve.banks.edit_terms import current_terms
from simsearch.serve.banks.entry_drafts import Prepared, draft_from, prepare
from simsearch.serve.core.edit_lag import wait_visible
from simsearch.serve.core.server_core import Core
from simsearch.serve.transport.status_codes import item_error
from simsearch.types import (
    BINARY,
    DIGESTS,
    EntryDraft,
    Fingerprint,
    VectorContent,
    Vectors,
    WaitUntil,
)
from simsearch.v1 import bank_pb2
from simsearch.wire import content_from, edit_from, wait_from
from simsearch.wire.contents import hash_signal

ROWS_MAX: Final = 4_096
"""Rows in a part: it is one transaction, and other edits wait for it."""


def import_entries(
    core: Core, request: bank_pb2.ImportEntriesRequest, caller: Identity
) -> bank_pb2.ImportEntriesResponse:
    """Store one part; each row has an outcome of its own, and refused rows have an error."""
    rows = _rows(core, request)
    if core.config.ban_checks.enabled:
        rows = [_checked(row) for row in rows]
    items = [row for row in rows if isinstance(row, ImportItem)]
    answer = bank_pb2.ImportEntriesResponse(
        outcomes=[bank_pb2.ROW_OUTCOME_REFUSED] * len(rows), keys=[0] * len(rows)
    )
    if items:
        done = core.store.import_part(
            request.bank,
            request.import_id,
            request.part,
            items,
            edit_from(request.edit),
            revive=request.revive,
            dry_run=request.dry_run,
            terms=current_terms(core),
        )
        if request.dry_run and not done.repeated:
            done = _unwritten(done)
        at = [number for number, row in enumerate(rows) if isinstance(row, ImportItem)]
        for number, outcome, key in zip(at, done.outcomes, done.keys, strict=True):
            answer.outcomes[number] = int(outcome)  # type: ignore[call-overload]
            answer.keys[number] = key
        answer.seq, answer.repeated = done.seq, done.repeated
        answer.proposal_id = done.proposal
    for number, row in enumerate(rows):
        if isinstance(row, SimsearchError):
            answer.refused.add(row=number, error=item_error(row))
    if not request.dry_run and wait_from(request.wait_until) is WaitUntil.VISIBLE:
        # Not the seq of this part: rows that repeat others may point to changes not visible yet.
        wait_visible(core, core.store.seq(), f"part {request.part} is stored")
    return answer


def _checked(row: ImportItem | SimsearchError) -> ImportItem | SimsearchError:
    """The row, or its refusal. Withdrawals pass: the ban may have been a mistake."""
    if isinstance(row, ImportItem) and not row.withdrawn:
        try:
            check_hashes(row.draft.fingerprint)
        except LowInformation as refusal:
            return refusal
    return row


def _unwritten(done: ImportedPart) -> ImportedPart:
    """A dry run's outcome, without the keys and seq of what was not written."""
    pairs = zip(done.outcomes, done.keys, strict=True)
    keys = tuple(0 if outcome is RowOutcome.ADDED else key for outcome, key in pairs)
    return replace(done, keys=keys, seq=0, proposal=0)


def _rows(
    core: Core, request: bank_pb2.ImportEntriesRequest
) -> Sequence[ImportItem | SimsearchError]:
    """Raises BadRequest, LimitExceeded."""
    core.store.bank(request.bank)
    if bool(request.items) == request.HasField("hashes"):
        raise BadRequest("a part holds either items or hashes: set one of them")
    if request.HasField("hashes"):
        return _rows_of_hashes(request.hashes)
    _check_count(len(request.items))
    return _rows_of_items(core, request.bank, request.items)


def _rows_of_items(
    core: Core, bank: str, items: Sequence[bank_pb2.ImportItem]
) -> Sequence[ImportItem | SimsearchError]:
    """Withdrawn rows need no contents: their source's ids are enough. Raises errors that are not of
    one row, such as SpaceUnavailable."""
    whole = [item.entry for item in items if item.entry.contents or not item.withdrawn]
    prepared = iter(prepare(core, bank, whole))
    rows: list[ImportItem | SimsearchError] = []
    for item in items:
        if item.withdrawn and not item.entry.contents:
            rows.append(ImportItem(draft_from(item.entry, Fingerprint()), withdrawn=True))
            continue
        ready = next(prepared)
        if isinstance(ready, SimsearchError) and not isinstance(ready, BadInput | NotFound):
            raise ready  # not the row's fault: the part must be sent again
        if isinstance(ready, Prepared):
            rows.append(ImportItem(_with_rows_as_sent(core, item.entry, ready), item.withdrawn))
        else:
            rows.append(ready)
    return rows


def _with_rows_as_sent(core: Core, entry: bank_pb2.EntryDraft, prepared: Prepared) -> EntryDraft:
    """The draft with float16 vectors stored as they were sent, where possible, so that an exported
    bank is imported bit for bit: normalising again would round some of them differently."""
    fingerprint = prepared.draft.fingerprint
    sent: dict[str, list[NDArray[np.floating]]] = {}
    for message in entry.contents if fingerprint.vectors else ():
        if message.HasField("vector"):
            content = content_from(message, core.dim_of)
            assert isinstance(content, VectorContent)
            space = core.encoders.resolve(content.space).space
            assert space is not None
            sent.setdefault(space.id, []).append(content.vectors)
    kept = {
        space: rows.astype(np.float32)
        for space, parts in sent.items()
        if _can_keep(rows := np.concatenate(parts), fingerprint.vectors[space])
    }
    vectors = {**fingerprint.vectors, **kept}
    return replace(prepared.draft, fingerprint=replace(fingerprint, vectors=vectors))


def _can_keep(rows: NDArray[np.floating], prepared: Vectors) -> bool:
    """Whether rows can be stored as sent; not where other contents gave rows in this space too."""
    whole = rows.dtype == np.float16 and len(rows) == len(prepared)
    return whole and are_unit(rows.astype(np.float32), NORM_TOLERANCE)


def _rows_of_hashes(hashes: bank_pb2.HashRows) -> Sequence[ImportItem | SimsearchError]:
    signal = hash_signal(hashes.signal)
    width = hash_bytes(signal)
    count, rest = divmod(len(hashes.values), width)
    if rest or count != len(hashes.about_of):
        raise BadRequest(
            f"{len(hashes.values)} bytes of {signal} and {len(hashes.about_of)} numbers of abouts: "
            f"send {width} bytes and one number a row"
        )
    _check_count(count)
    abouts = [_about(item) for item in hashes.abouts]
    if any(number >= len(abouts) for number in hashes.about_of):
        raise BadRequest(f"a row names an about that there is not: there are {len(abouts)}")
    if signal in BINARY:
        bits = np.frombuffer(hashes.values, np.uint8).reshape(count, 1, width)
        fingerprints = [Fingerprint(bits={signal: row}) for row in bits]
    else:
        values = [hashes.values[n * width : (n + 1) * width] for n in range(count)]
        fingerprints = [Fingerprint(digests={signal: (value,)}) for value in values]
    return [
        about
        if isinstance(about := abouts[number], SimsearchError)
        else replace(about, draft=replace(about.draft, fingerprint=fingerprint))
        for number, fingerprint in zip(hashes.about_of, fingerprints, strict=True)
    ]


def _about(item: bank_pb2.ImportItem) -> ImportItem | SimsearchError:
    """What the rows of one about share, checked once for all of them."""
    try:
        draft = draft_from(item.entry, Fingerprint())
        check_drafts([replace(draft, fingerprint=_ANY)])
    except SimsearchError as refusal:
        return refusal
    return ImportItem(draft, item.withdrawn)


_ANY: Final = Fingerprint(digests={next(iter(DIGESTS)): (bytes(32),)})


def _check_count(count: int) -> None:
    if count > ROWS_MAX:
        raise LimitExceeded(f"{count} rows in a part: {ROWS_MAX} at most; send several")
