"""Coverage and agreement of two spaces, held against every pair worked out by itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from index_builders.quality import compare_encoders as module
from index_builders.quality.compare_encoders import Report, compare_encoders, report_as_json
from simsearch.bank.store import BankStore
from simsearch.errors import BadRequest
from simsearch.match.agreement import Agreement
from simsearch.types import Band, CosineRule, EntryDraft, Fingerprint, Modality, Vectors
from tests.flows.world import EDIT, POLICY, SPACE, WIDE

RULES = (
    CosineRule(SPACE.id, Modality.TEXT, block=0.95, review=0.8, log=0.6),
    CosineRule(WIDE.id, Modality.TEXT, review=0.5, log=0.3),
)
BANKS = ("alpha", "beta", "bare")
ENTRIES = 60


def unit(rng: np.random.Generator, rows: int, dim: int) -> Vectors:
    rows_ = rng.standard_normal((rows, dim)) + 0.8
    return np.asarray(rows_ / np.linalg.norm(rows_, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three banks, one without a rule for the new space; entries in either space or both."""
    path = tmp_path_factory.mktemp("agree") / "bank"
    rng = np.random.default_rng(5)
    with BankStore.open(path, writer=True) as store:
        for bank in BANKS:
            rules = RULES[:1] if bank == "bare" else RULES
            store.create_bank(bank, "", replace(POLICY, cosine=rules), EDIT)
        for number in range(ENTRIES):
            both = {SPACE.id: unit(rng, 1 + number % 2, 4), WIDE.id: unit(rng, 1 + number % 3, 32)}
            kept = {s: v for n, (s, v) in enumerate(both.items()) if number % 5 != n}
            draft = EntryDraft(Fingerprint(vectors=kept))
            store.add_entries(BANKS[number % 3], [draft], EDIT)
        store.retract_entry("alpha", 1, EDIT)
    return path


def band(rule: CosineRule, cosine: float) -> Band:
    for name in (Band.BLOCK, Band.REVIEW, Band.LOG):
        floor = {Band.BLOCK: rule.block, Band.REVIEW: rule.review, Band.LOG: rule.log}[name]
        if floor is not None and cosine >= floor:
            return name
    return Band.NONE


def by_hand(store: BankStore, bank_id: int) -> Agreement:
    with store.reading() as reading:
        entries = [(k, f) for k, b, f in reading.active_entries() if b == bank_id]

    def best(key: int, print_: Fingerprint, space: str) -> float:
        pairs = (
            product(print_.vectors[space].astype(np.float64), f.vectors[space].astype(np.float64))
            for k, f in entries
            if k != key and space in f.vectors
        )
        cosines = (a @ b / np.linalg.norm(a) / np.linalg.norm(b) for p in pairs for a, b in p)
        return float(max(cosines))

    return Agreement.of(
        (band(RULES[0], best(k, f, SPACE.id)), band(RULES[1], best(k, f, WIDE.id)))
        for k, f in entries
        if len(f.vectors) == 2
    )


def asked(path: Path, queries: int = 1_000) -> Report:
    with BankStore.open(path, writer=False) as store:
        return compare_encoders(store, SPACE.id, WIDE.id, queries)


@pytest.mark.parametrize("at_once", [7, 4096])
def test_verdicts_agree_as_every_pair_says(
    path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Whatever the chunks; an entry never finds itself, nor another bank's."""
    monkeypatch.setattr(module, "ENTRIES_AT_ONCE", at_once)
    report = asked(path)
    with BankStore.open(path, writer=False) as store:
        expected = {bank.name: by_hand(store, bank.id) for bank in store.banks()[:2]}
    assert {n: dict(a.table) for n, a in report.agreement.items()} == {
        n: dict(a.table) for n, a in expected.items()
    }
    assert all(len(a.table) > 2 for a in expected.values()), "a world without disagreement"


def test_coverage_names_the_entries_that_would_be_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Active ones alone, up to a number of them."""
    monkeypatch.setattr(module, "LACKING_NAMED", 3)
    found = asked(path).coverage["beta"]
    keys = [n + 1 for n in range(ENTRIES) if n % 3 == 1]
    without_new = [key for key in keys if (key - 1) % 5 == 1]
    without_old = [key for key in keys if (key - 1) % 5 == 0]
    assert (found.entries, found.old) == (20, 20 - len(without_old))
    assert (found.new, found.both) == (20 - len(without_new), 20 - len(without_new + without_old))
    assert found.lacking == without_new[:3]
    assert asked(path).coverage["alpha"].entries == 19


def test_a_sample_is_bounded_and_counts_what_it_asked(path: Path) -> None:
    """The same each time, so that two runs can be compared."""
    report = asked(path, queries=5)
    assert report.queries == sum(a.judged for a in report.agreement.values()) == 5
    assert report_as_json(report) == report_as_json(asked(path, queries=5))


def test_a_space_that_nobody_has_is_refused(path: Path) -> None:
    """A misspelt one would be covered by no entry."""
    with BankStore.open(path, writer=False) as store, pytest.raises(BadRequest, match="no active"):
        compare_encoders(store, SPACE.id, "wide", 5)
