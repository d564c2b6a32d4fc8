"""Making an index with a GPU's help: the lists' centres, the scale of each row, lists and codes.

What comes out is a CPU's index, of the same kind as that of `ivf_build`. Unverified on a GPU: here
it has run with this machine's CPU in the place of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.index.gpu.device import FaissGpu, cloner_options, gpus_of_faiss, why_not
from simsearch.index.gpu.rescale import Evener
from simsearch.types import Vectors

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

FILL_ROWS: Final = 65_536
"""Rows that are added at a time."""

TEMP_BYTES: Final = 1 << 30


class Workshop(Protocol):
    """Where an index is filled: a GPU, or in its place this CPU."""

    @property
    def torch_device(self) -> str: ...

    def flat(self, dim: int) -> Any:
        """An empty exact index for inner products."""
        ...

    def there(self, index: Any) -> Any:
        """A copy of a CPU index, to add to."""
        ...

    def back(self, index: Any) -> Any:
        """A CPU index of what is there."""
        ...


@dataclass(frozen=True)
class OnGpu:
    """The first GPU. Unverified on a GPU."""

    gpu: FaissGpu
    torch_device: str = "cuda:0"

    def flat(self, dim: int) -> Any:
        return self.there(_faiss.IndexFlatIP(dim))

    def there(self, index: Any) -> Any:
        return _faiss.index_cpu_to_gpu(self.gpu.resources, 0, index, cloner_options(index))

    def back(self, index: Any) -> Any:
        return _faiss.index_gpu_to_cpu(index)


class OnCpu:
    """This machine's CPU in the place of a GPU."""

    torch_device = "cpu"

    def flat(self, dim: int) -> Any:
        return _faiss.IndexFlatIP(dim)

    def there(self, index: Any) -> Any:
        return _faiss.clone_index(index)

    def back(self, index: Any) -> Any:
        return index


def workshop() -> tuple[OnGpu | None, str]:
    """A GPU to build on, or why there is none."""
    try:
        gpus, reason = gpus_of_faiss(TEMP_BYTES)
    except Exception as error:  # whatever ails it, a build goes on without
        gpus, reason = [], f"the GPU cannot be used: {error}"
    return (OnGpu(gpus[0]), "") if gpus else (None, reason)


@contextmanager
def centres_found_in(shop: Workshop, index: Any) -> Iterator[None]:
    """While `index` is trained, the centres of its lists are found there: nearly all of training.

    Raises RuntimeError from within where the GPU fails; the index can then be trained without.
    """
    clustering = shop.flat(int(index.d))
    index.clustering_index = clustering  # which FAISS does not own: it must live as long
    try:
        yield
    finally:
        index.clustering_index = None


def filled_in(
    shop: Workshop,
    trained: Any,
    rows: NDArray[np.floating],
    ids: NDArray[np.int64],
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Any, NDArray[np.int64]]:
    """A filled CPU index and the ids of its strays, as `ivf_build.fill` makes of a copy of
    `trained`. Raises RuntimeError where the GPU fails, and ValueError where it cannot hold it."""
    if refusal := why_not(trained):
        raise ValueError(refusal)
    there = shop.there(trained)
    evener = Evener(*_geometry(trained), shop.torch_device) if hasattr(trained, "pq") else None
    strays = [np.empty(0, np.int64)]
    for start in range(0, len(rows), FILL_ROWS):
        wide = np.ascontiguousarray(rows[start : start + FILL_ROWS], np.float32)
        numbers = np.ascontiguousarray(ids[start : start + FILL_ROWS], np.int64)
        is_stray = np.zeros(len(wide), np.bool_)
        if evener is not None:
            wide, is_stray = evener.evened(wide)
        # Named, so that they live until FAISS, which is given their addresses, has returned.
        kept, kept_numbers = wide[~is_stray], numbers[~is_stray]
        if len(kept):
            there.add_with_ids(kept, kept_numbers)
        strays.append(numbers[is_stray])
        progress(len(numbers))
    return shop.back(there), np.concatenate(strays)


def _geometry(trained: Any) -> tuple[Vectors, Vectors]:
    """The lists' centres (nlist, dim) and what codes stand for (m, 256, dim / m)."""
    quantizer = _faiss.downcast_index(trained.quantizer)
    centres = quantizer.reconstruct_n(0, int(trained.nlist))
    pq = trained.pq
    words = _faiss.vector_to_array(pq.centroids).reshape(int(pq.M), int(pq.ksub), int(pq.dsub))
    return centres, words
