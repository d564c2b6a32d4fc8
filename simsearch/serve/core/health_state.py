"""How a server stands: what its canary found, and whether it says that it is ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Component(StrEnum):
    """What a finding is about."""

    CONTENT = "content"
    """Known content, decoded, encoded and matched."""
    INDEX = "index"
    """Rows of the bank, looked up in what is searched."""
    FOLLOWER = "follower"
    """Edits reach searches."""
    TIME = "time"
    """The probe came to an end."""


@dataclass(frozen=True)
class CheckResult:
    """What one question of the canary came to. `signal` is a space's id or the name of a hash, or
    empty; `fault` says what is wrong and what to do, and is empty where all is right."""

    part: Component
    signal: str = ""
    fault: str = ""

    @property
    def right(self) -> bool:
        return not self.fault


@dataclass(frozen=True)
class StandingCounts:
    """Probes by how they ended; seconds of the last one that came to its end."""

    right: int = 0
    wrong: int = 0
    late: int = 0
    last_s: float = 0.0


class HealthState:
    """Written by the canary and whoever sets health, read by GetStatus and the metrics."""

    def __init__(self) -> None:
        self.ready = False
        self.findings: Sequence[CheckResult] = ()
        self.counts = StandingCounts()
