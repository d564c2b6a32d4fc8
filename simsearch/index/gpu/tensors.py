"""Query tensors: queries as numpy arrays or torch tensors, on the host or on a GPU.

torch is imported when the first tensor is passed. faiss.contrib.torch_utils is not used: it
replaces `search` of every FAISS index of the process by one without `params`, which the CPU's
searches need. It only passes the address of a tensor, and so does device.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from simsearch.types import Vectors

Queries: TypeAlias = Any
"""Vectors, or (n, dim) of them as a torch tensor or anything with __cuda_array_interface__."""


def is_tensor(queries: Queries) -> bool:
    """Whether they are a torch tensor or an array on a GPU."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(queries).__mro__}
    return "torch" in kinds or hasattr(queries, "__cuda_array_interface__")


def to_host(queries: Queries) -> Vectors:
    """As a contiguous float32 array in host memory; a copy where they are on a GPU."""
    if is_tensor(queries):
        queries = _tensor(queries).cpu().numpy()
    return np.ascontiguousarray(queries, np.float32)


def concatenated(parts: Sequence[Queries]) -> Queries:
    """All parts, one after the other; a tensor on the device of the first tensor, if any."""
    tensors = [part for part in parts if is_tensor(part)]
    if not tensors:
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    import torch

    device = _tensor(tensors[0]).device
    return torch.cat([_tensor(part).to(device) for part in parts])


def selected(queries: Queries, which: NDArray[np.bool_]) -> Queries:
    """The queries of a mask."""
    if not is_tensor(queries):
        return queries[which]
    import torch

    return queries[torch.from_numpy(np.flatnonzero(which)).to(queries.device)]


def on_gpu(queries: Queries, number: int) -> Any:
    """A contiguous float32 tensor on GPU `number`, after all work that it depends on: FAISS uses
    streams of its own, which do not wait for torch's."""
    import torch

    tensor = _tensor(queries).to(f"cuda:{number}").contiguous()
    torch.cuda.current_stream(tensor.device).synchronize()
    return tensor


class QueryArray:
    """The queries of one search, on the host or on a GPU. Indexing with rows copies those to the
    host: exact re-ranking needs only the few with a candidate."""

    def __init__(self, queries: Queries) -> None:
        self._queries: Any = _tensor(queries) if is_tensor(queries) else to_host(queries)

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, dim)."""
        return tuple(self._queries.shape)

    def __getitem__(self, rows: NDArray[np.integer]) -> Vectors:
        if not is_tensor(self._queries):
            return cast(Vectors, self._queries[rows])
        import torch

        few, place = np.unique(rows, return_inverse=True)
        return to_host(self._queries[torch.from_numpy(few).to(self._queries.device)])[place]

    def part(self, at: slice) -> QueryArray:
        """A slice of the queries."""
        return QueryArray(self._queries[at])

    def unit(self) -> Queries:
        """Divided by their length, on the same device; ready for other threads and streams."""
        if not is_tensor(self._queries):
            lengths = np.sqrt(np.einsum("ij,ij->i", self._queries, self._queries))
            return self._queries / lengths[:, np.newaxis]
        unit = self._queries / self._queries.norm(dim=1, keepdim=True)
        if unit.is_cuda:
            import torch

            torch.cuda.current_stream(unit.device).synchronize()
        return unit

    def host(self) -> Vectors:
        """All of them in host memory."""
        return to_host(self._queries)


def _tensor(queries: Queries) -> Any:
    import torch

    return torch.as_tensor(queries).detach().to(torch.float32)
