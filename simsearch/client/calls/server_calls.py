"""Server calls: status, default policy, health."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from simsearch.client.calls.call_spec import CallSpec, whole
from simsearch.client.calls.rpcs import CHECK_HEALTH, GET_STATUS
from simsearch.types import Policy
from simsearch.v1 import index_pb2
from simsearch.wire import policy_from


def status(*, deadline_s: float | None = None) -> CallSpec[index_pb2.GetStatusResponse]:
    """What the server searches with."""
    return CallSpec(GET_STATUS, index_pb2.GetStatusRequest(), whole, deadline_s)


def default_policy(*, deadline_s: float | None = None) -> CallSpec[Policy]:
    """What a bank gets whose creator names no policy."""
    return CallSpec(GET_STATUS, index_pb2.GetStatusRequest(), _default_policy, deadline_s)


def _default_policy(reply: index_pb2.GetStatusResponse) -> Policy:
    return policy_from(reply.default_policy, space_id=str)


def is_serving(*, deadline_s: float | None = None) -> CallSpec[bool]:
    """True once the server answers searches; False while it loads or drains, or all of several
    servers do."""
    return CallSpec(CHECK_HEALTH, health_pb2.HealthCheckRequest(), _serving, deadline_s)


def _serving(reply: health_pb2.HealthCheckResponse) -> bool:
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
