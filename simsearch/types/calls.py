"""The context of a call: priority, deadline, cancellation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Scheduling class of a call: INTERACTIVE for an upload in flight, BULK for a rescan."""

    INTERACTIVE = 0
    BULK = 1


def _always() -> bool:
    return True


@dataclass(frozen=True)
class CallContext:
    """Priority, deadline and cancellation of the call being served. `deadline` is in seconds of
    time.monotonic(); `is_wanted` turns False for good once the caller has cancelled."""

    priority: Priority = Priority.INTERACTIVE
    deadline: float = math.inf
    is_wanted: Callable[[], bool] = _always


NO_CALL = CallContext()
"""Work without a deadline: builds, tests, edits."""
