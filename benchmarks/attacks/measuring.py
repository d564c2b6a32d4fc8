"""One run: thresholds from negatives, their price in others, then attack after attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.attacks.descriptors import Descriptor
from benchmarks.attacks.judging import House
from benchmarks.attacks.results import Tried
from benchmarks.attacks.statistics import FalsePositives, Flags
from benchmarks.attacks.systems import System, Thresholds, closest_of, set_thresholds
from simsearch.types import Content


@dataclass(frozen=True)
class Plan:
    """`subjects` are measured by arithmetic at each of `rates` (shares of the negatives, by name),
    `beside` at their fixed thresholds, `system` through the matcher in a bank for each rate."""

    subjects: Sequence[System]
    beside: Sequence[Descriptor]
    system: System
    rates: Mapping[str, float]

    @property
    def parts(self) -> list[Descriptor]:
        """Every descriptor that is needed, each once."""
        groups = [s.parts for s in (*self.subjects, self.system)]
        every = [*(part for group in groups for part in group), *self.beside]
        return list({part.name: part for part in every}.values())

    @property
    def main_rate(self) -> str:
        """The first: the one by which it is told who found what."""
        return next(iter(self.rates))


def column_of(system: System, rate: str) -> str:
    return f"{system.name} {rate}"


def bank_of(rate: str) -> str:
    """The name of the bank with the system's thresholds for that rate."""
    return f"at-{rate}"


def column_beside(part: Descriptor) -> str:
    return f"{part.name} {part.shown(part.fixed)}" if part.fixed is not None else part.name


@dataclass(frozen=True)
class Price:
    """A set of thresholds, and what it costs in negatives that no threshold saw. `by_matcher`:
    counted once more through the matcher; the system's alone."""

    thresholds: Thresholds
    fpr: FalsePositives
    by_matcher: FalsePositives | None = None


@dataclass
class Measuring:
    """`differing` counts answers in which the matcher and plain arithmetic disagree: it ought to
    stay 0."""

    plan: Plan
    banks: House
    prices: dict[str, Price] = field(default_factory=dict)
    """By column."""
    exchanged: dict[str, Thresholds] = field(default_factory=dict)
    """By column, had the two halves of the negatives changed places: how much a recall owes to
    which few negatives came to lie on which side."""
    differing: int = 0
    regions: dict[str, float] = field(default_factory=dict)
    """How many pictures are found in one, on average: of the negatives, and by attack."""

    def set_thresholds(self, setting: Sequence[Content], reporting: Sequence[Content]) -> None:
        """Thresholds see `setting` alone; `reporting` is only counted."""
        seen = closest_of(self.plan.parts, self.banks.closeness(setting))
        unseen = closest_of(self.plan.parts, self.banks.closeness(reporting))
        self.regions["negatives"] = self.banks.regions([*setting, *reporting])
        for system in (*self.plan.subjects, self.plan.system):
            for rate, fpr in self.plan.rates.items():
                self.exchanged[column_of(system, rate)] = set_thresholds(system, unseen, fpr)
        for subject in self.plan.subjects:
            for rate, fpr in self.plan.rates.items():
                found = set_thresholds(subject, seen, fpr)
                self.prices[column_of(subject, rate)] = Price(found, found.false_positives(unseen))
        for part in self.plan.beside:
            alone = set_thresholds(System(part.name, (part,)), seen, 0.0)
            self.prices[column_beside(part)] = Price(alone, alone.false_positives(unseen))
        for rate, fpr in self.plan.rates.items():
            found = set_thresholds(self.plan.system, seen, fpr)
            self.banks.set_policy(bank_of(rate), found)
            hits = self.banks.judge(bank_of(rate), reporting).hit
            self.differing += int((hits != found.found(unseen)).sum())
            self.prices[column_of(self.plan.system, rate)] = Price(
                found,
                found.false_positives(unseen),
                FalsePositives(int(hits.sum()), len(hits)),
            )

    def tried(self, name: str, kind: str, copies: Sequence[Content]) -> Tried:
        """`copies[i]` is a copy of the i-th banked entry."""
        close = self.banks.closeness(copies)
        self.regions[name] = self.banks.regions(copies)
        near = {part: np.diagonal(pairs) for part, pairs in close.items()}
        found: dict[str, Flags] = {
            column: price.thresholds.found(near) for column, price in self.prices.items()
        }
        own: Mapping[str, Flags] = {}
        for rate in self.plan.rates:
            judged = self.banks.judge(bank_of(rate), copies, range(len(copies)))
            column = column_of(self.plan.system, rate)
            self.differing += int((judged.found != found[column]).sum())
            found[column] = judged.found
            if rate == self.plan.main_rate:
                own = {part.name: judged.own[part.name] for part in self.plan.system.parts}
        exchanged = {column: at.found(near) for column, at in self.exchanged.items()}
        return Tried(name, kind, found, own, exchanged)


def price_rows(prices: Mapping[str, Price]) -> list[dict[str, object]]:
    """Rows of a table."""
    return [
        {
            "column": column,
            "thresholds": str(price.thresholds),
            "false positives, out of sample": str(price.fpr),
            "by the matcher": price.by_matcher.hits if price.by_matcher else "",
        }
        for column, price in prices.items()
    ]


def price_figures(prices: Mapping[str, Price]) -> dict[str, object]:
    figures: dict[str, object] = {}
    for column, price in prices.items():
        shown = price.fpr.figures() | {"thresholds": str(price.thresholds)}
        if price.by_matcher:
            shown["hits_by_matcher"] = price.by_matcher.hits
        figures[column] = shown
    return figures


def over_notes(prices: Mapping[str, Price]) -> list[str]:
    """One line for each column whose fixed parts cost more than its rate grants."""
    return [
        f"{column}: fixed parts hit {p.thresholds.by_fixed} setting negatives, "
        f"{p.thresholds.granted} are granted; the others got thresholds that add none"
        for column, p in prices.items()
        if p.thresholds.is_over and p.thresholds.system.free
    ]
