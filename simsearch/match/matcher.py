"""The matcher: contents in, results out, every hit decided by an exact measure.

contents → signals → one view, taken once → digests, bits and vectors asked at each bank's
loosest threshold → evidence per entry → policy per bank → hits and a verdict. Who asks to stop at
a block has digests asked before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import BoundedSemaphore
from typing import Protocol, TypeAlias

from simsearch.encode.fingerprint import ContentFingerprint, ContentLimits, Wanted, digests_alone
from simsearch.encode.fingerprint import Outcome as PrintOutcome
from simsearch.errors import BankArchived, BankNotFound, LimitExceeded, SimsearchError
from simsearch.match import policy as rules
from simsearch.match.evidence import Question, View, ask
from simsearch.match.suppression import NOTHING, Counted, count
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

BANKS_NAMED = 10
"""How many of the banks there are a refusal lists."""


class ViewSource(Protocol):
    @property
    def view(self) -> View: ...


class Prints(Protocol):
    """What contents are asked with: a Fingerprinter, or one that remembers."""

    @property
    def limits(self) -> ContentLimits: ...

    def query(
        self, contents: Sequence[Content], wanted: Wanted, call: CallContext = NO_CALL
    ) -> list[PrintOutcome]: ...


Outcome: TypeAlias = MatchResult | SimsearchError


class Matcher:
    """Answers batches; safe to call from any number of threads."""

    def __init__(
        self, fingerprints: Prints, views: ViewSource, hits_max: int, searches_max: int = 2
    ) -> None:
        """`searches_max`: how many threads search at a time, while others encode or wait."""
        self._prints = fingerprints
        self._views = views
        self._hits_max = hits_max
        self._may_search = BoundedSemaphore(searches_max)

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        """One result or refusal per content, in order.

        Raises BankNotFound and LimitExceeded, which concern the whole call, and where encoders
        let it wait Overloaded, DeadlinePassed and NotReady.
        """
        if not 1 <= options.hits_max <= self._hits_max:
            raise LimitExceeded(f"hits_max is {options.hits_max}: ask for 1 to {self._hits_max}")
        clock = StageClock()
        stopped = self._stopped(contents, options, clock) if options.stop_at_block else {}
        rest = [content for i, content in enumerate(contents) if i not in stopped]
        answers = iter(self._answered(rest, options, clock, call))
        outcomes = [stopped[i] if i in stopped else next(answers) for i in range(len(contents))]
        return [_timed(o, clock) for o in outcomes] if options.with_stage_times else outcomes

    def _stopped(
        self, contents: Sequence[Content], options: MatchOptions, clock: StageClock
    ) -> dict[int, MatchResult]:
        """The contents, by position, that are blocked by a digest alone."""
        view = self._views.view
        banks = asked_banks(view.banks, options)
        with clock.stage("digests"):
            alone = [(i, digests_alone(c, self._prints.limits)) for i, c in enumerate(contents)]
            questions = {i: Question(p, contents[i]) for i, p in alone if p is not None}
            ask(list(questions.values()), view, banks)
            results = {i: _stopped_answer(q, view, banks, options) for i, q in questions.items()}
        return {i: result for i, result in results.items() if result.verdict is Band.BLOCK}

    def _answered(
        self,
        contents: Sequence[Content],
        options: MatchOptions,
        clock: StageClock,
        call: CallContext,
    ) -> list[Outcome]:
        banks = asked_banks(self._views.view.banks, options)
        wanted = _wanted(banks)
        with clock.stage("encode"):
            fingerprints = self._prints.query(contents, wanted, call)
        view = self._views.view
        banks = asked_banks(view.banks, options)
        if not _wanted(banks) <= wanted:  # a policy was given a rule meanwhile
            with clock.stage("encode"):
                fingerprints = self._prints.query(contents, _wanted(banks), call)
        questions = [
            Question(p, content)
            for p, content in zip(fingerprints, contents, strict=True)
            if isinstance(p, ContentFingerprint)
        ]
        with clock.stage("search"), self._may_search:
            ask(questions, view, banks)
        with clock.stage("decide"):
            answers = iter(_answers(questions, view, banks, options))
        return [next(answers) if isinstance(p, ContentFingerprint) else p for p in fingerprints]


def _timed(outcome: Outcome, clock: StageClock) -> Outcome:
    if isinstance(outcome, MatchResult):
        return replace(outcome, stage_ms=dict(clock.ms))
    return outcome


def asked_banks(existing: Mapping[str, Bank], options: MatchOptions) -> list[Bank]:
    """The banks that the options name and give access to, each once, and the allow-listed ones,
    which have a say in every answer. Raises BankNotFound, BankArchived."""
    banks, names = _within(options.access, existing), options.banks
    for name in names:
        if name not in banks:
            known = sorted(banks)
            others = f" and {len(known) - BANKS_NAMED} more" if len(known) > BANKS_NAMED else ""
            there = ", ".join(known[:BANKS_NAMED]) or "none yet"
            raise BankNotFound(f"there is no bank {name!r}; there are: {there}{others}")
        if banks[name].archived:
            raise BankArchived(f"bank {name!r} is archived and not asked: leave it out")
    asked = {b.name: b for b in banks.values() if not b.archived}
    if names:
        allowed = (b.name for b in asked.values() if b.kind is BankKind.ALLOWED)
        return [asked[name] for name in dict.fromkeys((*names, *allowed))]
    return list(asked.values())


def _within(access: BankAccess, banks: Mapping[str, Bank]) -> Mapping[str, Bank]:
    if access == EVERY_BANK:
        return banks
    return {name: bank for name, bank in banks.items() if name in access}


def _wanted(banks: Iterable[Bank]) -> set[tuple[str, Modality | None]]:
    """The signals that some asked bank has a rule for: nothing else is worth computing."""
    wanted: set[tuple[str, Modality | None]] = set()
    for bank in banks:
        wanted |= {(rule.space, rule.query) for rule in bank.policy.cosine}
        wanted |= {(str(rule.signal), None) for rule in bank.policy.hamming}
        wanted |= {(str(rule.signal), None) for rule in bank.policy.digests}
    return wanted


# ---------------------------------------------------------------- answering


def _answers(
    questions: Sequence[Question], view: View, banks: Sequence[Bank], options: MatchOptions
) -> list[MatchResult]:
    """Those without a hit, as most are, share one answer where they are alike."""
    alike: dict[tuple[object, ...], MatchResult] = {}
    answers = []
    for question in questions:
        if question.evidence or question.truncated:
            answers.append(_answer(question, view, banks, options))
            continue
        kind = _kind(question.print)
        if kind not in alike:
            alike[kind] = _answer(question, view, banks, options)
        answers.append(alike[kind])
    return answers


def _kind(asked: ContentFingerprint) -> tuple[object, ...]:
    """All of a print but the values of its signals."""
    signals = asked.fingerprint
    return (asked.reports, asked.modality, *signals.digests, *signals.bits, *signals.vectors)


def _answer(
    question: Question,
    view: View,
    banks: Sequence[Bank],
    options: MatchOptions,
) -> MatchResult:
    counted = _counted(question, view, banks)
    verdict = max((hit.band for hit in counted.hits), default=Band.NONE)
    reports = (*_asked_for(question, banks), *_unsearchable(question, banks))
    return MatchResult(
        verdict=verdict,
        hits=counted.hits[: options.hits_max],
        truncated=question.truncated or len(counted.hits) > options.hits_max,
        complete=any(bank.kind is BankKind.BANNED for bank in banks)
        and _is_complete(question, reports)
        and not _may_be_stronger(question, banks, verdict),
        signals=reports,
        snapshot=view.snapshot,
        seq=view.seq,
        shadow=counted.shadow[: options.hits_max],
        suppressed=counted.suppressed[: options.hits_max],
    )


def _stopped_answer(
    question: Question, view: View, banks: Sequence[Bank], options: MatchOptions
) -> MatchResult:
    """Nothing but digests was asked: another signal would have found more hits, none stronger."""
    return replace(
        _answer(question, view, banks, options),
        complete=False,
        signals=tuple(_asked_for(question, banks)),
        stopped_early=True,
    )


def _asked_for(question: Question, banks: Sequence[Bank]) -> Iterator[SignalReport]:
    """The reports of the print; what no asked bank has a rule for was computed and not searched."""
    names = {n for n, modality in _wanted(banks) if modality in (None, question.print.modality)}
    for report in question.print.reports:
        idle = report.state is SignalState.SEARCHED and report.signal not in names
        yield replace(report, state=SignalState.NOT_ASKED) if idle else report


def _is_complete(question: Question, reports: Iterable[SignalReport]) -> bool:
    """Nothing that a bank relies on was left out; and of a ready hash or vector, which is one
    signal and no more, that one was searched."""
    states = {report.state for report in reports}
    ready = question.print.modality is None or _is_single_space(question.print)
    return SignalState.UNAVAILABLE not in states and (not ready or SignalState.SEARCHED in states)


def _may_be_stronger(question: Question, banks: Iterable[Bank], verdict: Band) -> bool:
    """A row that was cut could have been the second descriptor of a BLOCK."""
    paired = any(bank.policy.two_descriptors for bank in banks)
    return question.truncated and paired and verdict < Band.BLOCK


def _counted(question: Question, view: View, banks: Sequence[Bank]) -> Counted:
    """With what the bank knows about the entries that were hit."""
    hits = _decide(question, {bank.id: bank for bank in banks})
    if not hits:
        return NOTHING
    entries = view.entries([hit.entry_key for hit in hits])
    by_name = {bank.name: bank for bank in banks}
    counted = count(hits, by_name, entries, view.seq, question.content)
    return counted.told(lambda hit: _told(hit, by_name[hit.bank]))


def _told(hit: Hit, bank: Bank) -> Hit:
    return replace(hit, evidence=rules.told(hit.evidence, bank.policy.two_descriptors))


def _decide(question: Question, banks: Mapping[int, Bank]) -> list[Hit]:
    """Every entry hit, by its evidence alone."""
    hits = []
    for (bank_id, key), evidence in question.evidence.items():
        bank = banks[bank_id]
        band, capped = rules.decide(evidence, bank.policy.two_descriptors)
        found = rules.ordered(evidence)
        hits.append(Hit(bank.name, key, band, found, capped=capped, bank_etag=bank.etag))
    return hits


def _unsearchable(question: Question, banks: Sequence[Bank]) -> list[SignalReport]:
    """Spaces that an asked bank's policy uses for this kind of content and nobody could search.

    Happens when a bank's thresholds were set for an encoder that this server no longer has.
    """
    if question.print.modality is None or _is_single_space(question.print):
        return []
    asked: dict[str, str] = {}
    for bank in banks:
        for rule in rules.rules_asked(bank.policy, question.print.modality):
            asked.setdefault(rule.space, bank.name)
    return [
        SignalReport(
            space,
            SignalState.UNAVAILABLE,
            f"bank {name!r} has thresholds for this space and the server has no encoder for it",
        )
        for space, name in asked.items()
        if space not in question.print.fingerprint.vectors
    ]


def _is_single_space(question: ContentFingerprint) -> bool:
    """A ready vector asks in its own space and nowhere else."""
    return not question.fingerprint.digests and not question.fingerprint.bits
