"""Evidence gathering: one search per signal for a whole batch, evidence collected by entry."""

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
    """An immutable state of the indexes and banks, at one position of the log."""

    @property
    def seq(self) -> int:
        """The log position that the view answers for."""

    @property
    def snapshot(self) -> str:
        """The id of the snapshot under it."""

    @property
    def banks(self) -> Mapping[str, Bank]:
        """All banks, by name."""

    def cosine(self, space: str) -> CosineView | None:
        """The rows of one space; None where no entry has any."""
        ...

    def hamming(self, signal: Signal) -> HammingView | None:
        """The rows of one binary signal; None where no entry has any."""

    def find_digests(self, digests: Sequence[tuple[Signal, bytes]]) -> list[list[tuple[int, int]]]:
        """For each digest, (entry key, bank id) of the entries that hold it, by key."""
        ...

    def entries(self, keys: Sequence[int]) -> Mapping[int, Entry]:
        """The entries of these keys; unknown keys are left out."""


@dataclass
class MatchQuery:
    """One content being matched, with its evidence so far by (bank id, entry key)."""

    print: ContentFingerprint
    content: Content
    evidence: dict[tuple[int, int], list[Evidence]] = field(default_factory=dict)
    truncated: bool = False

    def add(self, bank_id: int, key: int, evidence: Evidence | None) -> None:
        """Files evidence under its entry; None adds nothing."""
        if evidence is not None:
            self.evidence.setdefault((bank_id, key), []).append(evidence)


def gather_evidence(queries: Sequence[MatchQuery], view: View, banks: Sequence[Bank]) -> None:
    """Adds to each query its evidence from `banks`, with one search per signal for all queries."""
    _gather_digests(queries, view, banks)
    for signal in {r.signal for b in banks for r in b.policy.hamming}:
        _gather_bits(signal, queries, view, banks)
    for space, modality in {(r.space, r.query) for b in banks for r in b.policy.cosine}:
        _gather_vectors(space, modality, queries, view, banks)


def _gather_digests(queries: Sequence[MatchQuery], view: View, banks: Sequence[Bank]) -> None:
    by_signal: dict[Signal, dict[int, DigestRule]] = {}
    for bank in banks:
        for rule in bank.policy.digests:
            by_signal.setdefault(rule.signal, {})[bank.id] = rule
    found = _found_digests(queries, view, by_signal)
    for query in queries:
        for signal, values in query.print.fingerprint.digests.items():
            rule_by_bank = by_signal.get(signal, {})
            entries = {entry for value in values for entry in found.get((signal, value), ())}
            query.truncated |= len(entries) >= DIGEST_ENTRIES_MAX
            for key, bank_id in entries:
                if bank_id in rule_by_bank:
                    query.add(bank_id, key, rules.digest_evidence(rule_by_bank[bank_id]))


def _found_digests(
    queries: Sequence[MatchQuery], view: View, signals: Container[Signal]
) -> dict[tuple[Signal, bytes], list[tuple[int, int]]]:
    """The entries of all digests of the signals asked, looked up together and each once."""
    digests = {
        (signal, value): None
        for query in queries
        for signal, values in query.print.fingerprint.digests.items()
        if signal in signals
        for value in values
    }
    if not digests:
        return {}
    return dict(zip(digests, view.find_digests(list(digests)), strict=True))


def _gather_bits(
    signal: Signal, queries: Sequence[MatchQuery], view: View, banks: Sequence[Bank]
) -> None:
    by_bank = {b.id: r for b in banks for r in b.policy.hamming if r.signal == signal}
    eligible = [q for q in queries if signal in q.print.fingerprint.bits]
    index = view.hamming(signal)
    if index is None or not eligible:
        return
    rows = [q.print.fingerprint.bits[signal] for q in eligible]
    ceilings = {b: int(t) for b, r in by_bank.items() if (t := rules.loosest(r)) is not None}
    best = _BestMatches(eligible, rows, signal, closer=min)
    for matches, numbers in _searches(index.search, np.vstack(rows), ceilings):
        best.add(matches, matches.hamming, numbers)
    for query, bank_id, key, near in best.per_entry():
        part = query.print.part(near.part)
        found = rules.hamming_evidence(by_bank[bank_id], int(near.measure), near.rows, part)
        query.add(bank_id, key, found)


def _gather_vectors(
    space: str,
    modality: Modality,
    queries: Sequence[MatchQuery],
    view: View,
    banks: Sequence[Bank],
) -> None:
    by_bank = {
        b.id: r for b in banks for r in b.policy.cosine if (r.space, r.query) == (space, modality)
    }
    eligible = [
        q for q in queries if q.print.modality is modality and space in q.print.fingerprint.vectors
    ]
    index = view.cosine(space)
    if index is None or not eligible:
        return
    rows = [q.print.fingerprint.vectors[space] for q in eligible]
    floors = {b: t for b, r in by_bank.items() if (t := rules.loosest(r)) is not None}
    best = _BestMatches(eligible, rows, space, closer=max)
    for matches, numbers in _searches(index.search, np.vstack(rows), floors):
        best.add(matches, matches.cosine, numbers)
    for query, bank_id, key, near in best.per_entry():
        part = query.print.part(near.part)
        found = rules.cosine_evidence(by_bank[bank_id], near.measure, near.rows, part)
        query.add(bank_id, key, found)


def _searches(
    search: Callable[[Any, Mapping[int, Any]], M], rows: np.ndarray, limits: Mapping[int, float]
) -> Iterator[tuple[M, NDArray[np.intp]]]:
    """The matches of all rows, with the number of each query among `rows`.

    A search returns a bounded number of rows for one query. Where it was truncated, each bank is
    searched alone: else the many near rows of one bank would crowd out those of another.
    """
    found = search(rows, limits)
    yield found, np.arange(len(rows))
    cut = np.flatnonzero(found.truncated)
    if len(cut) and len(limits) > 1:
        for bank_id, limit in limits.items():
            yield search(rows[cut], {bank_id: limit}), cut


@dataclass(frozen=True)
class _Nearness:
    """How near an entry is to one part of a query, by its number: the best `measure`, and how many
    `rows` of the entry passed."""

    part: int
    measure: float
    rows: int


class _BestMatches:
    """Row matches collected by entry and by part of the query: a frame, or a region of one. A row
    of an entry counts once, however many rows of that part it matched."""

    def __init__(
        self,
        eligible: Sequence[MatchQuery],
        rows: Sequence[np.ndarray],
        signal: str,
        closer: Callable[[float, float], float],
    ) -> None:
        self._queries = eligible
        lengths = [len(r) for r in rows]
        self._owner = np.repeat(np.arange(len(rows)), lengths)
        shown = (query.print.part_of_row.get(signal) for query in eligible)
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
            self._queries[owner[query]].truncated = True
        of = found.query
        columns = (owner[of], found.group, found.key, part[of], found.row, measure)
        values = zip(*(column.tolist() for column in columns), strict=True)
        for who, group, key, shows, row, value in values:
            entry = (who, group, key, shows)
            self._best[entry] = self._closer(self._best.get(entry, value), value)
            self._passed.setdefault(entry, set()).add(row)

    def per_entry(self) -> Iterator[tuple[MatchQuery, int, int, _Nearness]]:
        """(query, bank id, entry key, nearness), one for each part that matched."""
        for entry, value in self._best.items():
            who, group, key, part = entry
            yield self._queries[who], group, key, _Nearness(part, value, len(self._passed[entry]))
