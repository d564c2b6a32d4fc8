"""Audit: verifies the hash chain of the log, and the tables against the log.

Works on one consistent state, beside a running server. It finds entries, policies and fingerprints
that were altered without a change in the log, and changes that were altered, removed or reordered.
A log that was cut off at the end is found only with the help of a `Head` recorded earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from simsearch.bank.edits.decide import check_rows
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.records import entries as entry_records
from simsearch.bank.records import hash_chain
from simsearch.bank.records.keys import NEVER, Lifetime
from simsearch.bank.signed_heads import Head
from simsearch.bank.state_reader import StateReader
from simsearch.errors import Corrupt
from simsearch.types import (
    Change,
    ChangeKind,
    Opinion,
    Proposal,
)

CHANGES_AT_ONCE: Final = 512
LIFETIMES_AT_ONCE: Final = 4_096
PROPOSALS_AT_ONCE: Final = 256
FAULTS_MAX: Final = 100
"""Faults reported at most; the audit stops there."""


@dataclass(frozen=True)
class Audit:
    """Result of an audit; an intact history has no `faults`. `linked_from` is the first change that
    carries a link, which also covers those before it; 0: none does."""

    head: Head
    linked_from: int
    faults: tuple[str, ...]


@dataclass
class _Findings:
    through: int
    link: bytes = hash_chain.GENESIS
    linked_from: int = 0
    entries: int = 0
    moves: int = 0
    recorded_moves: int = 0
    opinions: int = 0
    retired: dict[int, int] = field(default_factory=dict)
    """By entry key the seq of its retraction according to its lifetime, removed once the log
    confirms it."""
    made: dict[int, Change] = field(default_factory=dict)
    """By proposal the change that made it."""
    proposed: dict[int, bytes] = field(default_factory=dict)
    """By proposal the content of the last change that made it, or a part of it."""
    decided: dict[int, tuple[Change, bytes]] = field(default_factory=dict)
    banks: dict[int, bytes] = field(default_factory=dict)
    """By bank the content of its last change."""
    faults: list[str] = field(default_factory=list)


def head_of(reading: StateReader, store_id: str) -> Head:
    """The head of the log as of `reading.seq`. Raises Corrupt."""
    if reading.seq == 0:
        return Head(store_id, 0, hash_chain.GENESIS)
    [(seq, record)] = reading.read(lambda t: t.log(reading.seq - 1, 1))
    link = hash_chain.split_link(record).link
    return Head(store_id, seq, link) if link else verify(reading, store_id).head


def verify(
    reading: StateReader,
    store_id: str,
    heads: Sequence[Head] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Audit:
    """Audits the state. `heads` were recorded earlier; `progress` is called with the number of
    changes checked since its last call."""
    findings = _Findings(reading.seq)
    recorded: dict[int, list[Head]] = {}
    for head in heads:
        recorded.setdefault(head.seq, []).append(head)
        if head.store_id != store_id:
            findings.faults.append(f"the head of change {head.seq} is of another store")
    try:
        seq = _follow(reading, findings, recorded, progress)
        _check_end(reading, seq, heads, findings)
        _check_tables(reading, findings)
    except Corrupt as fault:
        findings.faults.append(fault.message)
    head = Head(store_id, reading.seq, findings.link)
    return Audit(head, findings.linked_from, tuple(findings.faults[:FAULTS_MAX]))


def _follow(
    reading: StateReader,
    findings: _Findings,
    recorded: dict[int, list[Head]],
    progress: Callable[[int], None],
) -> int:
    """Checks the log in order; returns the last seq that it has."""
    seq = 0
    while seq < reading.seq and len(findings.faults) < FAULTS_MAX:
        count = min(CHANGES_AT_ONCE, reading.seq - seq)
        seen = reading.read(lambda t, at=seq, n=count: _check_some(t, at, n, findings, recorded))  # type: ignore[misc]
        if seen == 0:
            break
        seq += seen
        progress(seen)
    return seq


def _check_some(
    tables: Tables, after: int, count: int, findings: _Findings, recorded: dict[int, list[Head]]
) -> int:
    some = tables.log(after, count)
    for seq, record in some:
        _check_link(seq, record, findings)
        for head in recorded.get(seq, ()):
            if head.link != findings.link:
                findings.faults.append(f"the history up to change {seq} is not the one noted then")
        change = entry_records.change_from_bytes(seq, record)
        _check_content(tables, change, entry_records.content_of_change(seq, record), findings)
    return len(some)


def _check_link(seq: int, record: bytes, findings: _Findings) -> None:
    body, link = hash_chain.split_link(record)
    expected = hash_chain.link_of(body, findings.link)
    if not link and findings.linked_from:
        findings.faults.append(f"change {seq} has no link, and changes before it have")
    elif link and link != expected:
        findings.faults.append(
            f"change {seq} does not follow on the one before: one of them is not what was written"
        )
    if link and not findings.linked_from:
        findings.linked_from = seq
    findings.link = link or expected  # continue from the stored link: one fault is reported once


def _check_content(tables: Tables, change: Change, content: bytes, findings: _Findings) -> None:
    if change.approved_by:
        _check_approved(change, findings)
    match change.kind:
        case ChangeKind.PROPOSAL_MADE | ChangeKind.PROPOSAL_DECIDED:
            _note_proposal(change, content, findings)
        case ChangeKind.BANK_CREATED | ChangeKind.BANK_UPDATED:
            findings.banks[change.bank_id] = content
        case ChangeKind.ENTRY_ADDED:
            _check_added(tables, change, content, findings)
        case ChangeKind.ENTRY_EXTENDED:
            stored = tables.change_fingerprint_bytes(change)
            if content and content != hash_chain.content_of_extension(stored):
                findings.faults.append(f"entry {change.entry_key}: its extension was altered")
        case ChangeKind.ENTRY_MOVED:
            _check_moved(tables, change, content, findings)
        case ChangeKind.OPINION_GIVEN:
            _check_opinion(tables, change, content, findings)
        case ChangeKind.ENTRY_RETRACTED:
            if findings.retired.pop(change.entry_key, None) != change.seq:
                findings.faults.append(
                    f"entry {change.entry_key} was retracted by change {change.seq}, and its "
                    "record says otherwise"
                )


def _note_proposal(change: Change, content: bytes, findings: _Findings) -> None:
    if change.kind is ChangeKind.PROPOSAL_DECIDED:
        findings.decided[change.proposal] = (change, content)
    else:
        findings.made.setdefault(change.proposal, change)
        findings.proposed[change.proposal] = content


def _check_approved(change: Change, findings: _Findings) -> None:
    """Checks that the approver named by a change did approve its proposal before."""
    decided, _ = findings.decided.get(change.proposal, (None, b""))
    made = findings.made.get(change.proposal)
    if decided is None or made is None or decided.actor != change.approved_by:
        findings.faults.append(
            f"change {change.seq} says that {change.approved_by[:80]} approved proposal "
            f"{change.proposal}, and the log does not"
        )
    elif made.actor != change.actor or made.actor == decided.actor:
        findings.faults.append(f"change {change.seq} was not made and approved by two persons")


def _check_added(tables: Tables, change: Change, content: bytes, findings: _Findings) -> None:
    through = findings.through
    key = change.entry_key
    findings.entries += 1
    entry, lifetime = tables.entry(key), tables.lifetime(key)
    if entry is None or lifetime is None:
        findings.faults.append(f"entry {key} was added by change {change.seq} and is not there")
        return
    findings.recorded_moves += sum(move.change.seq <= through for move in entry.moves)
    if lifetime.retired != NEVER:
        findings.retired[key] = lifetime.retired
    if entry.added != change or (lifetime.bank_id, lifetime.born) != (change.bank_id, change.seq):
        findings.faults.append(f"entry {key} is not as change {change.seq} added it")
    elif content and content != hash_chain.content_of_entry(
        entry, tables.change_fingerprint_bytes(change)
    ):
        findings.faults.append(f"entry {key}: what is stored of it was altered")


def _check_moved(tables: Tables, change: Change, content: bytes, findings: _Findings) -> None:
    entry = tables.entry(change.entry_key)
    made = [move for move in entry.moves if move.change == change] if entry else []
    if [hash_chain.content_of_move(move.state, move.until_us) for move in made] != [content]:
        findings.faults.append(
            f"entry {change.entry_key}: its record does not say what change {change.seq} made of it"
        )
    findings.moves += 1


def _check_opinion(tables: Tables, change: Change, content: bytes, findings: _Findings) -> None:
    findings.opinions += 1
    given = tables.opinion(change.entry_key, change.seq)
    if (
        given is None
        or given.change != change
        or content != hash_chain.content_of_opinion(given.draft)
    ):
        findings.faults.append(
            f"entry {change.entry_key}: the opinion of change {change.seq} is not as it was given"
        )


def _check_end(reading: StateReader, seq: int, heads: Sequence[Head], findings: _Findings) -> None:
    if seq < reading.seq and len(findings.faults) < FAULTS_MAX:
        findings.faults.append(f"the log ends at change {seq}, and it went to {reading.seq}")
    for head in heads:
        if head.seq > reading.seq:
            findings.faults.append(
                f"the log ends at change {reading.seq}; it had gone to {head.seq} when a head was "
                "noted: its end was cut off, or an older copy was put back"
            )


def _check_tables(reading: StateReader, findings: _Findings) -> None:
    """Looks for records in the tables that no change explains."""
    now = reading.read(Tables.seq)
    for key, seq in findings.retired.items():
        if seq <= reading.seq or seq > now:
            findings.faults.append(f"entry {key} ended at {seq} without a change that retracted it")
    if findings.moves != findings.recorded_moves:
        findings.faults.append(
            f"entries say that they were moved {findings.recorded_moves} times, and the log says "
            f"{findings.moves}"
        )
    opinions = _count_opinions(reading)
    if opinions != findings.opinions:
        findings.faults.append(f"there are {opinions} opinions; {findings.opinions} were given")
    _check_proposals(reading, findings)
    entries = _count_entries(reading)
    if entries != findings.entries:
        findings.faults.append(f"there are {entries} entries; {findings.entries} were added")
    banks = {bank.id: bank for bank in reading.banks()}
    if banks.keys() != findings.banks.keys():
        findings.faults.append("there are other banks than were created")
    for bank_id in banks.keys() & findings.banks.keys():
        content = findings.banks[bank_id]
        if content and content != hash_chain.content_of_bank(banks[bank_id]):
            name = banks[bank_id].name
            findings.faults.append(f"bank {name!r}: its policy or description was altered")


def _check_proposals(reading: StateReader, findings: _Findings) -> None:
    """Checks in short transactions. Proposals are not versioned, so each transaction first follows
    the log to its newest change."""
    seen, after_id, there = reading.seq, 0, 0
    while True:
        seen, ids = reading.read(
            lambda t, seq=seen, at=after_id: _check_some_proposals(t, seq, at, findings)  # type: ignore[misc]
        )
        there += len(ids)
        if not ids:
            break
        after_id = ids[-1]
    if there != len(findings.proposed):
        findings.faults.append(f"there are {there} proposals; {len(findings.proposed)} were made")


def _check_some_proposals(
    tables: Tables, seen: int, after_id: int, findings: _Findings
) -> tuple[int, list[int]]:
    while some := tables.log(seen, CHANGES_AT_ONCE):
        for seq, record in some:
            change = entry_records.change_from_bytes(seq, record)
            if change.kind in (ChangeKind.PROPOSAL_MADE, ChangeKind.PROPOSAL_DECIDED):
                _note_proposal(change, entry_records.content_of_change(seq, record), findings)
        seen = some[-1][0]
    proposals = list(islice(tables.proposals(after_id), PROPOSALS_AT_ONCE))
    for proposal in proposals:
        _check_proposal(tables, proposal, findings)
    return seen, [proposal.id for proposal in proposals]


def _check_proposal(tables: Tables, proposal: Proposal, findings: _Findings) -> None:
    number = proposal.id
    unaltered = findings.proposed.get(number) == hash_chain.content_of_proposal(proposal)
    if not unaltered or findings.made[number] != proposal.made:
        findings.faults.append(f"proposal {number}: what it asks for was altered")
        return
    decided, content = findings.decided.get(number, (None, b""))
    if decided != proposal.decided or (
        decided and content != hash_chain.content_of_decision(proposal)
    ):
        findings.faults.append(f"proposal {number} was not decided as its record says")
    try:
        check_rows(tables, proposal)
    except Corrupt as fault:
        findings.faults.append(fault.message)


def _count_entries(reading: StateReader) -> int:
    """Counts in short transactions. Keys follow the order of the log: newer entries come last."""
    count, after_key = 0, 0
    while some := reading.read(partial(_lifetimes_after, after_key)):
        born = [key for key, lifetime in some if lifetime.born <= reading.seq]
        count += len(born)
        if len(born) < len(some):
            break
        after_key = some[-1][0]
    return count


def _lifetimes_after(after_key: int, tables: Tables) -> list[tuple[int, Lifetime]]:
    return list(islice(tables.lifetimes(after_key), LIFETIMES_AT_ONCE))


def _count_opinions(reading: StateReader) -> int:
    """Counts in short transactions, leaving out newer opinions, which stand among the others."""
    count, after = 0, (0, 0)
    while some := reading.read(partial(_opinions_after, after)):
        count += sum(opinion.change.seq <= reading.seq for opinion in some)
        after = (some[-1].change.entry_key, some[-1].change.seq)
    return count


def _opinions_after(after: tuple[int, int], tables: Tables) -> list[Opinion]:
    return list(islice(tables.opinions_after(after), LIFETIMES_AT_ONCE))
