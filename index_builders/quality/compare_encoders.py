"""Encoder comparison on a bank's own entries: coverage of two spaces, and agreement of verdicts.

Needs no content: the entries' own vectors ask, each about all other entries, at their bank's
thresholds. Works on one consistent state, beside a running server, in chunks of bounded memory.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np

from simsearch.bank.store import BankStore
from simsearch.errors import BadRequest
from simsearch.index.flat.cosine import ExactIndex
from simsearch.match.agreement import Agreement
from simsearch.match.policy import cosine_evidence, loosest
from simsearch.types import Band, Bank, CosineRule, Fingerprint, Modality

ENTRIES_AT_ONCE = 4096
LACKING_NAMED = 20
QUERIES = 1_000

Chunk: TypeAlias = list[tuple[int, int, Fingerprint]]


@dataclass
class Coverage:
    """Active entries of one bank, by the spaces they have rows in."""

    entries: int = 0
    old: int = 0
    new: int = 0
    both: int = 0
    lacking: list[int] = field(default_factory=list)
    """Keys of the first entries with rows in the old space alone: dropping it loses them."""


@dataclass(frozen=True)
class Report:
    """Coverage and agreement by bank name; a bank without rules for both spaces has no verdicts
    that could agree. `queries` is the number of entries used as queries."""

    seq: int
    old: str
    new: str
    queries: int
    coverage: Mapping[str, Coverage]
    agreement: Mapping[str, Agreement]


@dataclass(frozen=True)
class _QueryBatch:
    """Query entries of one bank, and the best cosine of each with another entry so far."""

    bank: Bank
    entries: Sequence[tuple[int, Fingerprint]]
    best: Mapping[str, np.ndarray]


def compare_encoders(
    store: BankStore, old: str, new: str, queries_max: int = QUERIES, seed: int = 0
) -> Report:
    """Coverage and agreement of two spaces, from a sample of up to `queries_max` entries.

    Raises BadRequest where no active entry has a row in one of the two spaces.
    """
    with store.reading() as reading:
        banks = {bank.id: bank for bank in reading.banks()}
        coverage = {bank.id: Coverage() for bank in banks.values()}
        picked = _Reservoir(queries_max, random.Random(seed))
        for chunk in reading.active_chunks(ENTRIES_AT_ONCE):
            for key, bank_id, fingerprint in chunk:
                has = (old in fingerprint.vectors, new in fingerprint.vectors)
                _count(coverage[bank_id], key, *has)
                if all(has) and _rules(banks[bank_id], old, new):
                    picked.offer((key, bank_id, _only(fingerprint, old, new)))
        _require_rows(coverage, old, new)
        batches = _query_batches(picked.kept, banks, old, new)
        for chunk in reading.active_chunks(ENTRIES_AT_ONCE):
            for space in (old, new):
                _search(space, chunk, batches)
        return Report(
            reading.seq,
            old,
            new,
            len(picked.kept),
            {banks[bank_id].name: found for bank_id, found in coverage.items()},
            {each.bank.name: _agreement(each, old, new) for each in batches.values()},
        )


def report_as_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    said: dict[str, Any] = {name: getattr(report, name) for name in ("seq", "old", "new")}
    said["queries"] = report.queries
    said["coverage"] = {name: asdict(found) for name, found in report.coverage.items()}
    said["agreement"] = {
        name: _agreement_as_json(found) for name, found in report.agreement.items()
    }
    return said


def _agreement_as_json(agreement: Agreement) -> dict[str, Any]:
    low, high = agreement.interval()
    counts = ("judged", "agree", "only_old", "only_new", "other_band")
    table = {f"{old.name}→{new.name}": n for (old, new), n in sorted(agreement.table.items())}
    return {name: getattr(agreement, name) for name in counts} | {
        "share_low": round(low, 5),
        "share_high": round(high, 5),
        "old→new": table,
    }


# ---------------------------------------------------------------- coverage and query sample


def _count(coverage: Coverage, key: int, has_old: bool, has_new: bool) -> None:
    coverage.entries += 1
    coverage.old += has_old
    coverage.new += has_new
    coverage.both += has_old and has_new
    if has_old and not has_new and len(coverage.lacking) < LACKING_NAMED:
        coverage.lacking.append(key)


def _require_rows(coverage: Mapping[int, Coverage], old: str, new: str) -> None:
    """A misspelt space would look like one without coverage. Raises BadRequest."""
    counts = {
        old: sum(c.old for c in coverage.values()),
        new: sum(c.new for c in coverage.values()),
    }
    for space, count in counts.items():
        if count == 0:
            raise BadRequest(
                f"no active entry has a row in {space!r}: give the id of a space, as in "
                "`simsearch status` and `simsearch-build check`"
            )


class _Reservoir:
    """A uniform sample of what is offered, of at most `size` (Vitter's algorithm R)."""

    def __init__(self, size: int, random_source: random.Random) -> None:
        self.kept: list[tuple[int, int, Fingerprint]] = []
        self._size = size
        self._random = random_source
        self._offered = 0

    def offer(self, entry: tuple[int, int, Fingerprint]) -> None:
        self._offered += 1
        if len(self.kept) < self._size:
            self.kept.append(entry)
        elif (at := self._random.randrange(self._offered)) < self._size:
            self.kept[at] = entry


def _only(fingerprint: Fingerprint, *spaces: str) -> Fingerprint:
    return Fingerprint(vectors={space: fingerprint.vectors[space] for space in spaces})


def _query_batches(
    picked: Sequence[tuple[int, int, Fingerprint]], banks: Mapping[int, Bank], old: str, new: str
) -> dict[int, _QueryBatch]:
    by_bank: dict[int, list[tuple[int, Fingerprint]]] = {}
    for key, bank_id, fingerprint in picked:
        by_bank.setdefault(bank_id, []).append((key, fingerprint))
    return {
        bank_id: _QueryBatch(
            banks[bank_id], entries, {space: np.full(len(entries), -np.inf) for space in (old, new)}
        )
        for bank_id, entries in by_bank.items()
    }


# ---------------------------------------------------------------- searching


def _search(space: str, chunk: Chunk, batches: Mapping[int, _QueryBatch]) -> None:
    """Each bank's entries of this chunk, in an index of their own, asked by its queries."""
    for bank_id, each in batches.items():
        rows = [
            (key, f.vectors[space])
            for key, bank, f in chunk
            if bank == bank_id and space in f.vectors
        ]
        if rows:
            _search_bank(space, rows, each)


def _search_bank(space: str, rows: Sequence[tuple[int, np.ndarray]], each: _QueryBatch) -> None:
    vectors = np.vstack([r for _, r in rows])
    keys = np.repeat([key for key, _ in rows], [len(r) for _, r in rows])
    index = ExactIndex(vectors.shape[1], rows_max=len(vectors))
    index.append(vectors, keys, np.zeros(len(keys), np.int64))
    asked = [f.vectors[space] for _, f in each.entries]
    owner = np.repeat(np.arange(len(asked)), [len(r) for r in asked])
    own_key = np.array([key for key, _ in each.entries])
    floor = loosest(_rule(each.bank, space))
    assert floor is not None, "a rule without a threshold is refused when the policy is set"
    found = index.freeze(0).search(np.vstack(asked), {0: floor})
    who = owner[found.query]
    others = found.key != own_key[who]
    np.maximum.at(each.best[space], who[others], found.cosine[others])


def _agreement(each: _QueryBatch, old: str, new: str) -> Agreement:
    bands = [[_band(_rule(each.bank, s), best) for best in each.best[s]] for s in (old, new)]
    return Agreement.of(zip(*bands, strict=True))


def _band(rule: CosineRule, best: float) -> Band:
    evidence = cosine_evidence(rule, best, rows=1)
    return evidence.band if evidence else Band.NONE


def _rules(bank: Bank, *spaces: str) -> bool:
    ruled = {rule.space for rule in bank.policy.cosine}
    return ruled.issuperset(spaces)


def _rule(bank: Bank, space: str) -> CosineRule:
    """For queries of the kind that the space holds: images, wherever images can ask at all."""
    rules = {rule.query: rule for rule in bank.policy.cosine if rule.space == space}
    return rules.get(Modality.IMAGE) or rules[Modality.TEXT]
