"""Whether a GPU answers as the CPU does: before it is asked, and in every batch."""

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
"""Of the canary's rows. Tables in float16 may put another row at the last place."""

SCORE_TOLERANCE: Final = 0.02
"""How far a GPU's score may lie from the CPU's: ten times what float16 tables can move it."""

SENTINELS: Final = 32

ANY_ROW: Final = -2
"""Where so many rows are alike that any of them may come."""

SURE_AMONG: Final = 16
"""No search asks for fewer candidates."""


@dataclass(frozen=True)
class Canary:
    """Stored rows asked for as they are, and how the CPU's index answers them, all (n,): which of
    them it finds, which stand so far before others that any search must find them, its scores of
    the rows themselves, -inf where it finds another, and its best scores."""

    queries: Vectors
    rows: NDArray[np.int64]
    found: NDArray[np.bool_]
    sure: NDArray[np.bool_]
    own: NDArray[np.float32]
    best: NDArray[np.float32]

    @classmethod
    def of(
        cls, index: Any, rows: NDArray[np.float16], held: NDArray[np.int64], nprobe: int
    ) -> Canary:
        """`held`: which rows the index holds, at least one of them."""
        some = held[np.linspace(0, len(held) - 1, min(CANARY_ROWS, len(held))).astype(np.int64)]
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
        """How far the device's best scores lie from the CPU's at most. Raises WrongAnswer where
        that is too far, or it finds fewer of its rows."""
        scores, found = answer
        lost = int((self.found & ~(found == self.rows[:, np.newaxis]).any(1)).sum())
        off = float(np.abs(scores[:, 0] - self.best).max(initial=0))
        if lost > LOST_MAX:
            raise WrongAnswer(f"finds {lost} fewer of {len(self.rows)} stored rows than the CPU")
        if not off <= SCORE_TOLERANCE:
            raise WrongAnswer(f"scores a stored row {off:.3g} off what the CPU does")
        return off


class CheckedIndex:
    """A held index that is asked, in each batch, a question more whose answer is known; and no
    answer passes that cannot be one. For the device's thread."""

    def __init__(self, held: DeviceIndex, count: int, canary: Canary) -> None:
        """`count`: of the numbers that rows have, 0 to count - 1."""
        known = np.flatnonzero(canary.sure if canary.sure.any() else canary.found)
        known = known[:: max(1, len(known) // SENTINELS)]
        self._held = held
        self._count = count
        self._questions = canary.queries[known]
        self._rows = np.where(canary.sure, canary.rows, ANY_ROW)[known]
        self._scores = np.where(canary.sure, canary.own, canary.best)[known]
        self._turn = 0

    @property
    def nbytes(self) -> int:
        return self._held.nbytes

    def search(self, parts: Sequence[Queries], k: int, nprobe: int) -> ScoredRows:
        """As DeviceIndex.search. Raises WrongAnswer."""
        self._turn = (self._turn + 1) % max(1, len(self._questions))
        one = self._questions[self._turn : self._turn + 1]
        scores, rows = self._held.search([*parts, one], k, nprobe)
        asked = sum(map(len, parts))
        self._require_possible(scores, rows, (asked + len(one), k))
        if len(one):
            self._require_known(scores[asked], rows[asked])
        return scores[:asked], rows[:asked]

    def _require_known(self, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
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
    held: DeviceIndex,
    rows: NDArray[np.float16],
    nlist: int,
    cpu: Calibration,
    off: float,
) -> Calibration:
    """How the scores that a device gives lie around the cosines. Raises GpuFault.

    Where most rows have so many equals that a device does not propose them all, it cannot be
    measured: then as the CPU's lie, and `off` further.
    """
    try:
        calibration = calibrate(_DispatchedIndex(dispatcher, held, nlist), rows)
    except Corrupt:
        calibration = Calibration(cpu.bias, cpu.sd + off / GATE_SDS)
    if not (math.isfinite(calibration.bias) and math.isfinite(calibration.sd)):
        raise GpuFault("its scores cannot be measured")
    return calibration


@dataclass(frozen=True)
class _DispatchedIndex:
    """What `calibrate` asks of an index. It wants the sampled rows alone, by a selector; here all
    rows come that there is room for, and it looks for each query's own among them."""

    dispatcher: Dispatcher
    held: DeviceIndex
    nlist: int

    def search(self, queries: Vectors, k: int, params: Any) -> ScoredRows:
        step = RESULTS_MAX // CANDIDATES_MAX
        answers = [
            self.dispatcher.search(
                self.held, to_host(queries[start : start + step]), CANDIDATES_MAX, params.nprobe
            )
            for start in range(0, len(queries), step)
        ]
        scores, rows = (np.concatenate(column) for column in zip(*answers, strict=True))
        return cast(ScoredRows, (scores, rows))
