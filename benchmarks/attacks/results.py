"""What a run found, attack by attack: recall of each column, means by kind, who covers whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.attacks.statistics import Flags, Mean, Recall, mean_recall

CONTROL: Final = "control"
"""The kind of what is no attack: its recall is shown and is in no mean."""


@dataclass(frozen=True)
class Tried:
    """One attack on all banked entries. `found[column]` (n,): which copies that column found;
    `own[part]` (n,): for which the matcher's evidence names that part of the system."""

    name: str
    kind: str
    found: Mapping[str, Flags]
    own: Mapping[str, Flags]
    exchanged: Mapping[str, Flags]
    """As `found`, had thresholds been set by the other half of the negatives; of columns whose
    thresholds are set by any."""

    def recall(self, column: str) -> Recall:
        return Recall.of(self.found[column])

    def sharing(self) -> dict[str, float]:
        """Of all copies, those that each part found alone, and those that several did."""
        flags = np.array(list(self.own.values()))
        alone = flags.sum(axis=0) == 1
        shares = {f"only {p}": float((of & alone).mean()) for p, of in self.own.items()}
        first, *others = shares
        several = float((flags.sum(axis=0) > 1).mean())
        return {first: shares[first], "several": several} | {p: shares[p] for p in others}


@dataclass(frozen=True)
class Results:
    tried: Sequence[Tried]

    @property
    def attacks(self) -> list[Tried]:
        """Without the controls."""
        return [one for one in self.tried if one.kind != CONTROL]

    def mean(self, column: str, kinds: Sequence[str] = ()) -> Mean:
        """Over the attacks of these kinds; all where none is named."""
        found = [t.found[column] for t in self.attacks if not kinds or t.kind in kinds]
        return mean_recall(np.array(found))

    def exchanged(self) -> dict[str, float]:
        """By column, the mean over all attacks with thresholds from the other half."""
        columns = self.attacks[0].exchanged if self.attacks else {}
        return {
            c: round(float(np.mean([t.exchanged[c].mean() for t in self.attacks])), 4)
            for c in columns
        }

    def exchanged_note(self) -> str:
        means = ", ".join(f"{c} {100 * mean:.1f}" for c, mean in self.exchanged().items())
        return f"mean recall with thresholds from the other half of the negatives, %: {means}"

    def recall_rows(self, columns: Sequence[str], first: str) -> list[dict[str, str]]:
        """Rows of a table, the names of attacks in the column `first`."""
        return [
            {first: one.name, "kind": one.kind} | {c: str(one.recall(c)) for c in columns}
            for one in self.tried
        ]

    def sharing_rows(self, first: str) -> list[dict[str, str]]:
        """Rows of a table, per cent of the copies."""
        return [
            {first: one.name}
            | {name: f"{100 * share:.0f}" for name, share in one.sharing().items()}
            for one in self.tried
        ]

    def means(self, columns: Sequence[str], kinds: Sequence[str]) -> list[dict[str, str]]:
        """Rows of a table."""
        rows: list[dict[str, str]] = []
        for kind in kinds:
            means = {column: str(self.mean(column, (kind,))) for column in columns}
            rows.append({"mean of": kind} | means)
        rows.append({"mean of": "all"} | {column: str(self.mean(column)) for column in columns})
        return rows

    def covers(self) -> dict[str, dict[str, float]]:
        """covers[a][b]: the share of all attacked copies that part a found and part b did not,
        as the matcher's evidence has it."""
        parts = {p: np.concatenate([t.own[p] for t in self.attacks]) for p in self.attacks[0].own}
        return {
            a: {b: round(float((of & ~other).mean()), 4) for b, other in parts.items() if b != a}
            for a, of in parts.items()
        }

    def recalls(self, columns: Sequence[str]) -> dict[str, dict[str, list[float]]]:
        """By attack and column: [share, low, high]."""
        return {
            t.name: {
                c: [round(x, 4) for x in (t.recall(c).share, *t.recall(c).interval)]
                for c in columns
            }
            for t in self.tried
        }
