"""Several descriptors as one system: thresholds that share a rate of false positives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.attacks.descriptors import Descriptor
from benchmarks.attacks.statistics import FalsePositives, Flags, Floats, allowed_of, cut


@dataclass(frozen=True)
class System:
    """Something hits where any of its parts does."""

    name: str
    parts: tuple[Descriptor, ...]

    @property
    def free(self) -> list[Descriptor]:
        """The parts whose thresholds negatives set."""
        return [part for part in self.parts if part.fixed is None]


@dataclass(frozen=True)
class Thresholds:
    """By the name of the part. `granted` false positives of the setting negatives may be;
    `by_fixed` are what the parts take whose thresholds were not to be set."""

    system: System
    at: Mapping[str, float]
    granted: int
    by_fixed: int

    @property
    def pairs(self) -> list[tuple[Descriptor, float]]:
        return [(part, self.at[part.name]) for part in self.system.parts]

    @property
    def is_over(self) -> bool:
        """The fixed parts alone have more false positives than were granted."""
        return self.by_fixed > self.granted

    def found_by(self, closeness: Mapping[str, Floats]) -> dict[str, Flags]:
        """Of each part, which values of its closeness pass."""
        return {part.name: closeness[part.name] >= t for part, t in self.pairs}

    def found(self, closeness: Mapping[str, Floats]) -> Flags:
        """Which pass by any part."""
        found: Flags = np.any(list(self.found_by(closeness).values()), axis=0)
        return found

    def false_positives(self, closest: Mapping[str, Floats]) -> FalsePositives:
        hits = self.found(closest)
        return FalsePositives(int(hits.sum()), len(hits))

    def __str__(self) -> str:
        return ", ".join(f"{part.name} {part.shown(t)}" for part, t in self.pairs)


def set_thresholds(system: System, closest: Mapping[str, Floats], fpr: float) -> Thresholds:
    """So that at most `fpr` of the negatives hit anything by any part, if fixed parts allow it.

    `closest`: by part, the closeness of each setting negative to its nearest entry, (negatives,).
    What the fixed parts leave of the granted false positives is shared out to the free parts in
    equal shares, the first getting what is over; a negative that one part hits costs no other part
    anything.
    """
    negatives = len(next(iter(closest.values())))
    granted = allowed_of(fpr, negatives)
    at = {part.name: part.fixed for part in system.parts if part.fixed is not None}
    hit = np.zeros(negatives, np.bool_)
    for name, threshold in at.items():
        hit |= closest[name] >= threshold
    by_fixed = int(hit.sum())
    left = max(granted - by_fixed, 0)
    for number, part in enumerate(system.free):
        share = -(-left // (len(system.free) - number))
        values = closest[part.name]
        at[part.name] = part.above(cut(values[~hit], share))
        now = hit | (values >= at[part.name])
        left -= int(now.sum() - hit.sum())
        hit = now
    return Thresholds(system, at, granted, by_fixed)


def closest_of(parts: Sequence[Descriptor], closeness: Mapping[str, Floats]) -> dict[str, Floats]:
    """From (queries, bank) to (queries,): how near the nearest entry is."""
    return {part.name: closeness[part.name].max(axis=1) for part in parts}
