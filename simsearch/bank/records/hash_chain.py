"""Hash chain of the log, which makes an altered, removed or reordered change detectable.

Each record ends with its link, SHA-256(link before ‖ record without link), and contains the SHA-256
of what its change stored. So the last link authenticates the whole history: hiding an alteration
takes recomputing every later link, and the last one then differs from a head recorded elsewhere
(`Head`). Records older than links are treated as if they had them. Pure functions on bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from simsearch.types import (
    Bank,
    BankKind,
    BankUpdate,
    Entry,
    EntryState,
    FourEyes,
    OpinionDraft,
    Policy,
    Proposal,
)

GENESIS: Final = bytes(32)
"""The link before the first change."""

_TAG: Final = b"\x7a\x20"  # field 15 of a ChangeRecord: 32 bytes
_LENGTH: Final = struct.Struct(">Q")


class SplitRecord(NamedTuple):
    """A record of the log without its link, and the link; empty where it was written without."""

    body: bytes
    link: bytes


def link_of(body: bytes, before: bytes) -> bytes:
    """SHA-256 of the link before and a record without its link."""
    return hashlib.sha256(before + body).digest()


def with_link(body: bytes, link: bytes) -> bytes:
    """The record as it is stored, with its link as the last field."""
    return body + _TAG + link


def split_link(record: bytes) -> SplitRecord:
    """The reverse of `with_link`."""
    at = len(record) - len(_TAG) - len(GENESIS)
    if at < 0 or not record.startswith(_TAG, at):
        return SplitRecord(record, b"")
    return SplitRecord(record[:at], record[at + len(_TAG) :])


# ---------------------------------------------------------------- what a change stored


def content_of_entry(entry: Entry, fingerprint: bytes) -> bytes:
    """Of a change that added an entry: its metadata and its fingerprint's record."""
    counts = f"{int(entry.first_state)} {entry.expires_us} {len(entry.labels)}"
    counts += f" {len(entry.review_reasons)}" if entry.review_reasons else ""
    texts = (counts, entry.source, entry.source_id, entry.note, entry.severity)
    fields = (*texts, *entry.labels, *entry.aliases, *entry.review_reasons)
    return _digest((fingerprint, *(text.encode() for text in fields)))


def content_of_extension(fingerprint: bytes) -> bytes:
    """Of a change that extended an entry: the record of what it added."""
    return _digest((fingerprint,))


def content_of_move(state: EntryState, until_us: int) -> bytes:
    """Of a change that moved an entry."""
    return _digest((str(int(state)).encode(), str(until_us).encode()))


def content_of_opinion(draft: OpinionDraft) -> bytes:
    """Of a change that recorded an opinion."""
    kind = str(int(draft.kind)).encode()
    return _digest((kind, draft.note.encode(), draft.content_sha256, draft.case_id.encode()))


def content_of_bank(bank: Bank) -> bytes:
    """Of a change that created or updated a bank."""
    parts = (bank.name, bank.description, str(bank.version), *_rules(bank.policy))
    return _digest(part.encode() for part in (*parts, *_settings(bank)))


def content_of_proposal(proposal: Proposal) -> bytes:
    """Of a change that made a proposal, or a further part of one: the proposed edit."""
    kind = f"{proposal.id} {int(proposal.kind)} {int(proposal.to)} {proposal.until_us}"
    counts = f"{proposal.rows} {proposal.parts} {len(proposal.review_reasons)}"
    texts = (kind, counts, proposal.etag, proposal.import_id, *proposal.review_reasons)
    update = () if proposal.update is None else _update(proposal.update)
    return _digest((proposal.digest, *(text.encode() for text in (*texts, *update))))


def _update(update: BankUpdate) -> Iterable[str]:
    """A line for each setting that the update sets, with its name."""
    for name, value in vars(update).items():
        if isinstance(value, Policy):
            yield from (f"{name} {line}" for line in _rules(value))
        elif value is not None:
            yield f"{name} {int(value) if isinstance(value, FourEyes) else value}"


def content_of_decision(proposal: Proposal) -> bytes:
    """Of a change that decided a proposal: the decision and the proposed edit."""
    return _digest((str(int(proposal.state)).encode(), content_of_proposal(proposal)))


def digest_of_rows(before: bytes, rows: bytes) -> bytes:
    """The hash over the parts of a proposal up to this one, whose record is `rows`."""
    return _digest((before, rows))


def _settings(bank: Bank) -> Iterable[str]:
    """The settings of a bank, left out where all are defaults, as in records older than them."""
    plain = replace(bank, owner="", kind=BankKind.BANNED, archived=False, enabled_ratio=1.0)
    if bank != plain or bank.four_eyes:
        yield f"owner {bank.owner}"
        yield f"{int(bank.kind)} {bank.archived} {bank.enabled_ratio} {int(bank.four_eyes)}"


def _rules(policy: Policy) -> Iterable[str]:
    """One line a rule, from its fields alone."""
    for cosine in policy.cosine:
        yield f"{cosine.space} {cosine.query} {cosine.block} {cosine.review} {cosine.log}"
    for hamming in policy.hamming:
        yield f"{hamming.signal} {hamming.block} {hamming.review} {hamming.log}"
    for digest in policy.digests:
        yield f"{digest.signal} {int(digest.band)}"
    yield f"two_descriptors {policy.two_descriptors}"


def _digest(parts: Iterable[bytes]) -> bytes:
    """SHA-256 of the parts, each after its length, so that no two lists of parts collide."""
    pack = _LENGTH.pack  # an import calls this nine times a row
    return hashlib.sha256(b"".join([pack(len(part)) + part for part in parts])).digest()
