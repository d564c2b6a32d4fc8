"""Block scan: the loop over the blocks of a view that cosine and Hamming search share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.index.flat.row_blocks import FrozenBlock, FrozenRows, P
from simsearch.index.ranking import NEVER, Closest, Limits, Pairs
from simsearch.index.tombstones import contains

P_contra = TypeVar("P_contra", bound=np.generic, contravariant=True)


class CandidatePairs(NamedTuple):
    """Candidate pairs of a query and a row of one block (`at`), with an approximate gap."""

    query: NDArray[np.intp]
    at: NDArray[np.intp]
    gap: NDArray[np.float64]

    def only(self, which: NDArray[np.bool_]) -> CandidatePairs:
        """Those that `which` selects."""
        return CandidatePairs(self.query[which], self.at[which], self.gap[which])


_NO_INDICES = np.empty(0, np.intp)
NO_CANDIDATES = CandidatePairs(_NO_INDICES, _NO_INDICES, np.empty(0, np.float64))


class Kernel(Protocol[P_contra]):
    """The arithmetic of one distance measure, for the few queries it was made with."""

    @property
    def queries(self) -> int:
        """How many queries it was made with."""
        ...

    @property
    def slack(self) -> float:
        """How far an approximate gap may lie from the exact one."""
        ...

    def propose(self, payload: NDArray[P_contra], widest: float) -> CandidatePairs:
        """Every pair whose approximate gap is at most `widest` + slack."""
        ...

    def decide(self, payload: NDArray[P_contra], pairs: CandidatePairs) -> NDArray[np.float64]:
        """The exact gaps of `pairs`."""
        ...


def scan_all(
    rows: FrozenRows[P], kernels: Iterable[Kernel[P]], limits: Limits, rows_max: int
) -> tuple[Pairs, NDArray[np.bool_]]:
    """The matches of all kernels' queries in order, and which queries had more than rows_max.

    Queries are numbered on from kernel to kernel. Every kernel sees a block before the next block
    is read, so that a batch fetches the rows from memory once.
    """
    scans = [(kernel, Closest(kernel.queries, rows_max, kernel.slack)) for kernel in kernels]
    for block in rows.blocks:
        widest = limits.widest(block.groups)
        if widest > NEVER:
            payload = block.payload
            for kernel, closest in scans:
                proposed = kernel.propose(payload, widest)
                if len(proposed.query):
                    limit_of_slot = np.array(limits.of(block.groups))
                    closest.add(_matches(block, kernel, proposed, limit_of_slot, closest))
    return _joined(scans)


def _joined(
    scans: Sequence[tuple[Kernel[P], Closest]],
) -> tuple[Pairs, NDArray[np.bool_]]:
    found: list[Pairs] = []
    truncated = [np.zeros(0, np.bool_)]
    queries = 0
    for kernel, closest in scans:
        pairs = closest.ranked()
        if len(pairs):
            found.append(pairs.numbered_from(queries))
        truncated.append(closest.truncated)
        queries += kernel.queries
    return Pairs.joined(found), np.concatenate(truncated)


def _matches(
    block: FrozenBlock[P],
    kernel: Kernel[P],
    proposed: CandidatePairs,
    limit_of_slot: NDArray[np.float64],
    closest: Closest,
) -> Pairs:
    """The pairs whose row is alive and whose exact gap is within the limit of its group."""
    limit = limit_of_slot[block.slots(proposed.at)]
    possible = (proposed.gap <= limit + kernel.slack) & ~contains(block.dead, proposed.at)
    proposed, limit = proposed.only(possible), limit[possible]
    worth = closest.worth_scoring(
        proposed.query, proposed.gap, sure=proposed.gap <= limit - kernel.slack
    )
    proposed, limit = proposed.only(worth), limit[worth]
    gap = kernel.decide(block.payload, proposed)
    inside = gap <= limit
    query, at = proposed.query[inside], proposed.at[inside]
    return Pairs(query, block.start + at, block.keys(at), block.group_ids(at), gap[inside])
