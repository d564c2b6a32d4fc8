"""Matcher: from contents to hits and a verdict, every hit decided by an exact measure.

contents → signals → one view, taken once → search of digests, bits and vectors at each bank's
loosest threshold → evidence per entry → policy per bank → hits and a verdict. With the option
`stop_at_block`, digests are searched before anything is decoded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import BoundedSemaphore
from typing import Protocol, TypeAlias

from simsearch.encode.fingerprint import ContentFingerprint, ContentLimits, Wanted, digests_alone
from simsearch.encode.fingerprint import Outcome as PrintOutcome
from simsearch.errors import BankArchived, BankNotFound, LimitExceeded, SimsearchError
from simsearch.match import policy as rules
from simsearch.match.evidence import MatchQuery, View, gather_evidence
from simsearch.match.suppression import NO_HITS, FilteredHits, filter_hits
from simsearch.telemetry import StageClock
from simsearch.types import (
    EVERY_BANK,
    NO_CALL,
    Band,
    Bank,
    BankAccess,
    BankKind,
    CallContext,
    Content,
    Hit,
    MatchOptions,
    MatchResult,
    Modality,
    SignalReport,
    SignalState,
)

BANKS_LISTED_MAX = 10
"""How many existing banks the error about an unknown bank lists."""


class ViewSource(Protocol):
    """A provider of the view to search."""

    @property
    def view(self) -> View:
        """The newest view."""


class QueryFingerprinter(Protocol):
    """Computes the fingerprints of contents: a Fingerprinter, or a cache in front of one."""

    @property
    def limits(self) -> ContentLimits:
        """Sizes above which content is refused."""

    def query(
        self, contents: Sequence[Content], wanted: Wanted, call: CallContext = NO_CALL
    ) -> list[PrintOutcome]:
        """One fingerprint or error per content, in order, with the `wanted` signals."""


Outcome: TypeAlias = MatchResult | SimsearchError


class Matcher:
    """Matches batches of contents; safe to use from any number of threads."""

    def __init__(
        self,
        fingerprints: QueryFingerprinter,
        views: ViewSource,
        hits_max: int,
        searches_max: int = 2,
    ) -> None:
        """`searches_max`: how many threads may search at a time; others encode or wait."""
        self._prints = fingerprints
        self._views = views
        self._hits_max = hits_max
        self._may_search = BoundedSemaphore(searches_max)

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        """One result or error per content, in order.

        Raises errors of the whole call: BankNotFound, BankArchived, LimitExceeded, and from
        waiting for encoders Overloaded, DeadlinePassed and NotReady.
        """
        if not 1 <= options.hits_max <= self._hits_max:
            raise LimitExceeded(f"hits_max is {options.hits_max}: ask for 1 to {self._hits_max}")
        clock = StageClock()
        stopped = self._blocked_by_digest(contents, options, clock) if options.stop_at_block else {}
        rest = [content for i, content in enumerate(contents) if i not in stopped]
        answers = iter(self._match_all(rest, options, clock, call))
        outcomes = [stopped[i] if i in stopped else next(answers) for i in range(len(contents))]
        return [_timed(o, clock) for o in outcomes] if options.with_stage_times else outcomes

    def _blocked_by_digest(
        self, contents: Sequence[Content], options: MatchOptions, clock: StageClock
    ) -> dict[int, MatchResult]:
        """The results, by position, of contents that an equal digest blocks."""
        view = self._views.view
        banks = selected_banks(view.banks, options)
        with clock.stage("digests"):
            limits, wanted = self._prints.limits, _signals_used(banks)
            alone = [(i, digests_alone(c, limits, wanted)) for i, c in enumerate(contents)]
            queries = {i: MatchQuery(p, contents[i]) for i, p in alone if p is not None}
            gather_evidence(list(queries.values()), view, banks)
            results = {i: _stopped_answer(q, view, banks, options) for i, q in queries.items()}
        return {i: result for i, result in results.items() if result.verdict is Band.BLOCK}

    def _match_all(
        self,
        contents: Sequence[Content],
        options: MatchOptions,
        clock: StageClock,
        call: CallContext,
    ) -> list[Outcome]:
        banks = selected_banks(self._views.view.banks, options)
        wanted = _signals_used(banks)
        with clock.stage("encode"):
            fingerprints = self._prints.query(contents, wanted, call)
        view = self._views.view
        banks = selected_banks(view.banks, options)
        if not _signals_used(banks) <= wanted:  # a policy was given a rule meanwhile
            with clock.stage("encode"):
                fingerprints = self._prints.query(contents, _signals_used(banks), call)
        queries = [
            MatchQuery(p, content)
            for p, content in zip(fingerprints, contents, strict=True)
            if isinstance(p, ContentFingerprint)
        ]
        with clock.stage("search"), self._may_search:
            gather_evidence(queries, view, banks)
        with clock.stage("decide"):
            answers = iter(_answers(queries, view, banks, options))
        return [
            _answer_or_refusal(next(answers), p.refusal) if isinstance(p, ContentFingerprint) else p
            for p in fingerprints
        ]


def _answer_or_refusal(answer: MatchResult, refusal: SimsearchError | None) -> Outcome:
    """The refusal of content that could not be read, unless a digest of it hits."""
    found = answer.hits or answer.shadow or answer.suppressed
    if refusal is None or found:
        return answer
    return copy.copy(refusal)  # one that is raised grows a traceback, and others share this one


def _timed(outcome: Outcome, clock: StageClock) -> Outcome:
    if isinstance(outcome, MatchResult):
        return replace(outcome, stage_ms=dict(clock.ms))
    return outcome


def selected_banks(existing: Mapping[str, Bank], options: MatchOptions) -> list[Bank]:
    """The banks to search: those that the options name and give access to, each once, and the
    allow-listed ones, which apply to every match. Raises BankNotFound, BankArchived."""
    banks, names = _within(options.access, existing), options.banks
    for name in names:
        if name not in banks:
            existing_names = sorted(banks)
            others = (
                f" and {len(existing_names) - BANKS_LISTED_MAX} more"
                if len(existing_names) > BANKS_LISTED_MAX
                else ""
            )
            there = ", ".join(existing_names[:BANKS_LISTED_MAX]) or "none yet"
            raise BankNotFound(f"there is no bank {name!r}; there are: {there}{others}")
        if banks[name].archived:
            raise BankArchived(f"bank {name!r} is archived and not asked: leave it out")
    current = {b.name: b for b in banks.values() if not b.archived}
    if names:
        allowed = (b.name for b in current.values() if b.kind is BankKind.ALLOWED)
        return [current[name] for name in dict.fromkeys((*names, *allowed))]
    return list(current.values())


def _within(access: BankAccess, banks: Mapping[str, Bank]) -> Mapping[str, Bank]:
    if access == EVERY_BANK:
        return banks
    return {name: bank for name, bank in banks.items() if name in access}


def _signals_used(banks: Iterable[Bank]) -> set[tuple[str, Modality | None]]:
    """The signals that any of the banks has a rule for; no others are computed."""
    wanted: set[tuple[str, Modality | None]] = set()
    for bank in banks:
        wanted |= {(rule.space, rule.query) for rule in bank.policy.cosine}
        wanted |= {(str(rule.signal), None) for rule in bank.policy.hamming}
        wanted |= {(str(rule.signal), None) for rule in bank.policy.digests}
    return wanted


# ---------------------------------------------------------------- results


def _answers(
    queries: Sequence[MatchQuery], view: View, banks: Sequence[Bank], options: MatchOptions
) -> list[MatchResult]:
    """Most contents have no hit; those with the same kinds of signals share one result."""
    alike: dict[tuple[object, ...], MatchResult] = {}
    answers = []
    for query in queries:
        if query.evidence or query.truncated:
            answers.append(_answer(query, view, banks, options))
            continue
        kind = _kind(query.print)
        if kind not in alike:
            alike[kind] = _answer(query, view, banks, options)
        answers.append(alike[kind])
    return answers


def _kind(fingerprint: ContentFingerprint) -> tuple[object, ...]:
    """All of a fingerprint but the values of its signals."""
    signals = fingerprint.fingerprint
    names = (*signals.digests, *signals.bits, *signals.vectors)
    return (fingerprint.reports, fingerprint.modality, *names)


def _answer(
    query: MatchQuery,
    view: View,
    banks: Sequence[Bank],
    options: MatchOptions,
) -> MatchResult:
    filtered = _filtered(query, view, banks)
    verdict = max((hit.band for hit in filtered.hits), default=Band.NONE)
    reports = (*_reports(query, banks), *_unsearchable(query, banks))
    return MatchResult(
        verdict=verdict,
        hits=filtered.hits[: options.hits_max],
        truncated=query.truncated or len(filtered.hits) > options.hits_max,
        complete=any(bank.kind is BankKind.BANNED for bank in banks)
        and _is_complete(query, reports, banks)
        and not _may_be_stronger(query, banks, verdict),
        signals=reports,
        snapshot=view.snapshot,
        seq=view.seq,
        shadow=filtered.shadow[: options.hits_max],
        suppressed=filtered.suppressed[: options.hits_max],
    )


def _stopped_answer(
    query: MatchQuery, view: View, banks: Sequence[Bank], options: MatchOptions
) -> MatchResult:
    """Only digests were searched: other signals would have found more hits, but none stronger."""
    return replace(
        _answer(query, view, banks, options),
        complete=False,
        signals=tuple(_reports(query, banks)),
        stopped_early=True,
    )


def _reports(query: MatchQuery, banks: Sequence[Bank]) -> Iterator[SignalReport]:
    """The signal reports; a signal that no searched bank has a rule for becomes NOT_ASKED."""
    names = _names_asked(query, banks)
    for report in query.print.reports:
        idle = report.state is SignalState.SEARCHED and report.signal not in names
        yield replace(report, state=SignalState.NOT_ASKED) if idle else report


def _names_asked(query: MatchQuery, banks: Iterable[Bank]) -> set[str]:
    """The signals that the banks have rules for, for such a content."""
    return {n for n, modality in _signals_used(banks) if modality in (None, query.print.modality)}


_LOOKED_AT = (SignalState.SEARCHED, SignalState.NOT_ASKED)


def _is_complete(query: MatchQuery, reports: Sequence[SignalReport], banks: Iterable[Bank]) -> bool:
    """Whether every signal that a searched bank has a rule for was searched, of all of the content;
    of a ready hash or vector, its one signal."""
    asked = _names_asked(query, banks)
    if any(r.state not in _LOOKED_AT for r in reports if r.signal in asked):
        return False
    unavailable = any(report.state is SignalState.UNAVAILABLE for report in reports)
    ready = query.print.modality is None or _is_single_space(query.print)
    searched = any(report.state is SignalState.SEARCHED for report in reports)
    return not unavailable and (searched or not ready)


def _may_be_stronger(query: MatchQuery, banks: Iterable[Bank], verdict: Band) -> bool:
    """Whether a truncated row could have been the second descriptor of a BLOCK."""
    paired = any(bank.policy.two_descriptors for bank in banks)
    return query.truncated and paired and verdict < Band.BLOCK


def _filtered(query: MatchQuery, view: View, banks: Sequence[Bank]) -> FilteredHits:
    """The hits that count, with the metadata of their entries."""
    hits = _decide(query, {bank.id: bank for bank in banks})
    if not hits:
        return NO_HITS
    entries = view.entries([hit.entry_key for hit in hits])
    by_name = {bank.name: bank for bank in banks}
    filtered = filter_hits(hits, by_name, entries, view.seq, query.content)
    return filtered.map_hits(lambda hit: _for_caller(hit, by_name[hit.bank]))


def _for_caller(hit: Hit, bank: Bank) -> Hit:
    return replace(hit, evidence=rules.best_per_signal(hit.evidence, bank.policy.two_descriptors))


def _decide(query: MatchQuery, banks: Mapping[int, Bank]) -> list[Hit]:
    """One hit for each entry with evidence, before states and allow-lists are considered."""
    hits = []
    for (bank_id, key), evidence in query.evidence.items():
        bank = banks[bank_id]
        band, capped = rules.decide(evidence, bank.policy.two_descriptors)
        found = rules.ordered(evidence)
        hits.append(Hit(bank.name, key, band, found, capped=capped, bank_etag=bank.etag))
    return hits


def _unsearchable(query: MatchQuery, banks: Sequence[Bank]) -> list[SignalReport]:
    """Reports of spaces that a searched bank's policy uses for this kind of content and that could
    not be searched: its thresholds were set for an encoder that this server no longer has.
    """
    if query.print.modality is None or _is_single_space(query.print):
        return []
    used: dict[str, str] = {}
    reported = {report.signal for report in query.print.reports}
    for bank in banks:
        for rule in rules.applicable_cosine_rules(bank.policy, query.print.modality):
            used.setdefault(rule.space, bank.name)
    return [
        SignalReport(
            space,
            SignalState.UNAVAILABLE,
            f"bank {name!r} has thresholds for this space and the server has no encoder for it",
        )
        for space, name in used.items()
        if space not in query.print.fingerprint.vectors and space not in reported
    ]


def _is_single_space(query: ContentFingerprint) -> bool:
    """Whether it is a ready vector, which is searched in its own space alone."""
    return not query.fingerprint.digests and not query.fingerprint.bits
