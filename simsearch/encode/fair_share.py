"""Fair share: while interactive and bulk work both wait, bulk is owed one part in eight of what is
spent.

The unit is its user's: seconds of a thread, or the cost of a batch.
"""

from __future__ import annotations

import math
from typing import Final

from simsearch.types import Priority

BULK_PARTS: Final = 8
"""Of what is spent while both priorities wait, one part in so many is bulk's."""


class FairShare:
    """What bulk is owed: so much of its own work as is due for what interactive spent. Whole
    numbers stay exact. Not thread-safe."""

    def __init__(self, owed_max: float = math.inf) -> None:
        """Bulk is never owed more than `owed_max`, nor is it ever further ahead."""
        self._bound = (BULK_PARTS - 1) * owed_max
        self._owed: float = 0

    def owes(self, cost: float) -> bool:
        """Whether bulk is owed work of this cost."""
        return self._owed >= (BULK_PARTS - 1) * cost

    def spend(self, priority: Priority, cost: float) -> None:
        """One priority took so much while the other waited."""
        change = cost if priority is Priority.INTERACTIVE else -(BULK_PARTS - 1) * cost
        self._owed = max(-self._bound, min(self._owed + change, self._bound))

    def clear(self) -> None:
        """Nobody waits for the other: nothing is owed."""
        self._owed = 0
