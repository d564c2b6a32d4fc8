"""Precomputed vectors: checked and scaled to exactly unit length, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import BadVector, LimitExceeded, SimsearchError
from simsearch.types import Vectors

NORM_TOLERANCE: Final = 0.01
"""How far from 1 the length of a caller's vector may be; float16 rounding is a tenth of it."""

ROWS_AT_ONCE: Final = 1_024
"""In float64 three copies of them at 1,024 dimensions are 24 MiB."""


def check_vectors(vectors: NDArray[np.floating], dim: int, rows_max: int) -> Vectors:
    """A caller's vectors as float32, exactly unit. Raises BadVector, LimitExceeded."""
    [checked] = check_all([vectors], dim, rows_max)
    if isinstance(checked, SimsearchError):
        raise checked
    return checked


def check_all(
    given: Sequence[NDArray[np.floating]], dim: int, rows_max: int
) -> list[Vectors | SimsearchError]:
    """Several callers' vectors as float32, exactly unit, or why each is none: BadVector,
    LimitExceeded. A row comes out the same whatever stands beside it."""
    checked: list[Vectors | SimsearchError] = []
    together: list[NDArray[np.floating]] = []
    rows = 0
    shapes = [_shape_refusal(vectors, dim, rows_max) for vectors in given]
    for vectors, refusal in zip(given, shapes, strict=True):
        if refusal is None:
            together.append(vectors)
            rows += len(vectors)
        if refusal is not None or rows >= ROWS_AT_ONCE:
            checked += _unit(together)
            together, rows = [], 0
        if refusal is not None:
            checked.append(refusal)
    return checked + _unit(together)


def _shape_refusal(vectors: NDArray[np.floating], dim: int, rows_max: int) -> SimsearchError | None:
    if vectors.dtype not in (np.float16, np.float32):
        return BadVector(f"vectors are {vectors.dtype}: send float16 or float32")
    if vectors.ndim != 2 or vectors.shape[1] != dim or len(vectors) == 0:
        return BadVector(f"vectors have shape {vectors.shape}: this space takes (n, {dim})")
    if len(vectors) > rows_max:
        return LimitExceeded(f"{len(vectors)} vectors in one content: {rows_max} at most")
    return None


def _unit(together: Sequence[NDArray[np.floating]]) -> list[Vectors | SimsearchError]:
    if not together:
        return []
    with np.errstate(invalid="ignore"):
        wide = np.concatenate(together, dtype=np.float64)
        norms = np.linalg.norm(wide, axis=1)
        sound = np.abs(norms - 1) <= NORM_TOLERANCE  # never where a norm is NaN or infinite
        unit = np.asarray(wide / norms[:, np.newaxis], dtype=np.float32)
    if len(unit) == len(together) and sound.all():
        return list(unit[:, np.newaxis])
    ends = np.cumsum([len(vectors) for vectors in together])
    checked: list[Vectors | SimsearchError] = []
    for end, vectors in zip(ends.tolist(), together, strict=True):
        part = slice(end - len(vectors), end)
        checked.append(unit[part] if sound[part].all() else _refusal(norms[part]))
    return checked


def _refusal(norms: NDArray[np.float64]) -> BadVector:
    if not np.isfinite(norms).all():
        return BadVector("a vector holds NaN or infinity: check the encoder that made it")
    worst = norms[np.argmax(np.abs(norms - 1))]
    return BadVector(f"a vector has length {worst:.4g}: send unit vectors (length 1)")
