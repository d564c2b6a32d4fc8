"""What gRPC is told: which calls it may repeat, and within what bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simsearch.client.calls.rpcs import RPCS
from simsearch.client.transport.service_config import (
    KEEPALIVE_S,
    NO_RETRIES,
    RetryPolicy,
    channel_options,
    service_config,
)
from simsearch.errors import BadRequest
from simsearch.serve.transport.port import PING_INTERVAL_MIN_S


def config(policy: RetryPolicy, *, checks_health: bool = True) -> dict[str, Any]:
    return service_config(policy, RPCS, checks_health=checks_health)


def test_every_call_but_edits_may_be_repeated() -> None:
    methods = config(RetryPolicy())["methodConfig"]
    names = [(name["service"], name["method"]) for method in methods for name in method["name"]]
    assert sorted(names) == sorted((r.service.name, r.name) for r in RPCS if r.idempotent)


def test_the_policy_is_grpcs() -> None:
    told = config(RetryPolicy(3, 0.25, 1.5, 50, 0.2))
    method, of_streams = told["methodConfig"]
    assert "CANCELLED" not in of_streams["retryPolicy"]["retryableStatusCodes"]
    assert method["retryPolicy"]["maxAttempts"] == 3
    assert method["retryPolicy"]["initialBackoff"] == "0.250s"
    assert method["retryPolicy"]["maxBackoff"] == "1.500s"
    assert told["retryThrottling"] == {"maxTokens": 50, "tokenRatio": 0.2}


def test_without_retries_nothing_is_said_of_them() -> None:
    """gRPC refuses a policy of one attempt."""
    assert config(NO_RETRIES, checks_health=False) == {"loadBalancingConfig": [{"round_robin": {}}]}


def test_options_carry_the_config_and_the_name() -> None:
    options = dict(channel_options(RetryPolicy(), RPCS, checks_health=True, authority="a.example"))
    assert json.loads(str(options["grpc.service_config"])) == config(RetryPolicy())
    assert options["grpc.default_authority"] == "a.example"


@pytest.mark.parametrize(
    "bad",
    [
        {"attempts_max": 0},
        {"attempts_max": 6},
        {"backoff_s": 0.001},
        {"backoff_max_s": 0.0},
        {"budget": 0},
        {"budget": 1001},
        {"budget_per_answer": 0.0},
    ],
)
def test_what_grpc_would_ignore_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        RetryPolicy(**bad)


def test_servers_permit_the_pings_of_clients() -> None:
    """With room for one that comes early."""
    assert PING_INTERVAL_MIN_S * 2 <= KEEPALIVE_S
