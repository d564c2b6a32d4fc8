"""Entry drafts: from the messages of an edit to fingerprinted drafts, ready to store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simsearch.bank.edit_checks import check_drafts
from simsearch.encode.fingerprint import ContentFingerprint, merge
from simsearch.encode.text_signals import CurrentSignals
from simsearch.errors import EmptyContent, LimitExceeded, SimsearchError
from simsearch.match.allowed_frames import without_allowed_frames
from simsearch.serve.core.server_core import Core
from simsearch.types import (
    Content,
    EntryDraft,
    EntryState,
    Fingerprint,
    Policy,
    SignalReport,
    SignalState,
)
from simsearch.v1 import bank_pb2, content_pb2
from simsearch.wire import content_from, state_from, time_from


@dataclass(frozen=True)
class Prepared:
    """A draft ready to store, its contents, what there is to say of its signals, and why it may
    need a review by what it shows."""

    draft: EntryDraft
    warnings: tuple[str, ...]
    contents: tuple[Content, ...] = ()
    reports: tuple[SignalReport, ...] = ()
    reasons: tuple[str, ...] = ()


def prepare(
    core: Core, bank: str, drafts: Sequence[bank_pb2.EntryDraft]
) -> list[Prepared | SimsearchError]:
    """Each draft for that bank with its fingerprint, or an error; all contents are encoded in one
    batch. Raises BankNotFound."""
    read = [read_contents(core, draft.contents) for draft in drafts]
    flat = [content for contents in read if isinstance(contents, list) for content in contents]
    wanted = wanted_of_bans(core.store.bank(bank).policy)
    outcomes = iter(core.fingerprinter.ban(flat, wanted=wanted))
    prepared: list[Prepared | SimsearchError] = []
    for draft, contents in zip(drafts, read, strict=True):
        if isinstance(contents, SimsearchError):
            prepared.append(contents)
        else:
            prepared.append(_prepared(core, draft, contents, [next(outcomes) for _ in contents]))
    return prepared


def wanted_of_bans(policy: Policy) -> CurrentSignals:
    """Every signal, those of the older form of texts where the policy has a rule for them."""
    return CurrentSignals(_named(policy))


def _named(policy: Policy) -> set[str]:
    signals = [rule.signal for rule in policy.hamming] + [rule.signal for rule in policy.digests]
    return {*(rule.space for rule in policy.cosine), *map(str, signals)}


def wanted_of_extension(policy: Policy, stored: Fingerprint) -> CurrentSignals:
    """As `wanted_of_bans`, and those of the older form that the entry has, by which it is known."""
    return CurrentSignals({*_named(policy), *stored.rows()})


def read_contents(
    core: Core, messages: Sequence[content_pb2.Content]
) -> list[Content] | SimsearchError:
    """The contents of one entry; an error where one cannot be read, or there are none or too
    many."""
    count_max = core.config.limits.contents_per_entry_max
    if not messages:
        return EmptyContent("the entry has no content: give it an image, text, vector or hash")
    if len(messages) > count_max:
        return LimitExceeded(f"{len(messages)} contents in one entry: {count_max} at most")
    try:
        return [content_from(message, core.dim_of) for message in messages]
    except SimsearchError as refusal:
        return refusal


def _prepared(
    core: Core,
    message: bank_pb2.EntryDraft,
    contents: Sequence[Content],
    outcomes: Sequence[ContentFingerprint | SimsearchError],
) -> Prepared | SimsearchError:
    try:
        whole = all_or_first_refusal(outcomes)
        fingerprints, reasons = without_allowed(core, contents, whole)
        draft = draft_from(message, merge(fingerprints))
        check_drafts([draft])  # here, so that one bad draft does not fail its batch
    except SimsearchError as refusal:
        return refusal
    reports = tuple(report for p in fingerprints for report in p.reports)
    return Prepared(draft, warnings_of(fingerprints), tuple(contents), reports, reasons)


def without_allowed(
    core: Core, contents: Sequence[Content], fingerprints: Sequence[ContentFingerprint]
) -> tuple[list[ContentFingerprint], tuple[str, ...]]:
    """The fingerprints without frames that allow-listed banks hold, and why what remains needs a
    review. As they are where bans are not looked at."""
    if not core.config.ban_checks.enabled:
        return list(fingerprints), ()
    view = core.follower.view
    pairs = [
        without_allowed_frames(fingerprint, content, view)
        for fingerprint, content in zip(fingerprints, contents, strict=True)
    ]
    return [kept for kept, _ in pairs], tuple(reason for _, reason in pairs if reason)


def draft_from(message: bank_pb2.EntryDraft, fingerprint: Fingerprint) -> EntryDraft:
    """The draft of a message and its fingerprint. Raises BadRequest."""
    return EntryDraft(
        fingerprint,
        labels=tuple(message.labels),
        source=message.source,
        source_id=message.source_id,
        note=message.note,
        state=state_from(message.state) or EntryState.ACTIVE,
        expires_us=time_from(message.expire_time),
        severity=message.severity,
        aliases=tuple(message.aliases),
    )


def all_or_first_refusal(
    outcomes: Sequence[ContentFingerprint | SimsearchError],
) -> list[ContentFingerprint]:
    """All prints, or the first error raised: an entry is stored whole or not at all."""
    for outcome in outcomes:
        if isinstance(outcome, SimsearchError):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, ContentFingerprint)]


def warnings_of(fingerprints: Sequence[ContentFingerprint]) -> tuple[str, ...]:
    """The signals that could not be computed of all of the content, with the reason, and what else
    there is to say of them; each once."""
    reports = [r for p in fingerprints for r in p.reports]
    told = [r for r in reports if r.state is not SignalState.SEARCHED or r.detail]
    return tuple(dict.fromkeys(f"{r.signal}: {r.detail}" for r in told))
