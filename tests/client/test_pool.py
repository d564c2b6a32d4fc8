"""Which connection a call gets, without any."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simsearch.client.pool import ASIDE_MAX_S, ASIDE_S, PROBE_S, Endpoint, Pool
from simsearch.errors import BadRequest


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pool_of(clock: Callable[[], float], *addresses: str, channels: int = 1) -> Pool:
    return Pool(addresses, channels, lambda address: object(), clock)


def picks(pool: Pool, count: int) -> list[str]:
    """Addresses of calls that follow each other."""
    found = []
    for _ in range(count):
        priority = pool.pick()
        pool.give_back(priority)
        found.append(priority.address)
    return found


def endpoint(pool: Pool, address: str) -> Endpoint:
    return next(e for e in pool._endpoints if e.address == address)


def test_addresses_take_turns(clock: Clock) -> None:
    assert sorted(picks(pool_of(clock, "a", "b", "c"), 6)) == ["a", "a", "b", "b", "c", "c"]


def test_the_least_busy_connection_is_taken(clock: Clock) -> None:
    """Calls at the same time spread over addresses and connections; one alone keeps to one."""
    pool = pool_of(clock, "a", "b", channels=2)
    priorities = [pool.pick() for _ in range(8)]
    assert {id(priority) for priority in priorities} == {
        id(priority) for priority in priorities[:4]
    }
    assert all(priority.in_flight == 2 for priority in priorities)
    for priority in priorities:
        pool.give_back(priority)
    picks(pool, 10)
    fresh = pool_of(clock, "a", channels=4)
    picks(fresh, 10)
    assert len(fresh.channels()) == 1


def test_an_address_that_failed_is_left_alone_for_longer_and_longer(clock: Clock) -> None:
    """Up to a longest; a crowd that fails at once counts once."""
    pool = pool_of(clock, "a", "b")
    bad = endpoint(pool, "a")
    times = []
    for _ in range(12):
        for _ in range(50):
            pool.put_aside(bad)
        times.append(bad.aside_until - clock.now)
        assert set(picks(pool, 4)) == {"b"}
        clock.now = bad.aside_until + 0.001
    assert 0.8 * ASIDE_S <= times[0] <= 1.2 * ASIDE_S
    assert 0.8 * 2 * ASIDE_S <= times[1] <= 1.2 * 2 * ASIDE_S
    assert 0.8 * ASIDE_MAX_S <= times[-1] <= 1.2 * ASIDE_MAX_S


def test_one_call_finds_out_whether_an_address_is_back(clock: Clock) -> None:
    """The others do not go there until it is answered; a failed probe doubles the wait; a probe
    that never ends is followed by another."""
    pool = pool_of(clock, "a", "b")
    bad = endpoint(pool, "a")
    pool.put_aside(bad)
    clock.now += 1
    probe = pool.pick()
    assert probe.address == "a"
    assert picks(pool, 5) == ["b"] * 5
    pool.put_aside(bad)
    assert bad.failures == 2
    pool.give_back(probe)
    clock.now += 1
    assert picks(pool, 2) == ["a", "b"]
    clock.now += PROBE_S
    assert picks(pool, 2) == ["a", "b"]
    pool.is_well(bad)
    assert set(picks(pool, 4)) == {"a", "b"}


def test_an_edit_is_no_probe(clock: Clock) -> None:
    """What cannot be repeated goes where it is known to be well."""
    pool = pool_of(clock, "a", "b")
    pool.put_aside(endpoint(pool, "a"))
    clock.now += 60
    assert [pool.pick(may_probe=False).address for _ in range(4)] == ["b"] * 4


def test_where_all_are_aside_the_one_due_first_is_tried(clock: Clock) -> None:
    """A client never refuses to try."""
    pool = pool_of(clock, "a", "b")
    pool.put_aside(endpoint(pool, "b"))
    clock.now += 0.1
    pool.put_aside(endpoint(pool, "a"))
    assert pool.pick().address == "b"
    assert not pool.is_any_well()


def test_where_all_are_aside_a_call_goes_on_to_where_it_has_not_failed(clock: Clock) -> None:
    """The other one, aside for long, may have come back just before this one went."""
    pool = pool_of(clock, "a", "b")
    for _ in range(6):
        clock.now = endpoint(pool, "a").aside_until
        pool.pick()
        pool.put_aside(endpoint(pool, "a"))
    pool.put_aside(endpoint(pool, "b"))
    failed = {endpoint(pool, "b"): 1}
    assert pool.pick(failed=failed).address == "a"
    assert pool.pick(failed=failed | {endpoint(pool, "a"): 1}).address == "b"
    clock.now = endpoint(pool, "b").aside_until
    assert pool.pick(failed=failed).address == "a"
    assert pool.pick().address == "b"


def test_a_busy_address_is_asked_last_until_it_wants_to_be(clock: Clock) -> None:
    """It is not ill: when its time has come it is one of all again."""
    pool = pool_of(clock, "a", "b")
    pool.leave_alone(endpoint(pool, "a"), 0.5)
    assert picks(pool, 4) == ["b"] * 4
    assert pool.aside() == ["a"]
    clock.now += 0.6
    assert set(picks(pool, 4)) == {"a", "b"}


def test_a_connection_that_cannot_be_opened_is_not_counted_as_busy(clock: Clock) -> None:
    """As where a certificate's file is gone."""

    def broken(address: str) -> object:
        raise BadRequest("no such file")

    pool = Pool(["a"], 1, broken, clock)
    with pytest.raises(BadRequest):
        pool.pick()
    assert endpoint(pool, "a").in_flight == 0


@pytest.mark.parametrize(("addresses", "channels"), [((), 1), (("a",), 0)])
def test_no_address_and_no_channel_are_refused(addresses: tuple[str, ...], channels: int) -> None:
    with pytest.raises(BadRequest):
        Pool(addresses, channels, lambda address: object())
