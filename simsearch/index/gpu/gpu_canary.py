"""GPU canary: checks that a GPU returns what the CPU does, after the upload and in every batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.errors import Corrupt
from simsearch.index.gpu.device import CANDIDATES_MAX, DeviceIndex, GpuFault, ScoredRows
from simsearch.index.gpu.dispatcher import RESULTS_MAX, Dispatcher, WrongAnswer
from simsearch.index.gpu.tensors import Queries, to_host
from simsearch.index.ivf.calibration import GATE_SDS, Calibration
from simsearch.index.ivf.faiss_io import one_thread
from simsearch.index.ivf.ivf_view import SCORE_MAX
from simsearch.index.ivf.train import calibrate
from simsearch.types import Vectors

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

CANARY_ROWS: Final = 256
CANARY_CANDIDATES: Final = 64
LOST_MAX: Final = 2
"""Rows of the canary that a GPU may miss: float16 tables may change the last place. Chosen."""

SCORE_TOLERANCE: Final = 0.02
"""How far a GPU's score may lie from the CPU's: ten times the error of float16 tables.
Unverified on a GPU."""

SENTINELS: Final = 32

ANY_ROW: Final = -2
"""The expected row where so many rows are alike that any of them may be returned."""

SURE_AMONG: Final = 16
"""The fewest candidates that any search requests."""


@dataclass(frozen=True)
class Canary:
    """Stored rows as queries, and what the CPU's index returns for them, all (n,): which rows it
    finds (`found`), which of them lead the others so clearly that any search must find them
    (`sure`), the scores of the rows themselves (`own`, -inf where not found), and the `best`."""

    queries: Vectors
    rows: NDArray[np.int64]
    found: NDArray[np.bool_]
    sure: NDArray[np.bool_]
    own: NDArray[np.float32]
    best: NDArray[np.float32]

    @classmethod
    def of(
        cls, index: Any, rows: NDArray[np.float16], indexed: NDArray[np.int64], nprobe: int
    ) -> Canary:
        """`indexed`: the rows that are in the index, at least one."""
        some = indexed[
            np.linspace(0, len(indexed) - 1, min(CANARY_ROWS, len(indexed))).astype(np.int64)
        ]
        queries = np.asarray(rows[some], np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        parameters = _faiss.SearchParametersIVF(nprobe=nprobe)
        with one_thread():
            scores, found = index.search(queries, CANARY_CANDIDATES, params=parameters)
        is_own = found == some[:, np.newaxis]
        own = np.where(is_own, scores, -np.inf).max(1).astype(np.float32)
        sure = own - scores[:, SURE_AMONG - 1] > SCORE_TOLERANCE
        return cls(queries, some, is_own.any(1), sure, own, scores[:, 0])

    def require(self, answer: ScoredRows) -> float:
        """The largest difference between the best scores of device and CPU. Raises WrongAnswer
        where it is too large, or too many rows are missing."""
        scores, found = answer
        lost = int((self.found & ~(found == self.rows[:, np.newaxis]).any(1)).sum())
        off = float(np.abs(scores[:, 0] - self.best).max(initial=0))
        if lost > LOST_MAX:
            raise WrongAnswer(f"finds {lost} fewer of {len(self.rows)} stored rows than the CPU")
        if not off <= SCORE_TOLERANCE:
            raise WrongAnswer(f"scores a stored row {off:.3g} off what the CPU does")
        return off


class CheckedIndex:
    """A device index that adds one query with a known answer to each batch, and checks that
    all results are possible. For the device's thread."""

    def __init__(self, device_index: DeviceIndex, count: int, canary: Canary) -> None:
        """`count`: rows are numbered 0 to count - 1."""
        at = np.flatnonzero(canary.sure if canary.sure.any() else canary.found)
        at = at[:: max(1, len(at) // SENTINELS)]
        self._device_index = device_index
        self._count = count
        self._queries = canary.queries[at]
        self._rows = np.where(canary.sure, canary.rows, ANY_ROW)[at]
        self._scores = np.where(canary.sure, canary.own, canary.best)[at]
        self._turn = 0

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self._device_index.nbytes

    def search(self, parts: Sequence[Queries], k: int, nprobe: int) -> ScoredRows:
        """DeviceIndex.search. Raises WrongAnswer where a check fails."""
        self._turn = (self._turn + 1) % max(1, len(self._queries))
        one = self._queries[self._turn : self._turn + 1]
        scores, rows = self._device_index.search([*parts, one], k, nprobe)
        queries = sum(map(len, parts))
        self._require_possible(scores, rows, (queries + len(one), k))
        if len(one):
            self._require_expected(scores[queries], rows[queries])
        return scores[:queries], rows[:queries]

    def _require_expected(self, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        row, score = self._rows[self._turn], self._scores[self._turn]
        at = np.flatnonzero(rows == row) if row != ANY_ROW else np.zeros(1, np.int64)
        if not len(at):
            raise WrongAnswer(f"does not find its row {row} when asked for that row")
        off = abs(float(scores[at[0]]) - float(score))
        if not off <= SCORE_TOLERANCE:
            raise WrongAnswer(f"scores a stored row {off:.3g} off what the CPU does")

    def _require_possible(
        self, scores: NDArray[np.float32], rows: NDArray[np.int64], shape: tuple[int, int]
    ) -> None:
        if scores.shape != shape or rows.shape != shape:
            raise WrongAnswer(f"answers {scores.shape} scores where {shape} were asked for")
        if rows.min(initial=-1) < -1 or rows.max(initial=-1) >= self._count:
            raise WrongAnswer(f"proposes a row beyond the {self._count} that there are")
        scores[rows < 0] = -np.inf
        if not (scores <= SCORE_MAX).all():
            raise WrongAnswer("scores a row as no code can")
        if (scores[:, 1:] > scores[:, :-1]).any():
            raise WrongAnswer("answers candidates that are not in order")


def calibrate_through(
    dispatcher: Dispatcher,
    device_index: DeviceIndex,
    rows: NDArray[np.float16],
    nlist: int,
    cpu: Calibration,
    off: float,
) -> Calibration:
    """The calibration of scores that a device returns. Raises GpuFault.

    Where most rows have so many equals that a device does not return them all, it cannot be
    measured: then it is the CPU's, widened by `off`.
    """
    try:
        calibration = calibrate(_DispatchedIndex(dispatcher, device_index, nlist), rows)
    except Corrupt:
        calibration = Calibration(cpu.bias, cpu.sd + off / GATE_SDS)
    if not (math.isfinite(calibration.bias) and math.isfinite(calibration.sd)):
        raise GpuFault("its scores cannot be measured")
    return calibration


@dataclass(frozen=True)
class _DispatchedIndex:
    """The part of a FAISS index that `calibrate` uses. The selector in `params` is ignored: as many
    rows are returned as possible, and `calibrate` finds the row of each query among them."""

    dispatcher: Dispatcher
    device_index: DeviceIndex
    nlist: int

    def search(self, queries: Vectors, k: int, params: Any) -> ScoredRows:
        step = RESULTS_MAX // CANDIDATES_MAX
        answers = [
            self.dispatcher.search(
                self.device_index,
                to_host(queries[start : start + step]),
                CANDIDATES_MAX,
                params.nprobe,
            )
            for start in range(0, len(queries), step)
        ]
        scores, rows = (np.concatenate(column) for column in zip(*answers, strict=True))
        return cast(ScoredRows, (scores, rows))
