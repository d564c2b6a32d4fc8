"""Put questions to a view: every signal in one search, evidence by entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from simsearch.encode.fingerprint import Print
from simsearch.index.protocol import CosineMatches, CosineView, HammingMatches, HammingView
from simsearch.match import policy as rules
from simsearch.types import (
    Bank,
    DigestRule,
    Entry,
    Evidence,
    Modality,
    Signal,
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


@dataclass
class Question:
    """One content on its way to a result: evidence gathers by (bank id, entry key)."""

    print: Print
    evidence: dict[tuple[int, int], list[Evidence]] = field(default_factory=dict)
    truncated: bool = False

    def add(self, bank_id: int, key: int, evidence: Evidence | None) -> None:
        if evidence is not None:
            self.evidence.setdefault((bank_id, key), []).append(evidence)


def ask(questions: Sequence[Question], view: View, banks: Sequence[Bank]) -> None:
    """Put every question to the view, signal by signal, all questions in one search."""
    _ask_digests(questions, view, banks)
    for signal in {r.signal for b in banks for r in b.policy.hamming}:
        _ask_bits(signal, questions, view, banks)
    for space, modality in {(r.space, r.query) for b in banks for r in b.policy.cosine}:
        _ask_vectors(space, modality, questions, view, banks)


def _ask_digests(questions: Sequence[Question], view: View, banks: Sequence[Bank]) -> None:
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
    signal: Signal, questions: Sequence[Question], view: View, banks: Sequence[Bank]
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
    questions: Sequence[Question],
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
    asking: Sequence[Question],
    closer: np.ufunc,
) -> Iterable[tuple[Question, int, int, float, int]]:
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
