"""The context of a call: priority, deadline, cancellation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Whose work waits for whose: an upload in flight goes before a stocktaking."""

    INTERACTIVE = 0
    BULK = 1


def _always() -> bool:
    return True


@dataclass(frozen=True)
class CallContext:
    """For whom work is done, and how long it is worth anything. `deadline` is on the clock of
    time.monotonic(), in seconds; `is_wanted` turns False for good once the caller has gone."""

    priority: Priority = Priority.INTERACTIVE
    deadline: float = math.inf
    is_wanted: Callable[[], bool] = _always


NO_CALL = CallContext()


"""Work that nobody waits for with a deadline: builds, tests, edits."""
