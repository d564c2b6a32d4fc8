"""One call from its first attempt to its last: what the two clients share apart from waiting."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc

from simsearch.client.calls import Rpc
from simsearch.client.credentials import Metadata
from simsearch.client.pool import Endpoint, Pool, Priority
from simsearch.client.retry import Attempts, RetryBudget, RetryPolicy
from simsearch.client.transport.error_mapping import Refusal, refusal_from
from simsearch.errors import BadRequest, NotReady, SimsearchError, Unreachable


@dataclass(frozen=True)
class ClientCounts:
    """What a client has done so far. `held_back`: retries that the budget did not allow.
    `batched` contents went to the server in `batches`; the others went by themselves."""

    attempts: int = 0
    failures: int = 0
    retries: int = 0
    held_back: int = 0
    batches: int = 0
    batched: int = 0


class Counter:
    """Plain sums, safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = dict.fromkeys(ClientCounts.__dataclass_fields__, 0)

    def add(self, **more: int) -> None:
        with self._lock:
            for name, count in more.items():
                self._sums[name] += count

    def snapshot(self) -> ClientCounts:
        with self._lock:
            return ClientCounts(**self._sums)


class Sender:
    """The state that all calls of a client share: connections, budget, counts, and an end."""

    def __init__(
        self,
        addresses: Sequence[str],
        open_channel: Callable[[str], Any],
        *,
        deadline_s: float,
        channels: int,
        retry: RetryPolicy,
        metadata: Metadata,
    ) -> None:
        if not 0 < deadline_s < math.inf:
            raise BadRequest(f"deadline_s is {deadline_s}: give every call some time, and an end")
        self.addresses = tuple(addresses)
        self.metadata = metadata
        self.pool = Pool(addresses, channels, open_channel)
        self.retry = retry
        self.budget = RetryBudget(retry)
        self.counter = Counter()
        self.closed = threading.Event()
        self.deadline_s = deadline_s

    def deadline_of(self, deadline_s: float | None) -> float:
        """On the clock of time.monotonic()."""
        return time.monotonic() + (self.deadline_s if deadline_s is None else deadline_s)

    def begin(self, rpc: Rpc, deadline: float, after: SimsearchError | None = None) -> Run:
        """A call that is to be answered by the deadline; `after` is how it failed before, as an
        item of a batch. Raises Unreachable on a closed client."""
        if self.closed.is_set():
            raise self.is_closed()
        return Run(self, rpc, deadline, after)

    def is_closed(self) -> Unreachable:
        return Unreachable("this client is closed: open another one")

    def too_late(self) -> Unreachable:
        """For a call that is given up before any server was asked, or had time to answer."""
        return Unreachable(
            f"no answer from {' or '.join(self.addresses)} (DEADLINE_EXCEEDED): give calls more "
            "time, or the server fewer"
        )


class Run:
    """One call's attempts. Each is a `with` block around the sending; a failure ends the block,
    not the caller, and says whether and when there is another attempt:

        while not run.is_over:
            with run as lane:
                return ...send...
            ...wait run.wait_s...
        raise run.error
    """

    def __init__(
        self, sender: Sender, rpc: Rpc, deadline: float, after: SimsearchError | None
    ) -> None:
        self._sender = sender
        self._rpc = rpc
        self._deadline = deadline
        self._attempts = Attempts(
            sender.retry, sender.budget, idempotent=rpc.idempotent, deadline=deadline
        )
        self._lane: Lane | None = None
        self._failed_at: Counts[Endpoint] = Counts()
        self.is_over = False
        self.wait_s = 0.0
        self.error: SimsearchError = sender.too_late()
        if after is not None:
            self._fail(_as_refusal(after))

    def left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def __enter__(self) -> Lane:
        self._lane = self._sender.pool.pick(may_probe=self._rpc.idempotent, failed=self._failed_at)
        return self._lane

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        lane, self._lane = self._lane, None
        assert lane is not None
        self._sender.pool.give_back(lane)
        self._sender.counter.add(attempts=1)
        if error is None:
            self._answered(lane)
            return False
        if self._sender.closed.is_set() and _is_end_of_channel(error):
            self.is_over, self.error = True, self._sender.is_closed()
            return True
        if not isinstance(error, grpc.RpcError):
            return False
        refusal = refusal_from(error, lane.address)
        self._failed_at[lane.endpoint] += 1
        self._judge(lane.endpoint, refusal)
        self._fail(refusal)
        return True

    def _answered(self, lane: Lane) -> None:
        self._sender.budget.answered()
        self._sender.pool.is_well(lane.endpoint)

    def _judge(self, endpoint: Endpoint, refusal: Refusal) -> None:
        """What a failure says about the address."""
        pool = self._sender.pool
        if refusal.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            pool.put_aside(endpoint)
        elif refusal.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            pool.is_well(endpoint)
            if refusal.pushback_ms is not None and refusal.pushback_ms > 0:
                pool.leave_alone(endpoint, refusal.pushback_ms / 1000)

    def _fail(self, refusal: Refusal) -> None:
        elsewhere = self._sender.pool.is_any_well()
        wait_s = self._attempts.wait_after(refusal, time.monotonic(), elsewhere=elsewhere)
        self.error = refusal.error
        self.is_over = wait_s is None
        self.wait_s = wait_s or 0.0
        self._sender.counter.add(
            failures=1, retries=wait_s is not None, held_back=self._attempts.held_back
        )


def _is_end_of_channel(error: BaseException) -> bool:
    """How grpc and grpc.aio end calls of a channel that is closed under them. A task that is
    itself being cancelled is told apart: its CancelledError must go on."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or not task.cancelling()
    return isinstance(error, grpc.RpcError | ValueError | grpc.aio.UsageError)


def _as_refusal(error: SimsearchError) -> Refusal:
    """An item's error as if a call of its own had failed with it."""
    pushback_ms = getattr(error, "retry_after_ms", None)
    code = grpc.StatusCode.UNAVAILABLE
    if not isinstance(error, NotReady):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return Refusal(error, code, pushback_ms)
