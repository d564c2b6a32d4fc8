"""Channel options: gRPC's own load balancing, retries, health checks and keepalive, as configured
here for every call of a client.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simsearch.client.calls.rpcs import Rpc
from simsearch.errors import BadRequest

Options = tuple[tuple[str, int | str], ...]

MESSAGE_BYTES_MAX: Final = 32 << 20

RETRIED: Final = ("UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED")
"""No answer, a server that is not ready or closes its port (CANCELLED), and a full queue. Servers
forbid the retry of every other RESOURCE_EXHAUSTED, which no wait would help, by a negative
grpc-retry-pushback-ms."""

RETRIED_STREAMS: Final = tuple(code for code in RETRIED if code != "CANCELLED")
"""A stream ends when its client cancels it, and gRPC takes a token of the budget for each retryable
failure: CANCELLED would let streams spend it all. `sync_stream.Source` repeats those."""

ATTEMPTS_MAX: Final = 5
"""gRPC makes no more, whatever it is told."""

BUDGET_MAX: Final = 1000
"""gRPC's largest retryThrottling.maxTokens."""

BACKOFF_MIN_S: Final = 0.01
"""A wait that gRPC 1.85 rounds to 0 ms never ends before the deadline."""

KEEPALIVE_S: Final = 10
KEEPALIVE_TIMEOUT_S: Final = 5
"""A server that hangs is left out after at most both together. Servers permit a ping every 5 s."""

_OPTIONS: Final[Options] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # gRPC keeps what it may have to send again, by default up to 256 KiB: an image is larger.
    ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES_MAX + (1 << 20)),
    # A second client has connections of its own.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    # A ping that measures the bandwidth may be under way instead: gRPC gives it a minute.
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    # Else the third ping within which no data is sent waits for a minute, or for two hours.
    ("grpc.http2.max_pings_without_data", 0),
    # A server that restarts is found again before a call has made its last attempt, not within
    # gRPC's two minutes: meanwhile the other one may be restarting.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # Despite its name the longest that one attempt to connect may take; gRPC's is 20 s.
    ("grpc.min_reconnect_backoff_ms", 3_000),
)


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon gRPC repeats a call that may be repeated.

    `attempts_max` counts the first one; 5 at most. The wait before the n-th retry is
    backoff_s · 2^(n-1), at most backoff_max_s, give or take a fifth; a server's push-back replaces
    it. The budget is gRPC's retryThrottling: each failure takes one token, each answer gives
    `budget_per_answer` back, and while half or less is left nothing is retried, so that clients do
    not keep a server down.
    """

    attempts_max: int = 4
    backoff_s: float = 0.1
    backoff_max_s: float = 2.0
    budget: int = 100
    budget_per_answer: float = 0.1

    def __post_init__(self) -> None:
        """Raises BadRequest for what gRPC would ignore."""
        if not 1 <= self.attempts_max <= ATTEMPTS_MAX:
            raise BadRequest(f"attempts_max is {self.attempts_max}: 1 to {ATTEMPTS_MAX}")
        if not 1 <= self.budget <= BUDGET_MAX:
            raise BadRequest(f"budget is {self.budget}: 1 to {BUDGET_MAX}")
        if min(self.backoff_s, self.backoff_max_s) < BACKOFF_MIN_S:
            raise BadRequest(f"backoff_s and backoff_max_s are {BACKOFF_MIN_S} at least")
        if self.budget_per_answer < 0.001:
            raise BadRequest("budget_per_answer is 0.001 at least")


NO_RETRIES: Final = RetryPolicy(attempts_max=1)


def channel_options(
    retry: RetryPolicy, rpcs: Iterable[Rpc], *, checks_health: bool, authority: str = ""
) -> Options:
    """For one channel. `checks_health`: a server that says NOT_SERVING gets no calls."""
    config = json.dumps(service_config(retry, rpcs, checks_health=checks_health))
    named = (("grpc.default_authority", authority),) if authority else ()
    return (*_OPTIONS, ("grpc.service_config", config), *named)


def service_config(
    retry: RetryPolicy, rpcs: Iterable[Rpc], *, checks_health: bool
) -> dict[str, Any]:
    """gRPC's service config, as JSON has it. Edits are in no retry policy: one whose answer was
    lost may have happened."""
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if checks_health:
        config["healthCheckConfig"] = {"serviceName": ""}
    if retry.attempts_max > 1:
        config["retryThrottling"] = {
            "maxTokens": retry.budget,
            "tokenRatio": round(retry.budget_per_answer, 3),
        }
        repeated = [rpc for rpc in rpcs if rpc.idempotent]
        config["methodConfig"] = [
            _method_config(retry, [rpc for rpc in repeated if not rpc.is_stream], RETRIED),
            _method_config(retry, [rpc for rpc in repeated if rpc.is_stream], RETRIED_STREAMS),
        ]
    return config


def _method_config(retry: RetryPolicy, rpcs: Iterable[Rpc], codes: Sequence[str]) -> dict[str, Any]:
    return {
        "name": [{"service": rpc.service.name, "method": rpc.name} for rpc in rpcs],
        "retryPolicy": {
            "maxAttempts": retry.attempts_max,
            "initialBackoff": f"{retry.backoff_s:.3f}s",
            "maxBackoff": f"{retry.backoff_max_s:.3f}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": list(codes),
        },
    }
