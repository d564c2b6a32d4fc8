"""When a failed call is tried again: pure arithmetic of attempts, waits and what is left.

gRPC has retries of its own and they are not used (no service config says so): they give up on any
request over 256 KiB, which is what an image is; they stay on one channel, where a second address
may serve; and they cannot tell a queue that is full for 100 ms from a message that will always be
too large. Its transparent retries stay on: those are calls that no server has seen, edits too.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from simsearch.client.transport.error_mapping import Refusal

RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""No answer, or a server that says that it is not there yet or about to go."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon a call that changes nothing is tried again.

    The wait before the n-th retry is backoff_s · 2^(n-1), at most backoff_max_s, give or take a
    half; a server that says when to come back is believed instead. The budget is gRPC's
    retryThrottling: each failure takes one token, each answer gives `budget_per_answer` back, and
    while half or less is left nothing is retried, so that clients do not keep a server down.
    """

    attempts_max: int = 4
    backoff_s: float = 0.1
    backoff_max_s: float = 2.0
    budget: int = 100
    budget_per_answer: float = 0.1


NO_RETRIES = RetryPolicy(attempts_max=1)


class RetryBudget:
    """Tokens that all calls of one client share. Safe between threads."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._max = float(policy.budget)
        self._per_answer = policy.budget_per_answer
        self._tokens = self._max
        self._lock = threading.Lock()

    def answered(self) -> None:
        with self._lock:
            self._tokens = min(self._max, self._tokens + self._per_answer)

    def failed(self) -> bool:
        """Take one token; True where a retry can still be afforded."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1)
            return self._tokens > self._max / 2


class Attempts:
    """How far one call has come. `deadline` is on the clock of time.monotonic(), in seconds."""

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget,
        *,
        idempotent: bool,
        deadline: float,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._idempotent = idempotent
        self._deadline = deadline
        self._spread = spread
        self._failed = 0
        self.held_back = False
        """The last failure was final only because the budget was spent."""

    def wait_after(self, refusal: Refusal, now: float, *, elsewhere: bool) -> float | None:
        """Seconds to wait before the next attempt, or None where this failure is final.
        `elsewhere`: another address is well, so that this one need not be waited for."""
        self._failed += 1
        if not is_passing(refusal):
            return None
        affordable = self._budget.failed()
        if not self._idempotent or self._failed >= self._policy.attempts_max:
            return None
        wait_s = self._wait_s(refusal, elsewhere)
        if wait_s is None or now + wait_s >= self._deadline:
            return None
        self.held_back = not affordable
        return wait_s if affordable else None

    def _wait_s(self, refusal: Refusal, elsewhere: bool) -> float | None:
        if refusal.pushback_ms is not None:
            asked_s = refusal.pushback_ms / 1000
            return asked_s * (1 + self._spread() / 4) if asked_s >= 0 else None
        if elsewhere:
            return 0.0
        wait_s = self._policy.backoff_s * 2 ** (self._failed - 1)
        return min(wait_s, self._policy.backoff_max_s) * (0.5 + self._spread())


def is_passing(refusal: Refusal) -> bool:
    """Whether the same call may well succeed a little later. A resource is exhausted for a while
    only where the server says for how long: a message that is too large stays so."""
    if refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return refusal.pushback_ms is not None
    return refusal.code in RETRIED
