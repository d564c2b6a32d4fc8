"""The matcher: contents in, results out, every hit decided by an exact measure.

contents → signals → one view, taken once → digests, bits and vectors asked at each bank's
loosest threshold → evidence per entry → policy per bank → hits and a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

import numpy as np

from simsearch.encode.fingerprint import Fingerprinter, Print
from simsearch.errors import BankNotFound, LimitExceeded, SimsearchError
from simsearch.index.protocol import CosineMatches, CosineView, HammingMatches, HammingView
from simsearch.match import policy as rules
from simsearch.telemetry import StageClock
from simsearch.types import (
    Band,
    Bank,
    Content,
    CosineRule,
    DigestRule,
    Entry,
    Evidence,
    HammingRule,
    Hit,
    MatchOptions,
    MatchResult,
    Modality,
    Signal,
    SignalReport,
    SignalState,
)


class View(Protocol):
    """What one search runs against: immutable, at one position of the log."""

    @property
    def seq(self) -> int: ...

    @property
    def snapshot(self) -> str: ...

    @property
    def banks(self) -> Mapping[str, Bank]: ...

    def cosine(self, space: str) -> CosineView | None:
        """The rows of one space; None where no entry has any."""
        ...

    def hamming(self, signal: Signal) -> HammingView | None: ...

    def find_digest(self, signal: Signal, digest: bytes) -> list[tuple[int, int]]:
        """(entry key, bank id) of the entries that hold this digest, by key."""
        ...

    def entries(self, keys: Sequence[int]) -> Mapping[int, Entry]: ...


class ViewSource(Protocol):
    @property
    def view(self) -> View: ...


Outcome: TypeAlias = MatchResult | SimsearchError


@dataclass
class _Question:
    """One content on its way to a result: evidence gathers by (bank id, entry key)."""

    print: Print
    evidence: dict[tuple[int, int], list[Evidence]] = field(default_factory=dict)
    truncated: bool = False

    def add(self, bank_id: int, key: int, evidence: Evidence | None) -> None:
        if evidence is not None:
            self.evidence.setdefault((bank_id, key), []).append(evidence)


class Matcher:
    """Answers batches; safe to call from any number of threads."""

    def __init__(self, fingerprinter: Fingerprinter, views: ViewSource, hits_max: int) -> None:
        self._fingerprinter = fingerprinter
        self._views = views
        self._hits_max = hits_max

    def match(self, contents: Sequence[Content], options: MatchOptions) -> list[Outcome]:
        """One result or refusal per content, in order.

        Raises BankNotFound and LimitExceeded, which concern the whole call.
        """
        if not 1 <= options.hits_max <= self._hits_max:
            raise LimitExceeded(f"hits_max is {options.hits_max}: ask for 1 to {self._hits_max}")
        clock = StageClock()
        banks = _asked_banks(self._views.view.banks, options.banks)
        wanted = _wanted(banks)
        with clock.stage("encode"):
            prints = self._fingerprinter.query(contents, wanted)
        view = self._views.view
        banks = _asked_banks(view.banks, options.banks)
        if not _wanted(banks) <= wanted:  # a policy was given a rule meanwhile
            with clock.stage("encode"):
                prints = self._fingerprinter.query(contents, _wanted(banks))
        questions = [_Question(p) for p in prints if isinstance(p, Print)]
        with clock.stage("search"):
            _ask(questions, view, banks)
        with clock.stage("decide"):
            results = [_answer(q, view, banks, options) for q in questions]
        if options.with_stage_times:
            results = [replace(result, stage_ms=dict(clock.ms)) for result in results]
        answers = iter(results)
        return [next(answers) if isinstance(p, Print) else p for p in prints]


def _asked_banks(banks: Mapping[str, Bank], names: Sequence[str]) -> list[Bank]:
    for name in names:
        if name not in banks:
            known = ", ".join(sorted(banks)) or "none yet"
            raise BankNotFound(f"there is no bank {name!r}; there are: {known}")
    return [banks[name] for name in (dict.fromkeys(names) if names else banks)]


def _wanted(banks: Iterable[Bank]) -> set[tuple[str, Modality | None]]:
    """The signals that some asked bank has a rule for: nothing else is worth computing."""
    wanted: set[tuple[str, Modality | None]] = set()
    for bank in banks:
        wanted |= {(rule.space, rule.query) for rule in bank.policy.cosine}
        wanted |= {(str(rule.signal), None) for rule in bank.policy.hamming}
        wanted |= {(str(rule.signal), None) for rule in bank.policy.digests}
    return wanted


# ---------------------------------------------------------------- asking


def _ask(questions: Sequence[_Question], view: View, banks: Sequence[Bank]) -> None:
    """Put every question to the view, signal by signal, all questions in one search."""
    _ask_digests(questions, view, banks)
    for signal in {r.signal for b in banks for r in b.policy.hamming}:
        _ask_bits(signal, questions, view, banks)
    for space, modality in {(r.space, r.query) for b in banks for r in b.policy.cosine}:
        _ask_vectors(space, modality, questions, view, banks)


def _ask_digests(questions: Sequence[_Question], view: View, banks: Sequence[Bank]) -> None:
    by_signal: dict[Signal, dict[int, DigestRule]] = {}
    for bank in banks:
        for rule in bank.policy.digests:
            by_signal.setdefault(rule.signal, {})[bank.id] = rule
    for question in questions:
        for signal, values in question.print.fingerprint.digests.items():
            for key, bank_id in _find_digests(view, signal, values):
                if (found := by_signal.get(signal, {}).get(bank_id)) is not None:
                    question.add(bank_id, key, rules.digest_evidence(found))


def _find_digests(view: View, signal: Signal, values: Iterable[bytes]) -> set[tuple[int, int]]:
    return {found for value in values for found in view.find_digest(signal, value)}


def _ask_bits(
    signal: Signal, questions: Sequence[_Question], view: View, banks: Sequence[Bank]
) -> None:
    by_bank = {b.id: r for b in banks for r in b.policy.hamming if r.signal == signal}
    asking = [q for q in questions if signal in q.print.fingerprint.bits]
    index = view.hamming(signal)
    if index is None or not asking:
        return
    rows = [q.print.fingerprint.bits[signal] for q in asking]
    ceilings = {
        bank_id: int(t) for bank_id, r in by_bank.items() if (t := rules.loosest(r)) is not None
    }
    found = index.search(np.vstack(rows), ceilings)
    for question, bank_id, key, best, count in _per_entry(
        found, found.hamming, rows, asking, np.minimum
    ):
        question.add(bank_id, key, rules.hamming_evidence(by_bank[bank_id], int(best), count))


def _ask_vectors(
    space: str,
    modality: Modality,
    questions: Sequence[_Question],
    view: View,
    banks: Sequence[Bank],
) -> None:
    by_bank = {
        b.id: r for b in banks for r in b.policy.cosine if (r.space, r.query) == (space, modality)
    }
    asking = [
        q
        for q in questions
        if q.print.modality is modality and space in q.print.fingerprint.vectors
    ]
    index = view.cosine(space)
    if index is None or not asking:
        return
    rows = [q.print.fingerprint.vectors[space] for q in asking]
    floors = {bank_id: t for bank_id, r in by_bank.items() if (t := rules.loosest(r)) is not None}
    found = index.search(np.vstack(rows), floors)
    for question, bank_id, key, best, count in _per_entry(
        found, found.cosine, rows, asking, np.maximum
    ):
        question.add(bank_id, key, rules.cosine_evidence(by_bank[bank_id], float(best), count))


def _per_entry(
    found: CosineMatches | HammingMatches,
    measure: np.ndarray,
    rows: Sequence[np.ndarray],
    asking: Sequence[_Question],
    closer: np.ufunc,
) -> Iterable[tuple[_Question, int, int, float, int]]:
    """Row matches as (question, bank id, entry key, best measure, rows that passed).

    A question may have asked with several rows; its entry's row counts once however many of
    them it passed.
    """
    owner = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    for query in np.flatnonzero(found.truncated):
        asking[owner[query]].truncated = True
    best: dict[tuple[int, int, int], float] = {}
    passed: dict[tuple[int, int, int], set[int]] = {}
    for query, row, key, group, value in zip(
        found.query.tolist(),
        found.row.tolist(),
        found.key.tolist(),
        found.group.tolist(),
        measure.tolist(),
        strict=True,
    ):
        entry = (int(owner[query]), group, key)
        best[entry] = closer(best.get(entry, value), value)
        passed.setdefault(entry, set()).add(row)
    for (who, group, key), value in best.items():
        yield asking[who], group, key, value, len(passed[who, group, key])


# ---------------------------------------------------------------- answering


def _answer(
    question: _Question,
    view: View,
    banks: Sequence[Bank],
    options: MatchOptions,
) -> MatchResult:
    decided = _decide(question, {b.id: b for b in banks})
    kept = decided[: options.hits_max]
    reports = (*question.print.reports, *_unsearchable(question, banks))
    return MatchResult(
        verdict=max((hit.band for hit in decided), default=Band.NONE),
        hits=_with_cards(kept, view),
        truncated=question.truncated or len(decided) > len(kept),
        complete=all(r.state is not SignalState.UNAVAILABLE for r in reports),
        signals=reports,
        snapshot=view.snapshot,
        seq=view.seq,
    )


def _decide(question: _Question, banks: Mapping[int, Bank]) -> list[Hit]:
    """Every entry hit, strongest first, ties by key."""
    hits = []
    for (bank_id, key), evidence in question.evidence.items():
        bank = banks[bank_id]
        band, capped = rules.decide(evidence, bank.policy.two_descriptors)
        hits.append(Hit(bank.name, key, band, rules.ordered(evidence), capped=capped))
    return sorted(hits, key=_rank)


def _rank(hit: Hit) -> tuple[object, ...]:
    """By band, then by the strongest evidence, then by key."""
    return (-hit.band, *rules.strength(hit.evidence[0])[1:3], hit.entry_key)


def _with_cards(hits: Sequence[Hit], view: View) -> tuple[Hit, ...]:
    """The hits with what the bank knows about their entries."""
    if not hits:
        return ()
    entries = view.entries([hit.entry_key for hit in hits])
    return tuple(_with_card(hit, entries.get(hit.entry_key)) for hit in hits)


def _with_card(hit: Hit, entry: Entry | None) -> Hit:
    if entry is None:
        return hit
    return Hit(
        hit.bank,
        hit.entry_key,
        hit.band,
        hit.evidence,
        labels=entry.labels,
        source=entry.source,
        source_id=entry.source_id,
        capped=hit.capped,
    )


def _unsearchable(question: _Question, banks: Sequence[Bank]) -> list[SignalReport]:
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


def _is_single_space(question: Print) -> bool:
    """A ready vector asks in its own space and nowhere else."""
    return not question.fingerprint.digests and not question.fingerprint.bits


__all__ = ["CosineRule", "HammingRule", "Matcher", "Outcome", "View", "ViewSource"]
