"""Index building on a GPU: clustering, rescaling of rows, and coding into lists.

The result is a CPU index as `ivf.train` makes. Unverified on a GPU: it has run with the CPU in
place of a GPU only.
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
"""Rows added at a time. Chosen, not measured."""

TEMP_BYTES: Final = 1 << 30


class BuildDevice(Protocol):
    """Device that an index is built on: a GPU, or the CPU in its place."""

    @property
    def torch_device(self) -> str:
        """Torch's name of the device."""
        ...

    def flat_index(self, dim: int) -> Any:
        """An empty exact index for inner products, on the device."""
        ...

    def to_device(self, index: Any) -> Any:
        """A copy of a CPU index on the device, to add rows to."""
        ...

    def from_device(self, index: Any) -> Any:
        """A CPU index with the same rows."""
        ...


@dataclass(frozen=True)
class GpuBuildDevice:
    """The first GPU. Unverified on a GPU."""

    gpu: FaissGpu
    torch_device: str = "cuda:0"

    def flat_index(self, dim: int) -> Any:
        """An IndexFlatIP on the device."""
        return self.to_device(_faiss.IndexFlatIP(dim))

    def to_device(self, index: Any) -> Any:
        """By FAISS's cloner."""
        return _faiss.index_cpu_to_gpu(self.gpu.resources, 0, index, cloner_options(index))

    def from_device(self, index: Any) -> Any:
        """By FAISS's cloner."""
        return _faiss.index_gpu_to_cpu(index)


class CpuBuildDevice:
    """The CPU in place of a GPU."""

    torch_device = "cpu"

    def flat_index(self, dim: int) -> Any:
        """An IndexFlatIP on the device."""
        return _faiss.IndexFlatIP(dim)

    def to_device(self, index: Any) -> Any:
        """A clone."""
        return _faiss.clone_index(index)

    def from_device(self, index: Any) -> Any:
        """The index itself."""
        return index


def gpu_build_device() -> tuple[GpuBuildDevice | None, str]:
    """A GPU to build on, or why filled is none."""
    try:
        gpus, reason = gpus_of_faiss(TEMP_BYTES)
    except Exception as error:  # of any kind: a build can run on the CPU
        gpus, reason = [], f"the GPU cannot be used: {error}"
    return (GpuBuildDevice(gpus[0]), "") if gpus else (None, reason)


@contextmanager
def clustering_on(device: BuildDevice, index: Any) -> Iterator[None]:
    """Runs the clustering of `index`, nearly all of its training, on `device` within the block.

    Training raises RuntimeError where the GPU fails; the index can then be trained on the CPU.
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
    """A filled CPU index and the ids of its outliers, as `train.fill` makes of a copy of
    `trained`. Raises RuntimeError where the GPU fails, ValueError where it does not support it."""
    if refusal := unsupported_reason(trained):
        raise ValueError(refusal)
    filled = device.to_device(trained)
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
            filled.add_with_ids(kept, kept_numbers)
        outliers.append(numbers[is_outlier])
        progress(len(numbers))
    return device.from_device(filled), np.concatenate(outliers)


def _geometry(trained: Any) -> tuple[Vectors, Vectors]:
    """The centres of the lists (nlist, dim) and the codebooks (m, 256, dim / m)."""
    quantizer = _faiss.downcast_index(trained.quantizer)
    centres = quantizer.reconstruct_n(0, int(trained.nlist))
    pq = trained.pq
    codebooks = _faiss.vector_to_array(pq.centroids).reshape(int(pq.M), int(pq.ksub), int(pq.dsub))
    return centres, codebooks
