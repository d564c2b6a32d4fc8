"""GPU devices: copying an index to one, and searching it there.

`FaissGpu` is a GPU; `HostDevice` does the same on the CPU, within the limits of a GPU, for tests
and rehearsals. FaissGpu is unverified on a GPU: its names and arguments were checked
against a GPU build of FAISS, and nothing of it has run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.index.gpu.tensors import Queries, concatenated, is_tensor, on_gpu, to_host
from simsearch.index.ivf.faiss_io import one_thread
from simsearch.index.ivf.plan import GPU_CODES

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

CANDIDATES_MAX: Final = 2048
PROBES_MAX: Final = 2048
"""The limits of FAISS's own kernels (without cuVS)."""

FLOAT32_TABLES_CODES_MAX: Final = 48
"""A GPU keeps a table of 256 scores per code for each list it scans, in 48 KiB of shared memory."""

ScoredRows: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and rows, both (n, k), best first; row -1 where there are fewer."""


class GpuFault(Exception):
    """A GPU cannot answer a search. It is caught within index/, where the CPU answers instead."""


class DeviceIndex(Protocol):
    """An index on a device. For the thread that owns the device only."""

    @property
    def nbytes(self) -> int:
        """Bytes on the device, by length."""
        ...

    def search(self, parts: Sequence[Queries], k: int, nprobe: int) -> ScoredRows:
        """The best `k` rows of each query in `parts`, unit vectors, one part after the other. There
        are no selectors. Raises any exception of the device."""
        ...


class Device(Protocol):
    """One GPU. For one thread only."""

    @property
    def name(self) -> str:
        """For logs and status."""
        ...

    def upload(self, index: Any) -> DeviceIndex:
        """A copy on the device of a CPU index that is supported. Raises any exception of the
        device."""
        ...


def unsupported_reason(index: Any) -> str:
    """Why a GPU cannot search a filled CPU index; empty where it can."""
    if isinstance(index, (_faiss.IndexIVFPQFastScan, _faiss.IndexIVFAdditiveQuantizerFastScan)):
        return "its codes are for a CPU's fast scan: build it with a plan for GPUs"
    if not isinstance(
        index, (_faiss.IndexIVFPQ, _faiss.IndexIVFScalarQuantizer, _faiss.IndexIVFFlat)
    ):
        return f"a GPU has no {type(index).__name__}: build it with a plan for GPUs"
    quantizer = _faiss.downcast_index(index.quantizer)
    if not isinstance(quantizer, (_faiss.IndexFlat, _faiss.IndexFlatIP, _faiss.IndexFlatL2)):
        return "a graph over its lists cannot go to a GPU: build it with a plan for GPUs"
    return _unsupported_codes(index) if isinstance(index, _faiss.IndexIVFPQ) else ""


def _unsupported_codes(index: Any) -> str:
    if index.pq.nbits != 8 or index.pq.M not in GPU_CODES or not index.by_residual:
        return (
            f"a GPU has no {index.pq.M} codes of {index.pq.nbits} bits: "
            "build it with a plan for GPUs"
        )
    if index.polysemous_ht:
        return "a GPU does no polysemous search: build it with a plan for GPUs"
    return ""


# ---------------------------------------------------------------- a GPU


class FaissGpu:
    """GPU `number`. `temp_bytes` are allocated on it at once, for searches. Unverified on a GPU."""

    def __init__(self, number: int, temp_bytes: int) -> None:
        self._number = number
        self._resources = _faiss.StandardGpuResources()
        self._resources.setTempMemory(temp_bytes)

    @property
    def name(self) -> str:
        """For logs and status."""
        return f"GPU {self._number}"

    @property
    def resources(self) -> Any:
        """FAISS's StandardGpuResources."""
        return self._resources

    def upload(self, index: Any) -> DeviceIndex:
        """Raises GpuFault where rows are missing in the copy, RuntimeError of FAISS."""
        copy = _faiss.index_cpu_to_gpu(self._resources, self._number, index, cloner_options(index))
        if copy.ntotal != index.ntotal:
            raise GpuFault(f"took {copy.ntotal} of {index.ntotal} rows")
        return _GpuIndex(copy, self._number, bytes_on_device(index))


def cloner_options(ivf: Any) -> Any:
    """FAISS's options for the copy of `ivf` to a GPU."""
    options = _faiss.GpuClonerOptions()
    options.indicesOptions = _faiss.INDICES_32_BIT if _ids_fit(ivf) else _faiss.INDICES_64_BIT
    options.useFloat16 = _needs_float16_tables(ivf)
    options.usePrecomputed = False  # tables of (lists, codes, 256): more than the codes themselves
    options.allowCpuCoarseQuantizer = False
    if hasattr(options, "use_cuvs"):
        options.use_cuvs = False  # cuVS has other limits and other arithmetic
    return options


def bytes_on_device(ivf: Any) -> int:
    """Bytes of its codes, ids and centres on a GPU, by length."""
    id_bytes = 4 if _ids_fit(ivf) else 8
    return int(ivf.ntotal) * (int(ivf.code_size) + id_bytes) + 4 * int(ivf.nlist) * int(ivf.d)


def _ids_fit(ivf: Any) -> bool:
    return int(ivf.ntotal) < 2**31 - 1


def _needs_float16_tables(ivf: Any) -> bool:
    return isinstance(ivf, _faiss.IndexIVFPQ) and ivf.pq.M > FLOAT32_TABLES_CODES_MAX


class _GpuIndex:
    def __init__(self, index: Any, number: int, nbytes: int) -> None:
        self._index = index
        self._number = number
        self.nbytes = nbytes

    def search(self, parts: Sequence[Queries], k: int, nprobe: int) -> ScoredRows:
        parameters = _faiss.SearchParametersIVF(nprobe=nprobe)
        if not any(map(is_tensor, parts)):
            scores, rows = self._index.search(concatenated(parts), k, params=parameters)
            return scores, rows
        queries = on_gpu(concatenated(parts), self._number)
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        self._index.search_c(
            len(queries),
            _faiss.cast_integer_to_float_ptr(queries.data_ptr()),
            k,
            _faiss.swig_ptr(scores),
            _faiss.swig_ptr(rows),
            parameters,
        )
        return scores, rows


# ---------------------------------------------------------------- the stand-in


class HostDevice:
    """The CPU in place of a GPU."""

    def __init__(self, name: str = "CPU for a GPU") -> None:
        self._name = name

    @property
    def name(self) -> str:
        """For logs and status."""
        return self._name

    def upload(self, index: Any) -> DeviceIndex:
        """The CPU index itself. Raises RuntimeError where a GPU could not hold it."""
        if refusal := unsupported_reason(index):
            raise RuntimeError(refusal)
        return _HostIndex(index)


class _HostIndex:
    def __init__(self, index: Any) -> None:
        self._index = index
        self.nbytes = bytes_on_device(index)

    def search(self, parts: Sequence[Queries], k: int, nprobe: int) -> ScoredRows:
        if k > CANDIDATES_MAX or nprobe > PROBES_MAX:
            raise RuntimeError(f"asked for {k} candidates of {nprobe} lists")
        parameters = _faiss.SearchParametersIVF(nprobe=nprobe)
        with one_thread():
            scores, rows = self._index.search(to_host(concatenated(parts)), k, params=parameters)
        return scores, rows


def gpus_of_faiss(temp_bytes: int) -> tuple[list[FaissGpu], str]:
    """All GPUs of this machine, or why there are none."""
    if not hasattr(_faiss, "get_num_gpus") or not hasattr(_faiss, "StandardGpuResources"):
        return [], "this FAISS is built for CPUs: install simsearch[gpu] in place of [cpu]"
    count = int(_faiss.get_num_gpus())
    if not count:
        return [], "FAISS finds no GPU on this machine: see nvidia-smi"
    return [FaissGpu(number, temp_bytes) for number in range(count)], ""
