"""What a search must answer, in plain Python: slow, without numpy's arithmetic, easy to believe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simsearch.index.index_protocol import CosineMatches, HammingMatches
from simsearch.types import BITS_BYTES, Bits, Vectors

Found: TypeAlias = list[tuple[int, int, int, float]]
"""(query, key, group, cosine or hamming) of each match, in the order of the answer."""


@dataclass(frozen=True)
class Row:
    """`value` is a stored vector or hash."""

    value: NDArray[Any]
    key: int
    group: int


def cosine(query: NDArray[Any], row: NDArray[Any]) -> float:
    """Of the row as a bank stores it, in float16."""
    q, r = query.tolist(), row.astype(np.float16).tolist()
    dot = math.fsum(a * b for a, b in zip(q, r, strict=True))
    return round(dot / (math.hypot(*q) * math.hypot(*r)), 5)


def hamming(query: NDArray[Any], row: NDArray[Any]) -> float:
    q, r = (int.from_bytes(side.tobytes(), "big") for side in (query, row))
    return (q ^ r).bit_count()


@dataclass(frozen=True)
class Scale:
    """Cosine or Hamming. `sign` times a value is lower for what is closer."""

    value: Callable[[NDArray[Any], NDArray[Any]], float]
    sign: int

    def search(
        self,
        rows: Sequence[Row],
        queries: NDArray[Any],
        limits: Mapping[int, float],
        rows_max: int,
    ) -> tuple[Found, list[bool]]:
        """`rows` in the order they were appended. Returns what is found and what is truncated."""
        answers = [self._search_one(rows, q, limits) for q in queries]
        found = [
            (number, row.key, row.group, value)
            for number, answer in enumerate(answers)
            for value, row in answer[:rows_max]
        ]
        return found, [len(answer) > rows_max for answer in answers]

    def _search_one(
        self, rows: Sequence[Row], query: NDArray[Any], limits: Mapping[int, float]
    ) -> list[tuple[float, Row]]:
        asked = [(self.value(query, row.value), row) for row in rows if row.group in limits]
        inside = [
            (value, row)
            for value, row in asked
            if self.sign * value <= self.sign * limits[row.group]
        ]
        # sorted() is stable, so equal keys stay in the order of their rows
        return sorted(inside, key=lambda match: (self.sign * match[0], match[1].key))


COSINE = Scale(cosine, sign=-1)
HAMMING = Scale(hamming, sign=1)


def found_by(matches: CosineMatches | HammingMatches) -> Found:
    value = matches.cosine if isinstance(matches, CosineMatches) else matches.hamming
    columns = (matches.query, matches.key, matches.group, value)
    return list(zip(*(column.tolist() for column in columns), strict=True))


# ---------------------------------------------------------------- worlds


def unit(vectors: NDArray[Any]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)


def clustered_vectors(rng: np.random.Generator, n: int, dim: int) -> Vectors:
    """As embeddings are: many near-copies of few things, some equal to the last bit."""
    centres = rng.standard_normal((max(1, n // 6), dim))
    spread = rng.choice([0.0, 0.02, 0.1, 0.4], size=(n, 1))
    vectors = centres[rng.integers(0, len(centres), n)] + spread * rng.standard_normal((n, dim))
    return unit(vectors)


def clustered_bits(rng: np.random.Generator, n: int) -> Bits:
    """Copies of few hashes with 0 to 40 bits flipped."""
    centres = rng.integers(0, 256, (max(1, n // 6), BITS_BYTES), np.uint8)
    rows = np.unpackbits(centres[rng.integers(0, len(centres), n)], axis=1)
    flips = rng.random(rows.shape) < rng.choice([0.0, 0.02, 0.1], size=(n, 1))
    return np.packbits(rows ^ flips, axis=1)
