"""Put questions to a view: every signal in one search, evidence by entry."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.fingerprint import ContentFingerprint
from simsearch.index.index_protocol import CosineMatches, CosineView, HammingMatches, HammingView
from simsearch.match import policy as rules
from simsearch.types import (
    DIGEST_ENTRIES_MAX,
    Bank,
    Content,
    DigestRule,
    Entry,
    Evidence,
    Modality,
    Signal,
)

M = TypeVar("M", CosineMatches, HammingMatches)


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

    def find_digests(self, digests: Sequence[tuple[Signal, bytes]]) -> list[list[tuple[int, int]]]:
        """For each digest, (entry key, bank id) of the entries that hold it, by key."""
        ...

    def entries(self, keys: Sequence[int]) -> Mapping[int, Entry]: ...


@dataclass
class Question:
    """One content on its way to a result: evidence gathers by (bank id, entry key)."""

    print: ContentFingerprint
    content: Content
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
    found = _found_digests(questions, view, by_signal)
    for question in questions:
        for signal, values in question.print.fingerprint.digests.items():
            asked = by_signal.get(signal, {})
            entries = {entry for value in values for entry in found.get((signal, value), ())}
            question.truncated |= len(entries) >= DIGEST_ENTRIES_MAX
            for key, bank_id in entries:
                if bank_id in asked:
                    question.add(bank_id, key, rules.digest_evidence(asked[bank_id]))


def _found_digests(
    questions: Sequence[Question], view: View, asked: Container[Signal]
) -> dict[tuple[Signal, bytes], list[tuple[int, int]]]:
    """The entries of all digests of the signals asked, looked up together and each once."""
    digests = {
        (signal, value): None
        for question in questions
        for signal, values in question.print.fingerprint.digests.items()
        if signal in asked
        for value in values
    }
    if not digests:
        return {}
    return dict(zip(digests, view.find_digests(list(digests)), strict=True))


def _ask_bits(
    signal: Signal, questions: Sequence[Question], view: View, banks: Sequence[Bank]
) -> None:
    by_bank = {b.id: r for b in banks for r in b.policy.hamming if r.signal == signal}
    asking = [q for q in questions if signal in q.print.fingerprint.bits]
    index = view.hamming(signal)
    if index is None or not asking:
        return
    rows = [q.print.fingerprint.bits[signal] for q in asking]
    ceilings = {b: int(t) for b, r in by_bank.items() if (t := rules.loosest(r)) is not None}
    best = _Best(asking, rows, signal, closer=min)
    for matches, numbers in _searches(index.search, np.vstack(rows), ceilings):
        best.add(matches, matches.hamming, numbers)
    for question, bank_id, key, near in best.per_entry():
        region = question.print.region(near.part)
        found = rules.hamming_evidence(by_bank[bank_id], int(near.measure), near.rows, region)
        question.add(bank_id, key, found)


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
    floors = {b: t for b, r in by_bank.items() if (t := rules.loosest(r)) is not None}
    best = _Best(asking, rows, space, closer=max)
    for matches, numbers in _searches(index.search, np.vstack(rows), floors):
        best.add(matches, matches.cosine, numbers)
    for question, bank_id, key, near in best.per_entry():
        region = question.print.region(near.part)
        found = rules.cosine_evidence(by_bank[bank_id], near.measure, near.rows, region)
        question.add(bank_id, key, found)


def _searches(
    search: Callable[[Any, Mapping[int, Any]], M], rows: np.ndarray, limits: Mapping[int, float]
) -> Iterator[tuple[M, NDArray[np.intp]]]:
    """The matches of all rows, with the number of each query among `rows`.

    A search returns a bounded number of rows for one query. Where there were more, every bank is
    asked alone: else the many near rows of one bank would hide a nearer threshold of another.
    """
    found = search(rows, limits)
    yield found, np.arange(len(rows))
    cut = np.flatnonzero(found.truncated)
    if len(cut) and len(limits) > 1:
        for bank_id, limit in limits.items():
            yield search(rows[cut], {bank_id: limit}), cut


@dataclass(frozen=True)
class _Near:
    """How near an entry is to one part of a question, the whole (0) or the n-th region: the best
    `measure`, and how many `rows` of the entry passed."""

    part: int
    measure: float
    rows: int


class _Best:
    """Row matches gathered by entry and by what the question's rows show: the whole, or one of the
    regions. An entry's row counts once however many of those rows it passed."""

    def __init__(
        self,
        asking: Sequence[Question],
        rows: Sequence[np.ndarray],
        signal: str,
        closer: Callable[[float, float], float],
    ) -> None:
        self._asking = asking
        lengths = [len(r) for r in rows]
        self._owner = np.repeat(np.arange(len(rows)), lengths)
        shown = (question.print.region_of_row.get(signal) for question in asking)
        parts = [
            np.zeros(n, np.uint8) if s is None else s for n, s in zip(lengths, shown, strict=True)
        ]
        self._part = np.concatenate(parts)
        self._closer = closer
        self._best: dict[tuple[int, int, int, int], float] = {}
        self._passed: dict[tuple[int, int, int, int], set[int]] = {}

    def add(
        self,
        found: CosineMatches | HammingMatches,
        measure: NDArray[Any],
        numbers: NDArray[np.intp],
    ) -> None:
        owner, part = self._owner[numbers], self._part[numbers]
        for query in np.flatnonzero(found.truncated):
            self._asking[owner[query]].truncated = True
        of = found.query
        columns = (owner[of], found.group, found.key, part[of], found.row, measure)
        values = zip(*(column.tolist() for column in columns), strict=True)
        for who, group, key, shows, row, value in values:
            entry = (who, group, key, shows)
            self._best[entry] = self._closer(self._best.get(entry, value), value)
            self._passed.setdefault(entry, set()).add(row)

    def per_entry(self) -> Iterator[tuple[Question, int, int, _Near]]:
        """(question, bank id, entry key, how near), for each part that is near."""
        for entry, value in self._best.items():
            who, group, key, part = entry
            yield self._asking[who], group, key, _Near(part, value, len(self._passed[entry]))
