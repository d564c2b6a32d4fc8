"""Training of an IVF index: train, fill, calibrate scores, and choose nprobe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.errors import Corrupt
from simsearch.index.ivf.calibration import BIAS_COSINE, Calibration
from simsearch.index.rescore import exact_cosines
from simsearch.types import Vectors

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

FILL_ROWS: Final = 16_384
"""Rows converted to float32 at a time. Chosen, not measured."""

RESCALE_TARGET: Final = 0.8
"""The score that every row gets with itself, for codes of residuals. Chosen: what nearly all rows
reach. The outliers that are left are in benchmarks/README.md, index_search."""

PLAIN_RESCALE_TARGET: Final = 0.7
"""The same for codes of rows themselves, which reach less: at .75 there were 25 times as many
outliers (not in benchmarks/README.md)."""

RESCALE_TOLERANCE: Final = 0.002
RESCALE_ROUNDS: Final = 6
SCALE_BOUNDS: Final = (0.5, 3.0)
"""How near the target is near enough, how often a scale is adjusted, and its range. Chosen, not
measured."""

OUTLIER_SHORTFALL: Final = 0.05
"""A row whose code scores it further below the target than this is an outlier. Chosen: a gate lies
some .06 below the expected score of a near pair. Of sentence vectors 2 in 10,000 are outliers
(benchmarks/README.md, index_search)."""

SCALAR_SHORTFALL: Final = 0.01
"""The same for scalar-quantised codes, which score a row with itself at 1 less some thousandths.
Rows beyond the range seen in training are clipped, and lose much more. Chosen, not measured."""

PAIRS: Final = 4096
"""Pairs that a calibration measures. Chosen, not measured."""

SD_MIN: Final = 0.002
"""The least standard deviation of a calibration: of few pairs it may be 0 by chance. Chosen."""

TAIL: Final = 0.001
TAIL_SDS: Final = 3.09
"""Of a normal distribution 1 in 1,000 lies more than 3.09 standard deviations below the mean."""

PAIR_COSINES: Final = (0.85, 0.95)
PAIR_CANDIDATES: Final = 64
PAIR_NPROBE: Final = 64
"""The cosines of the pairs, and how they are searched for. Chosen, not measured."""

PROBED_COSINES: Final = (0.9, 1.0)
PROBED_SHARE: Final = 0.995
"""The share of near copies whose list must be read: the recall that a build requires, too."""

NPROBE_MAX: Final = 256
"""Chosen, not measured."""


def train(
    factory: str, sample: NDArray[np.floating], seed: int = 0, *, drawn_lists: bool = False
) -> Any:
    """An empty index of `factory` for inner products, trained on `sample` (n, dim), which should
    be Plan.train_rows rows drawn at random. All cores are used; equal input gives an equal index.

    `drawn_lists`: rows of the sample become the centres of lists. This saves the k-means, which is
    nearly all of training, and a search must read some more lists.
    """
    index = _faiss.index_factory(sample.shape[1], factory, _faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    if hasattr(index, "pq"):
        index.pq.cp.seed = seed
    if hasattr(index, "do_polysemous_training"):
        index.do_polysemous_training = (
            False  # annealing takes minutes to hours, and helps a search we do not use
        )
    if drawn_lists:
        drawn = np.random.default_rng(seed).choice(len(sample), index.nlist, replace=False)
        index.quantizer.add(np.ascontiguousarray(sample[drawn], np.float32))
    index.train(np.ascontiguousarray(sample, np.float32))
    return index


def fill(
    index: Any,
    rows: NDArray[np.floating],
    ids: NDArray[np.int64],
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.int64]:
    """Add `rows` (n, dim; may be a memmap) under `ids`: for IvfBase, their row numbers.

    Returns the ids of outliers, which are not added: rows that their codes describe so badly that
    a search could miss them. They are to be searched exactly. `progress` is called with how many
    more rows are done.

    It uses add_with_ids, as add_preassigned and add_core corrupt a fast-scan index silently.
    """
    outliers = [np.empty(0, np.int64)]
    for start in range(0, len(rows), FILL_ROWS):
        wide = np.ascontiguousarray(rows[start : start + FILL_ROWS], np.float32)
        numbers = np.ascontiguousarray(ids[start : start + FILL_ROWS], np.int64)
        rescaled, is_outlier = _rescaled(index, wide)
        # Named, so that they live until FAISS, which is given their addresses, has returned.
        kept, kept_numbers = rescaled[~is_outlier], numbers[~is_outlier]
        if len(kept):
            index.add_with_ids(kept, kept_numbers)
        outliers.append(numbers[is_outlier])
        progress(len(numbers))
    return np.concatenate(outliers)


def _rescaled(index: Any, vectors: Vectors) -> tuple[Vectors, NDArray[np.bool_]]:
    """Rescale each row so that the inner product with its own reconstruction equals the target;
    returns the rows, and a mask of the outliers, for which no scale does.

    Codes of residuals shrink rows unequally: one near the centre of its list hardly, one far away
    by a third. A gate that the most shrunk row passes is passed by many others that do not match.
    Rescaling before coding makes the shrinkage equal, and costs a search nothing: on sentence
    vectors the standard deviation of scores fell from .067 to .016 (not in
    benchmarks/README.md). The list of a row does not depend on its scale, and exact cosines are
    computed from `rows`, never from codes.
    """
    if not hasattr(index, "pq"):
        return vectors, _own_scores(index, vectors) < 1 - SCALAR_SHORTFALL
    centres = _centres_of(index, vectors)
    target = RESCALE_TARGET if index.by_residual else PLAIN_RESCALE_TARGET
    scales = np.ones((len(vectors), 1), np.float32)
    best, best_score = scales.copy(), np.full((len(vectors), 1), -np.inf, np.float32)
    waiting = np.arange(len(vectors))
    for _ in range(RESCALE_ROUNDS):
        own = vectors[waiting]
        codes = index.pq.compute_codes(scales[waiting] * own - centres[waiting])
        score = ((centres[waiting] + index.pq.decode(codes)) * own).sum(1, keepdims=True)
        miss = np.abs(score - target)
        better = (miss < np.abs(best_score[waiting] - target))[:, 0]
        best[waiting[better]] = scales[waiting[better]]
        best_score[waiting[better]] = score[better]
        rescaled = scales[waiting] * target / np.maximum(score, 0.1)
        scales[waiting] = np.clip(rescaled, *SCALE_BOUNDS)
        waiting = waiting[miss[:, 0] > RESCALE_TOLERANCE]
    return best * vectors, (best_score < target - OUTLIER_SHORTFALL)[:, 0]


def _own_scores(index: Any, vectors: Vectors) -> NDArray[np.float32]:
    decoded: Vectors = index.sa_decode(index.sa_encode(np.ascontiguousarray(vectors)))
    own: NDArray[np.float32] = np.einsum("ij,ij->i", decoded, vectors)
    return own


def _centres_of(index: Any, vectors: Vectors) -> Vectors:
    """What is subtracted from each row before coding: its nearest centre, or zeros."""
    if not index.by_residual:
        return np.zeros_like(vectors)
    quantizer = _faiss.downcast_index(index.quantizer)
    centres: Vectors = quantizer.reconstruct_batch(quantizer.search(vectors, 1)[1][:, 0])
    return centres


def nprobe_for(index: Any, rows: NDArray[np.floating], seed: int = 0) -> int:
    """The nprobe at which PROBED_SHARE of near copies read the list of their row.

    Measured on copies of `rows` (some of those in the index) rotated to cosines of .9 to 1: the
    rank of the row's own list among those nearest to the copy.
    """
    rng = np.random.default_rng(seed)
    at = np.sort(rng.choice(len(rows), min(PAIRS, len(rows)), replace=False))
    near = np.asarray(rows[at], np.float32)
    copies = turned(near, _directions(near, rng), rng.uniform(*PROBED_COSINES, len(near)))
    quantizer = _faiss.downcast_index(index.quantizer)
    own = quantizer.search(near, 1)[1]
    nearest = quantizer.search(copies, min(NPROBE_MAX, index.nlist))[1]
    is_own = nearest == own
    rank = np.where(is_own.any(1), is_own.argmax(1) + 1, nearest.shape[1])
    return int(np.quantile(rank, PROBED_SHARE, method="higher"))


def calibrate(index: Any, rows: NDArray[np.float16], seed: int = 0) -> Calibration:
    """The calibration of the index, measured on near pairs.

    The pairs are stored rows and queries rotated away from them to a cosine of .85 to .95, half of
    them towards another row (as a rewording is), half in a random direction (as noise is). Raises
    Corrupt where the index does not find its own rows.
    """
    rng = np.random.default_rng(seed)
    at = np.sort(rng.choice(len(rows), min(PAIRS, len(rows)), replace=False))
    near = np.asarray(rows[at], np.float32)
    queries = turned(near, _directions(near, rng), rng.uniform(*PAIR_COSINES, len(near)))
    scores = _scores(index, queries, at)
    seen = np.isfinite(scores)
    if seen.sum() < len(at) // 2:
        raise Corrupt(
            f"the index finds {seen.sum()} of {len(at)} rows by a near copy: build it again"
        )
    cosines = exact_cosines(queries[seen], near[seen])
    slope = float((scores[seen] / cosines).mean())
    return Calibration(BIAS_COSINE * (slope - 1), _spread(scores[seen] - slope * cosines))


def _spread(errors: NDArray[np.float64]) -> float:
    """The standard deviation, or where the lower tail is longer than a normal one, that of the
    normal distribution with such a tail; SD_MIN at least."""
    return float(max(errors.std(), -np.quantile(errors, TAIL) / TAIL_SDS, SD_MIN))


def _directions(near: Vectors, rng: np.random.Generator) -> Vectors:
    others = near[rng.permutation(len(near))]
    noise = rng.standard_normal(near.shape).astype(np.float32)
    return np.where(np.arange(len(near))[:, np.newaxis] % 2, others, noise)


def turned(near: Vectors, towards: NDArray[np.floating], cosines: NDArray[np.float64]) -> Vectors:
    """Unit vectors at `cosines` from `near`, in the plane of `near` and `towards`."""
    unit = near / np.linalg.norm(near, axis=1, keepdims=True)
    across = towards - (towards * unit).sum(1, keepdims=True) * unit
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    cosine = cosines[:, np.newaxis].astype(np.float32)
    return np.ascontiguousarray(cosine * unit + np.sqrt(1 - cosine**2) * across, np.float32)


def _scores(index: Any, queries: Vectors, at: NDArray[np.intp]) -> NDArray[np.float64]:
    """The score of each query's own row, as a search gives it; NaN where it does not."""
    chosen = np.zeros(int(at.max(initial=0)) + 1, np.bool_)
    chosen[at] = True
    bitmap = np.packbits(chosen, bitorder="little")
    parameters = _faiss.SearchParametersIVF(
        nprobe=min(PAIR_NPROBE, index.nlist), sel=_faiss.IDSelectorBitmap(bitmap)
    )
    scores, rows = index.search(queries, PAIR_CANDIDATES, params=parameters)
    own = rows == at[:, np.newaxis]
    return np.where(own.any(1), np.where(own, scores, -np.inf).max(1), np.nan).astype(np.float64)
