"""Connections: several to each address, the least busy one first, a failing address put aside.

All addresses serve the same banks. Which of them answers is chosen call by call: those that are
well take turns, one that cannot be reached or is draining is left alone for a while that doubles,
and then one single call finds out whether it is back.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from simsearch.client.calls import Rpc
from simsearch.errors import BadRequest

MESSAGE_BYTES_MAX: Final = 32 << 20

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # Channels of equal options would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # A server with gRPC's defaults cuts off who pings more than every 5 minutes. What asking for
    # pings brings beside them costs servers nothing: a connection on which nothing that was sent
    # is acknowledged for 10 s (TCP_USER_TIMEOUT) is dead.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A server that restarts is found again before a call has made its last attempt, not within
    # gRPC's two minutes: meanwhile the other one may be restarting.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # Despite its name the longest that one attempt to connect may take; gRPC's is 20 s.
    ("grpc.min_reconnect_backoff_ms", 3_000),
)

ASIDE_S: Final = 0.2
ASIDE_MAX_S: Final = 10.0
PROBE_S: Final = 5.0
"""How long others wait for the one call that finds out whether an address is back."""

CHANNELS_MAX: Final = 4


def channels_by_default() -> int:
    """One connection for two cores: a connection's reading is one thread's work on both sides."""
    return min(CHANNELS_MAX, max(1, (os.cpu_count() or 1) // 2))


class Lane:
    """One connection, made when it is first used."""

    def __init__(self, endpoint: Endpoint, open_channel: Callable[[str], Any]) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self._open_channel = open_channel
        self._channel: Any = None
        self._stubs: dict[type[Any], Any] = {}

    @property
    def address(self) -> str:
        return self.endpoint.address

    @property
    def channel(self) -> Any:
        """None where it was never used."""
        return self._channel

    def open(self) -> None:
        if self._channel is None:
            self._channel = self._open_channel(self.address)

    def method(self, rpc: Rpc) -> Callable[..., Any]:
        stub = self._stubs.get(rpc.stub)
        if stub is None:  # two threads may both make one: they are alike
            stub = self._stubs[rpc.stub] = rpc.stub(self._channel)
        method: Callable[..., Any] = getattr(stub, rpc.name)
        return method


class Endpoint:
    """One address and how it has been doing."""

    def __init__(self, address: str, channels: int, open_channel: Callable[[str], Any]) -> None:
        self.address = address
        self.lanes = [Lane(self, open_channel) for _ in range(channels)]
        self.aside_until = 0.0
        self.failures = 0
        self.is_probed = False

    @property
    def in_flight(self) -> int:
        return sum(lane.in_flight for lane in self.lanes)


NOWHERE: Final[Mapping[Endpoint, int]] = MappingProxyType({})


class Pool:
    """Safe between threads. Times are on the clock of time.monotonic(), in seconds."""

    def __init__(
        self,
        addresses: Sequence[str],
        channels: int,
        open_channel: Callable[[str], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not addresses or channels < 1:
            raise BadRequest("a client needs at least one address and one channel to it")
        self._endpoints = [Endpoint(a, channels, open_channel) for a in dict.fromkeys(addresses)]
        self._turn = 0
        self._clock = clock
        self._lock = threading.Lock()

    def pick(self, *, may_probe: bool = True, failed: Mapping[Endpoint, int] = NOWHERE) -> Lane:
        """The lane for one attempt, until `give_back`: of the addresses that are well the one
        with the least in flight. Where all are aside, the one where this call `failed` least often
        and, of those, the one that is due back first: a client never refuses to try, and what was
        aside may have come back just before the last other one went. `may_probe` is False for a
        call that cannot be repeated: it does not go and see whether an address is back."""
        with self._lock:
            endpoint = self._best(may_probe, failed)
            lane = min(endpoint.lanes, key=lambda lane: lane.in_flight)
            lane.open()
            lane.in_flight += 1
            return lane

    def _best(self, may_probe: bool, failed: Mapping[Endpoint, int]) -> Endpoint:
        now = self._clock()
        self._turn += 1
        turn = self._turn % len(self._endpoints)
        order = self._endpoints[turn:] + self._endpoints[:turn]
        if may_probe:
            due = [e for e in order if e.failures and e.aside_until <= now and e not in failed]
            if due:
                due[0].aside_until, due[0].is_probed = now + PROBE_S, True
                return due[0]
        well = [e for e in order if e.aside_until <= now and not e.failures]
        if well:
            return min(well, key=lambda e: e.in_flight)
        return min(order, key=lambda e: (failed.get(e, 0), e.aside_until))

    def give_back(self, lane: Lane) -> None:
        with self._lock:
            lane.in_flight -= 1

    def is_well(self, endpoint: Endpoint) -> None:
        """It answered."""
        if endpoint.failures:
            with self._lock:
                endpoint.failures, endpoint.aside_until, endpoint.is_probed = 0, 0.0, False

    def put_aside(self, endpoint: Endpoint) -> None:
        """It could not be reached, or said that it is not ready. Many calls that fail at once
        count once."""
        with self._lock:
            now = self._clock()
            if endpoint.failures and endpoint.aside_until > now and not endpoint.is_probed:
                return
            endpoint.failures += 1
            endpoint.is_probed = False
            aside_s = min(ASIDE_MAX_S, ASIDE_S * 2.0 ** (endpoint.failures - 1))
            endpoint.aside_until = now + aside_s * random.uniform(0.8, 1.2)

    def leave_alone(self, endpoint: Endpoint, for_s: float) -> None:
        """It is there and busy: the others first, until it wants to be asked again."""
        with self._lock:
            endpoint.aside_until = max(endpoint.aside_until, self._clock() + for_s)

    def is_any_well(self) -> bool:
        """Whether the next attempt need not wait for the address of the last one."""
        now = self._clock()
        return any(not e.failures and e.aside_until <= now for e in self._endpoints)

    def aside(self) -> list[str]:
        """The addresses that are left alone now."""
        now = self._clock()
        return [e.address for e in self._endpoints if e.aside_until > now]

    def channels(self) -> list[Any]:
        """Those that were opened."""
        lanes = [lane for e in self._endpoints for lane in e.lanes]
        return [lane.channel for lane in lanes if lane.channel is not None]
