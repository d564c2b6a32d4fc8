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

from simsearch.index.gpu.device import FaissGpu, cloner_options, gpus_of_faiss, unsupported_reason
from simsearch.index.gpu.rescale import RowRescaler
from simsearch.types import Vectors

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

FILL_ROWS: Final = 65_536
"""Rows that are added at a time."""

TEMP_BYTES: Final = 1 << 30


class BuildDevice(Protocol):
    """Where an index is filled: a GPU, or in its place this CPU."""

    @property
    def torch_device(self) -> str: ...

    def flat_index(self, dim: int) -> Any:
        """An empty exact index for inner products."""
        ...

    def to_device(self, index: Any) -> Any:
        """A copy of a CPU index, to add to."""
        ...

    def from_device(self, index: Any) -> Any:
        """A CPU index of what is there."""
        ...


@dataclass(frozen=True)
class GpuBuildDevice:
    """The first GPU. Unverified on a GPU."""

    gpu: FaissGpu
    torch_device: str = "cuda:0"

    def flat_index(self, dim: int) -> Any:
        return self.to_device(_faiss.IndexFlatIP(dim))

    def to_device(self, index: Any) -> Any:
        return _faiss.index_cpu_to_gpu(self.gpu.resources, 0, index, cloner_options(index))

    def from_device(self, index: Any) -> Any:
        return _faiss.index_gpu_to_cpu(index)


class CpuBuildDevice:
    """This machine's CPU in the place of a GPU."""

    torch_device = "cpu"

    def flat_index(self, dim: int) -> Any:
        return _faiss.IndexFlatIP(dim)

    def to_device(self, index: Any) -> Any:
        return _faiss.clone_index(index)

    def from_device(self, index: Any) -> Any:
        return index


def gpu_build_device() -> tuple[GpuBuildDevice | None, str]:
    """A GPU to build on, or why there is none."""
    try:
        gpus, reason = gpus_of_faiss(TEMP_BYTES)
    except Exception as error:  # whatever ails it, a build goes on without
        gpus, reason = [], f"the GPU cannot be used: {error}"
    return (GpuBuildDevice(gpus[0]), "") if gpus else (None, reason)


@contextmanager
def clustering_on(device: BuildDevice, index: Any) -> Iterator[None]:
    """While `index` is trained, the centres of its lists are found there: nearly all of training.

    Raises RuntimeError from within where the GPU fails; the index can then be trained without.
    """
    clustering = device.flat_index(int(index.d))
    index.clustering_index = clustering  # which FAISS does not own: it must live as long
    try:
        yield
    finally:
        index.clustering_index = None


def fill_on(
    device: BuildDevice,
    trained: Any,
    rows: NDArray[np.floating],
    ids: NDArray[np.int64],
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Any, NDArray[np.int64]]:
    """A filled CPU index and the ids of its outliers, as `ivf_build.fill` makes of a copy of
    `trained`. Raises RuntimeError where the GPU fails, and ValueError where it cannot hold it."""
    if refusal := unsupported_reason(trained):
        raise ValueError(refusal)
    there = device.to_device(trained)
    rescaler = (
        RowRescaler(*_geometry(trained), device.torch_device) if hasattr(trained, "pq") else None
    )
    outliers = [np.empty(0, np.int64)]
    for start in range(0, len(rows), FILL_ROWS):
        wide = np.ascontiguousarray(rows[start : start + FILL_ROWS], np.float32)
        numbers = np.ascontiguousarray(ids[start : start + FILL_ROWS], np.int64)
        is_outlier = np.zeros(len(wide), np.bool_)
        if rescaler is not None:
            wide, is_outlier = rescaler.rescaled(wide)
        # Named, so that they live until FAISS, which is given their addresses, has returned.
        kept, kept_numbers = wide[~is_outlier], numbers[~is_outlier]
        if len(kept):
            there.add_with_ids(kept, kept_numbers)
        outliers.append(numbers[is_outlier])
        progress(len(numbers))
    return device.from_device(there), np.concatenate(outliers)


def _geometry(trained: Any) -> tuple[Vectors, Vectors]:
    """The lists' centres (nlist, dim) and what codes stand for (m, 256, dim / m)."""
    quantizer = _faiss.downcast_index(trained.quantizer)
    centres = quantizer.reconstruct_n(0, int(trained.nlist))
    pq = trained.pq
    words = _faiss.vector_to_array(pq.centroids).reshape(int(pq.M), int(pq.ksub), int(pq.dsub))
    return centres, words
