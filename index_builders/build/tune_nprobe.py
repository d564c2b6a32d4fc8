"""Choice of nprobe: the smallest that reaches the recall target, and the recall curve around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from index_builders.quality.index_recall import (
    COPIES_OF_CURVE,
    ExactResults,
    Recall,
    exact_results,
    measure_recall,
)
from index_builders.report.progress import Progress, count_progress
from simsearch.index.index_protocol import CosineView

NPROBE_TRIES = 5
"""How often nprobe is doubled before the build is refused."""

ViewAt: TypeAlias = Callable[[int], CosineView]
"""The index as one view, searched with the given nprobe."""


@dataclass(frozen=True)
class NprobeChoice:
    """`nprobe`: the smallest tried that reaches the target, or 0. `recall`: at it, or at the last
    one tried. `curve`: (nprobe, recall), ascending."""

    nprobe: int
    recall: Recall
    curve: tuple[tuple[int, Recall], ...]


def tune_nprobe(
    view_at: ViewAt,
    rows: NDArray[np.float16],
    groups: NDArray[np.integer],
    lists: tuple[int, int],
    target: float,
    progress: Progress,
) -> NprobeChoice:
    """Measured against exact search over `rows`, (n, dim); row numbers are the keys of the views.

    `lists` are the nprobe to begin with, doubled while it is too small, and the number of lists.
    """
    compared = count_progress(progress, "comparing with exact search", len(rows), "rows")
    truth = exact_results(rows, progress=compared)
    tried = count_progress(progress, "measuring recall", 0, "settings of nprobe")

    def recall_at(nprobe: int, truth: ExactResults) -> Recall:
        recall = measure_recall(view_at(nprobe), groups, truth)
        tried(1)
        return recall

    curve = dict(_tries(partial(recall_at, truth=truth), lists, target))
    nprobe, recall = list(curve.items())[-1]
    if not _reaches(recall, target):
        return NprobeChoice(0, recall, tuple(curve.items()))
    fewer = truth.thinned(COPIES_OF_CURVE)
    for other in _around(nprobe, lists[1]) - curve.keys():
        curve[other] = recall_at(other, fewer)
    return NprobeChoice(nprobe, recall, tuple(sorted(curve.items())))


def _tries(
    recall_at: Callable[[int], Recall], lists: tuple[int, int], target: float
) -> Iterator[tuple[int, Recall]]:
    """Up to the first that is enough, or the last that there is."""
    nprobe, nlist = lists
    for _ in range(NPROBE_TRIES):
        recall = recall_at(nprobe)
        yield nprobe, recall
        if nprobe == nlist or _reaches(recall, target):
            return
        nprobe = min(2 * nprobe, nlist)


def _reaches(recall: Recall, target: float) -> bool:
    return recall.worst >= target and not recall.false_hits


def _around(nprobe: int, nlist: int) -> set[int]:
    """Powers of two below it, and twice as many lists."""
    return {2**k for k in range(nprobe.bit_length())} | {min(2 * nprobe, nlist)}
