"""Wire mapping of banks, entries, changes and edits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from simsearch.errors import (
    BadRequest,
)
from simsearch.types import (
    Bank,
    BankKind,
    Change,
    ChangeKind,
    Edit,
    Entry,
    EntryState,
    FourEyes,
    WaitUntil,
)
from simsearch.v1 import bank_pb2
from simsearch.wire.enums import (
    BANK_KIND_NUMBERS,
    BANK_KINDS,
    CHANGE_KIND_NUMBERS,
    CHANGE_KINDS,
    ENTRY_STATE_NUMBERS,
    ENTRY_STATES,
    FOUR_EYES,
    FOUR_EYES_NUMBERS,
)
from simsearch.wire.policies import policy_to

WAIT_UNTILS: Mapping[int, WaitUntil] = {
    bank_pb2.WAIT_UNTIL_UNSPECIFIED: WaitUntil.VISIBLE,
    bank_pb2.WAIT_UNTIL_DURABLE: WaitUntil.DURABLE,
    bank_pb2.WAIT_UNTIL_VISIBLE: WaitUntil.VISIBLE,
}


def bank_to(bank: Bank) -> bank_pb2.Bank:
    """The message of a bank."""
    return bank_pb2.Bank(
        name=bank.name,
        description=bank.description,
        policy=policy_to(bank.policy),
        create_time=_time_to(bank.created_us),
        etag=bank.etag,
        active_entries=bank.active_entries,
        owner=bank.owner,
        kind=BANK_KIND_NUMBERS[bank.kind],
        archived=bank.archived,
        enabled_ratio=bank.enabled_ratio,
        four_eyes=FOUR_EYES_NUMBERS[bank.four_eyes],
    )


def bank_kind_from(number: int) -> BankKind:
    """BANNED where the field is not set. Raises BadRequest."""
    if number and number not in BANK_KINDS:
        raise BadRequest(f"there is no bank kind {number}: set BANNED or ALLOWED")
    return BANK_KINDS.get(number, BankKind.BANNED)


def four_eyes_from(number: int) -> FourEyes:
    """Raises BadRequest for an unknown number."""
    if number not in FOUR_EYES:
        raise BadRequest(f"there is no four_eyes {number}: set REQUIRED or OFF")
    return FOUR_EYES[number]


def entry_to(
    entry: Entry, bank: str, content_id: str = "", hits: bank_pb2.EntryHits | None = None
) -> bank_pb2.Entry:
    """The message of an entry of `bank`."""
    return bank_pb2.Entry(
        key=entry.key,
        bank=bank,
        state=ENTRY_STATE_NUMBERS[entry.state],
        labels=entry.labels,
        source=entry.source,
        source_id=entry.source_id,
        note=entry.note,
        signals=signals_to(entry.signals),
        added=change_to(entry.added),
        retracted=change_to(entry.retracted) if entry.retracted else None,
        extended=[change_to(change) for change in entry.extended],
        first_state=ENTRY_STATE_NUMBERS[entry.first_state],
        moves=[
            bank_pb2.EntryMove(
                state=ENTRY_STATE_NUMBERS[move.state],
                change=change_to(move.change),
                until=time_to(move.until_us),
            )
            for move in entry.moves
        ],
        expire_time=time_to(entry.expires_us),
        severity=entry.severity,
        aliases=entry.aliases,
        held=entry.review_reasons,
        content_id=content_id,
        hits=hits,
    )


def signals_to(rows: Mapping[str, int]) -> list[bank_pb2.EntrySignal]:
    """Rows by signal, sorted by name."""
    return [bank_pb2.EntrySignal(signal=s, rows=n) for s, n in sorted(rows.items())]


def change_to(change: Change) -> bank_pb2.Change:
    """The message of a change, as entries hold it."""
    return bank_pb2.Change(
        seq=change.seq,
        actor=change.actor,
        reason=change.reason,
        time=_time_to(change.time_us),
        approved_by=change.approved_by,
        proposal=change.proposal,
    )


def logged_change_to(change: Change, bank: str, link: bytes) -> bank_pb2.LoggedChange:
    """The message of a change in the log; `link` is its hash."""
    return bank_pb2.LoggedChange(
        seq=change.seq,
        kind=CHANGE_KIND_NUMBERS[change.kind],
        bank=bank,
        entry_key=change.entry_key,
        actor=change.actor,
        reason=change.reason,
        time=_time_to(change.time_us),
        undoes=change.undoes,
        link=link.hex(),
        approved_by=change.approved_by,
        proposal=change.proposal,
    )


def _time_to(time_us: int) -> Timestamp:
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1_000)


def time_to(time_us: int) -> Timestamp | None:
    """None for 0, which stands for no time."""
    return _time_to(time_us) if time_us else None


def time_from(time: Timestamp) -> int:
    """In microseconds since 1970; 0 where the field is not set."""
    return time.seconds * 1_000_000 + time.nanos // 1_000


def edit_from(message: bank_pb2.Edit) -> Edit:
    """Actor and reason of an edit."""
    return Edit(message.actor, message.reason)


def edit_to(edit: Edit) -> bank_pb2.Edit:
    """The message of an edit."""
    return bank_pb2.Edit(actor=edit.actor, reason=edit.reason)


def wait_from(number: int) -> WaitUntil:
    """VISIBLE where the field is not set. Raises BadRequest."""
    if number not in WAIT_UNTILS:
        raise BadRequest(f"there is no wait_until {number}: set DURABLE or VISIBLE")
    return WAIT_UNTILS[number]


def wait_to(wait: WaitUntil) -> bank_pb2.WaitUntil:
    """The number of a wait."""
    durable = wait is WaitUntil.DURABLE
    return bank_pb2.WAIT_UNTIL_DURABLE if durable else bank_pb2.WAIT_UNTIL_VISIBLE


def states_from(numbers: Iterable[int]) -> frozenset[EntryState]:
    """Without unset ones. Raises BadRequest."""
    return frozenset(state for number in numbers if (state := state_from(number)))


def kinds_from(numbers: Collection[int]) -> frozenset[ChangeKind]:
    """Raises BadRequest."""
    for number in numbers:
        if number not in CHANGE_KINDS:
            raise BadRequest(f"there is no kind of change {number}: set some of the enum's")
    return frozenset(CHANGE_KINDS[number] for number in numbers)


def state_from(number: int) -> EntryState | None:
    """None where the field is not set. Raises BadRequest."""
    if number and number not in ENTRY_STATES:
        raise BadRequest(f"there is no entry state {number}: set one of the enum's")
    return ENTRY_STATES.get(number)
