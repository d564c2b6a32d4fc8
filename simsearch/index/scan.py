"""The walk over a view's blocks that exact and Hamming search share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.index.blocks import FrozenBlock, FrozenRows, P, holds
from simsearch.index.ranking import NEVER, Closest, Limits, Pairs

P_contra = TypeVar("P_contra", bound=np.generic, contravariant=True)


class Proposed(NamedTuple):
    """Pairs of a query and a row of one block, with a gap that need not be exact."""

    query: NDArray[np.intp]
    at: NDArray[np.intp]
    gap: NDArray[np.float64]

    def only(self, which: NDArray[np.bool_]) -> Proposed:
        return Proposed(self.query[which], self.at[which], self.gap[which])


_NOBODY = np.empty(0, np.intp)
NOTHING = Proposed(_NOBODY, _NOBODY, np.empty(0, np.float64))


class Kernel(Protocol[P_contra]):
    """The arithmetic of one scale, for the few queries it was made with."""

    @property
    def queries(self) -> int: ...

    @property
    def slack(self) -> float:
        """How far a proposed gap may lie from the exact one."""
        ...

    def propose(self, payload: NDArray[P_contra], widest: float) -> Proposed:
        """Every pair whose proposed gap is at most `widest` + slack."""
        ...

    def decide(self, payload: NDArray[P_contra], pairs: Proposed) -> NDArray[np.float64]:
        """Their exact gaps."""
        ...


def scan_all(
    rows: FrozenRows[P], kernels: Iterable[Kernel[P]], limits: Limits, rows_max: int
) -> tuple[Pairs, NDArray[np.bool_]]:
    """`scan` of each kernel's queries, numbered on from those of the kernels before it."""
    found: list[Pairs] = []
    truncated = [np.zeros(0, np.bool_)]
    queries = 0
    for kernel in kernels:
        pairs, cut = scan(rows, kernel, limits, rows_max)
        found.append(pairs.numbered_from(queries))
        truncated.append(cut)
        queries += kernel.queries
    return Pairs.joined(found), np.concatenate(truncated)


def scan(
    rows: FrozenRows[P], kernel: Kernel[P], limits: Limits, rows_max: int
) -> tuple[Pairs, NDArray[np.bool_]]:
    """The matches of the kernel's queries in order, and which queries had more than rows_max."""
    closest = Closest(kernel.queries, rows_max, kernel.slack)
    for block in rows.blocks:
        limit_of_slot = limits.of(block.groups)
        widest = max(limit_of_slot, default=NEVER)
        if widest > NEVER:
            proposed = kernel.propose(block.payload, widest)
            if len(proposed.query):
                closest.add(_matches(block, kernel, proposed, np.array(limit_of_slot), closest))
    return closest.ranked(), closest.truncated


def _matches(
    block: FrozenBlock[P],
    kernel: Kernel[P],
    proposed: Proposed,
    limit_of_slot: NDArray[np.float64],
    closest: Closest,
) -> Pairs:
    """The pairs whose row is alive, whose group is asked and whose exact gap is in its limit."""
    limit = limit_of_slot[block.slots(proposed.at)]
    possible = (proposed.gap <= limit + kernel.slack) & ~holds(block.dead, proposed.at)
    proposed, limit = proposed.only(possible), limit[possible]
    worth = closest.worth_scoring(
        proposed.query, proposed.gap, sure=proposed.gap <= limit - kernel.slack
    )
    proposed, limit = proposed.only(worth), limit[worth]
    gap = kernel.decide(block.payload, proposed)
    inside = gap <= limit
    query, at = proposed.query[inside], proposed.at[inside]
    return Pairs(query, block.start + at, block.keys(at), block.group_ids(at), gap[inside])
