"""The IVF base: its contract where all lists are read, and what only it promises."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.index.codec import Codec
from simsearch.index.ivf import IvfBase, IvfView
from simsearch.index.ivf_build import fill, train
from tests.index.contract import CosineViewContract
from tests.index.oracle import Row, clustered_vectors

WIDE = Codec(bias=0.0, sd=1.0)
"""A gate that every row passes: codes of a handful of numbers tell nothing."""


@cache
def trained(factory: str, dim: int) -> bytes:
    """Trained on other vectors of the same kind: the small worlds have too few."""
    index = train(factory, clustered_vectors(np.random.default_rng(99), 500, dim))
    written: bytes = faiss.serialize_index(index).tobytes()
    return written


def filled(factory: str, rows: NDArray[np.float16]) -> Any:
    written = trained(factory, rows.shape[1])
    index = faiss.deserialize_index(np.frombuffer(written, np.uint8))
    fill(index, rows, np.arange(len(rows)))
    return index


def base_of(
    rows: Sequence[Row],
    dim: int,
    *,
    factory: str = "IVF4,PQ6x4fsr",
    codec: Codec = WIDE,
    nprobe: int = 4,
) -> IvfBase:
    vectors = np.array([row.value for row in rows], np.float16).reshape(len(rows), dim)
    keys, groups = (np.array([getattr(row, n) for row in rows], np.int64) for n in ("key", "group"))
    return IvfBase(filled(factory, vectors), vectors, keys, groups, codec=codec, nprobe=nprobe)


class TestIvfView(CosineViewContract):
    factory = "IVF4,PQ6x4fsr"

    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> IvfView:
        base = base_of(rows, self.dim, factory=self.factory)
        base.retire(sorted(retired), [1] * len(retired))
        return base.freeze(1)


class TestIvfViewOfFullCodes(TestIvfView):
    factory = "IVF4,SQfp16"


class TestIvfViewUnderAGraph(TestIvfView):
    factory = "IVF8_HNSW8,PQ6x4fsr"

    def view(self, rows: Sequence[Row], retired: frozenset[int] = frozenset()) -> IvfView:
        base = base_of(rows, self.dim, factory=self.factory, nprobe=8)
        base.retire(sorted(retired), [1] * len(retired))
        return base.freeze(1)


class TestIvfViewOfUsualDim(TestIvfView):
    dim = 384
    rows = 80
    factory = "IVF4,PQ96x4fsr"
