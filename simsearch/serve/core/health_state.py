"""Health state: the readiness flag and the results of the last canary probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Component(StrEnum):
    """What a check of the canary covers."""

    CONTENT = "content"
    """Canary content, decoded, encoded and matched."""
    INDEX = "index"
    """Stored rows, searched for in the index."""
    FOLLOWER = "follower"
    """Edits become visible to searches."""
    TIME = "time"
    """Probes end in time."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. `signal` is the id of a space, the name of a hash, or empty; `fault`
    says what is wrong and what to do, and is empty if nothing is."""

    component: Component
    signal: str = ""
    fault: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.fault


class HealthState:
    """Written by the canary and the health monitor, read by GetStatus and the metrics."""

    def __init__(self) -> None:
        self.ready = False
        self.results: Sequence[CheckResult] = ()
        self.probe_s = 0.0
        """Duration of the last probe that ended in time."""
