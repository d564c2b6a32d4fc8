"""Records of banks, entries and changes, in protobuf; inconsistent ones raise Corrupt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError

from simsearch.bank.records.keys import NEVER, corrupt
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import (
    Band,
    Bank,
    BankKind,
    Change,
    ChangeKind,
    CosineRule,
    DigestRule,
    Entry,
    EntryState,
    FourEyes,
    HammingRule,
    Modality,
    Move,
    Policy,
    Signal,
)

T = TypeVar("T")


# ---------------------------------------------------------------- banks


def bank_to_bytes(bank: Bank) -> bytes:
    """The bank as a BankRecord; default settings are left out."""
    record = pb.BankRecord(
        id=bank.id,
        name=bank.name,
        description=bank.description,
        policy=policy_to_record(bank.policy),
        created_us=bank.created_us,
        version=bank.version,
        active_entries=bank.active_entries,
        restores=bank.restores,
        owner=bank.owner,
        kind=0 if bank.kind is BankKind.BANNED else bank.kind,
        archived=bank.archived,
        enabled_ratio=None if bank.enabled_ratio == 1 else bank.enabled_ratio,
        four_eyes=bank.four_eyes,
    )
    return record.SerializeToString()


def bank_from_bytes(bank_id: int, data: bytes) -> Bank:
    """Raises Corrupt where `data` is not a record of bank `bank_id`."""
    return read_record(f"bank {bank_id}", lambda: _bank(bank_id, pb.BankRecord.FromString(data)))


def _bank(bank_id: int, record: pb.BankRecord) -> Bank:
    require(record.id == bank_id, f"carries the id {record.id}")
    require(record.version >= 1 and record.name != "", "lacks its name or version")
    return Bank(
        id=record.id,
        name=record.name,
        description=record.description,
        policy=policy_from_record(record.policy),
        created_us=record.created_us,
        version=record.version,
        active_entries=record.active_entries,
        restores=record.restores,
        owner=record.owner,
        kind=BankKind(record.kind or BankKind.BANNED),
        archived=record.archived,
        enabled_ratio=record.enabled_ratio if record.HasField("enabled_ratio") else 1.0,
        four_eyes=FourEyes(record.four_eyes),
    )


def policy_to_record(policy: Policy) -> pb.PolicyRecord:
    """The policy as a message."""
    return pb.PolicyRecord(
        cosine=[
            pb.CosineRuleRecord(
                space=rule.space,
                query=rule.query,
                block=rule.block,
                review=rule.review,
                log=rule.log,
            )
            for rule in policy.cosine
        ],
        hamming=[
            pb.HammingRuleRecord(
                signal=rule.signal, block=rule.block, review=rule.review, log=rule.log
            )
            for rule in policy.hamming
        ],
        digests=[
            pb.DigestRuleRecord(signal=rule.signal, band=rule.band) for rule in policy.digests
        ],
        two_descriptors=policy.two_descriptors,
    )


def policy_from_record(record: pb.PolicyRecord) -> Policy:
    """Raises ValueError for an unknown enum value: call it inside `read_record`."""
    return Policy(
        cosine=tuple(_cosine_rule(rule) for rule in record.cosine),
        hamming=tuple(_hamming_rule(rule) for rule in record.hamming),
        digests=tuple(DigestRule(Signal(r.signal), Band(r.band)) for r in record.digests),
        two_descriptors=record.two_descriptors,
    )


def _cosine_rule(rule: pb.CosineRuleRecord) -> CosineRule:
    return CosineRule(
        space=rule.space,
        query=Modality(rule.query),
        block=rule.block if rule.HasField("block") else None,
        review=rule.review if rule.HasField("review") else None,
        log=rule.log if rule.HasField("log") else None,
    )


def _hamming_rule(rule: pb.HammingRuleRecord) -> HammingRule:
    return HammingRule(
        signal=Signal(rule.signal),
        block=rule.block if rule.HasField("block") else None,
        review=rule.review if rule.HasField("review") else None,
        log=rule.log if rule.HasField("log") else None,
    )


# ---------------------------------------------------------------- changes and entries


def change_to_bytes(change: Change, content: bytes, bank_before: Bank | None = None) -> bytes:
    """`content`: the SHA-256 of what the change stored; `bank_before`: what an update replaced."""
    record = change_to_record(change)
    record.content = content
    if bank_before:
        record.bank_before.ParseFromString(bank_to_bytes(bank_before))
    return record.SerializeToString()


def bank_before(seq: int, data: bytes) -> Bank | None:
    """The bank that a change replaced; None: not recorded."""

    def read() -> Bank | None:
        record = pb.ChangeRecord.FromString(data)
        recorded = record.HasField("bank_before")
        return _bank(record.bank_id, record.bank_before) if recorded else None

    return read_record(f"change {seq}", read)


def content_of_change(seq: int, data: bytes) -> bytes:
    """The SHA-256 of what a change stored; empty: not recorded."""
    return read_record(f"change {seq}", lambda: bytes(pb.ChangeRecord.FromString(data).content))


def change_from_bytes(seq: int, data: bytes) -> Change:
    """Raises Corrupt where `data` is not the change numbered `seq`."""

    def read() -> Change:
        change = change_from_record(pb.ChangeRecord.FromString(data))
        require(change.seq == seq, f"carries the seq {change.seq}")
        return change

    return read_record(f"change {seq}", read)


def entry_to_bytes(entry: Entry) -> bytes:
    """The entry as an EntryRecord."""
    record = pb.EntryRecord(
        key=entry.key,
        bank_id=entry.bank_id,
        state=entry.state,
        labels=entry.labels,
        source=entry.source,
        source_id=entry.source_id,
        note=entry.note,
        signals=[pb.SignalCountRecord(signal=s, rows=n) for s, n in entry.signals.items()],
        added=change_to_record(entry.added),
        retracted=None if entry.retracted is None else change_to_record(entry.retracted),
        extended=[change_to_record(change) for change in entry.extended],
        first_state=entry.first_state,
        moves=[
            pb.MoveRecord(state=m.state, change=change_to_record(m.change), until_us=m.until_us)
            for m in entry.moves
        ],
        expires_us=entry.expires_us,
        severity=entry.severity,
        aliases=entry.aliases,
        held=entry.review_reasons,
    )
    return record.SerializeToString()


def entry_from_bytes(key: int, data: bytes) -> Entry:
    """Raises Corrupt where `data` is not a record of entry `key`."""
    return read_record(f"entry {key}", lambda: _entry(key, pb.EntryRecord.FromString(data)))


def _entry(key: int, record: pb.EntryRecord) -> Entry:
    require(record.key == key, f"carries the key {record.key}")
    state = EntryState(record.state)
    added = change_from_record(record.added)
    retracted = change_from_record(record.retracted) if record.HasField("retracted") else None
    extended = tuple(change_from_record(change) for change in record.extended)
    moves = tuple(_move(move) for move in record.moves)
    own = all(c.entry_key == key for c in (added, *extended, *(move.change for move in moves)))
    require(own, "was added or changed under another key")
    require((state is EntryState.RETRACTED) == (retracted is not None), "contradicts its state")
    entry = Entry(
        key=record.key,
        bank_id=record.bank_id,
        state=state,
        labels=tuple(record.labels),
        source=record.source,
        source_id=record.source_id,
        note=record.note,
        signals={count.signal: count.rows for count in record.signals},
        added=added,
        retracted=retracted,
        extended=extended,
        first_state=EntryState(record.first_state or EntryState.ACTIVE),
        moves=moves,
        expires_us=record.expires_us,
        severity=record.severity,
        aliases=tuple(record.aliases),
        review_reasons=tuple(record.held),
    )
    require(retracted is not None or state is entry.unretracted_at(NEVER), "is not where it moved")
    return entry


def _move(record: pb.MoveRecord) -> Move:
    return Move(EntryState(record.state), change_from_record(record.change), record.until_us)


def change_to_record(change: Change) -> pb.ChangeRecord:
    """The change as a message, without content and link."""
    return pb.ChangeRecord(
        seq=change.seq,
        kind=change.kind,
        bank_id=change.bank_id,
        entry_key=change.entry_key,
        actor=change.actor,
        reason=change.reason,
        time_us=change.time_us,
        undoes=change.undoes,
        approved_by=change.approved_by,
        proposal=change.proposal,
    )


def change_from_record(record: pb.ChangeRecord) -> Change:
    """Raises ValueError for an unknown kind: call it inside `read_record`."""
    return Change(
        seq=record.seq,
        kind=ChangeKind(record.kind),
        bank_id=record.bank_id,
        entry_key=record.entry_key,
        actor=record.actor,
        reason=record.reason,
        time_us=record.time_us,
        undoes=record.undoes,
        approved_by=record.approved_by,
        proposal=record.proposal,
    )


# ---------------------------------------------------------------- validation


class _Broken(ValueError):
    """A record contradicts itself."""


def require(holds: bool, how: str) -> None:
    """Validates a record: to be used inside `read_record`, which raises Corrupt saying `how`."""
    if not holds:
        raise _Broken(how)


def read_record(what: str, read: Callable[[], T]) -> T:
    """Runs `read`; raises Corrupt, naming `what`, where the record does not parse or validate."""
    try:
        return read()
    except _Broken as broken:
        raise corrupt(what, str(broken)) from None
    except (DecodeError, ValueError) as error:
        # ValueError: a number or name that is no member of one of the enums.
        raise corrupt(what, f"does not parse ({error})") from None
