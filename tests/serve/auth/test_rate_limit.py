"""Quotas: items a second and calls at a time, on a clock that the test moves."""

from __future__ import annotations

import pytest

from simsearch.errors import Overloaded
from simsearch.serve.auth.identity import Identity, Quota
from simsearch.serve.auth.rate_limit import RateLimits, TokenBucket
from simsearch.types import EVERY_BANK


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def charged(bucket: TokenBucket, items: int) -> int:
    """0 where it was let in, else the hint in milliseconds."""
    try:
        bucket.charge(items)
    except Overloaded as refusal:
        return refusal.retry_after_ms
    return 0


def test_a_seconds_worth_at_once_and_then_no_more(clock: Clock) -> None:
    """Ten a second: ten now, the eleventh when there is room for it, and not before."""
    bucket = TokenBucket(Quota(items_per_s=10.0), clock)
    assert [charged(bucket, 1) for _ in range(10)] == [0] * 10
    assert charged(bucket, 1) == 100
    clock.now += 0.05
    assert charged(bucket, 1) == 50
    clock.now += 0.05
    assert charged(bucket, 1) == 0
    assert charged(bucket, 1) == 100


def test_a_refused_call_costs_nothing(clock: Clock) -> None:
    """Or those who keep asking would never get in."""
    bucket = TokenBucket(Quota(items_per_s=10.0), clock)
    bucket.charge(10)
    hints = [charged(bucket, 5) for _ in range(50)]
    assert hints == [500] * 50
    clock.now += 0.5
    assert charged(bucket, 5) == 0


def test_what_is_not_used_is_not_saved_up(clock: Clock) -> None:
    """An hour of silence is worth a second's burst, no more."""
    bucket = TokenBucket(Quota(items_per_s=10.0), clock)
    clock.now += 3600
    assert charged(bucket, 10) == 0
    assert charged(bucket, 1) == 100


def test_a_batch_weighs_its_items(clock: Clock) -> None:
    """One call of 30 leaves nothing for the next three seconds, at 10 a second."""
    bucket = TokenBucket(Quota(items_per_s=10.0), clock)
    assert charged(bucket, 30) == 0
    assert charged(bucket, 1) == 2100
    clock.now += 2.0
    assert charged(bucket, 1) == 100
    clock.now += 0.2
    assert charged(bucket, 1) == 0


def test_the_rate_holds_in_the_long_run(clock: Clock) -> None:
    """However large the batches: over 100 s at 7 a second, at most 700 and a burst are let in."""
    for size in (1, 3, 7, 50):
        bucket, admitted, began = TokenBucket(Quota(items_per_s=7.0), clock), 0, clock.now
        while clock.now < began + 100:
            if charged(bucket, size) == 0:
                admitted += size
            else:
                clock.now += 0.01
        assert 700 - size <= admitted <= 700 + 7 + size


def test_a_rate_under_one_lets_a_single_item_in(clock: Clock) -> None:
    """One a minute is a quota too."""
    bucket = TokenBucket(Quota(items_per_s=1 / 60), clock)
    assert charged(bucket, 1) == 0
    assert charged(bucket, 1) == pytest.approx(60_000, abs=1)


def test_calls_in_flight_are_bounded(clock: Clock) -> None:
    """Room again as soon as one has ended."""
    bucket = TokenBucket(Quota(in_flight_max=2), clock)
    bucket.begin_call()
    bucket.begin_call()
    with pytest.raises(Overloaded, match="2 of your calls"):
        bucket.begin_call()
    bucket.end_call()
    bucket.begin_call()
    assert bucket.in_flight == 2


def test_a_refused_call_is_not_in_flight(clock: Clock) -> None:
    """And is charged nothing, where it is one call too many."""
    bucket = TokenBucket(Quota(items_per_s=10.0, in_flight_max=1), clock)
    bucket.begin_call(4)
    with pytest.raises(Overloaded, match="1 of your calls"):
        bucket.begin_call(6)
    bucket.end_call()
    with pytest.raises(Overloaded, match="items a second"):
        bucket.begin_call(7)
    assert bucket.in_flight == 0
    bucket.begin_call(6)


def test_no_quota_is_no_bound(clock: Clock) -> None:
    bucket = TokenBucket(Quota(), clock)
    assert charged(bucket, 10**9) == 0
    for _ in range(1_000):
        bucket.begin_call()


def someone(quota: Quota) -> Identity:
    return Identity("someone", frozenset(), EVERY_BANK, EVERY_BANK, quota=quota)


def test_a_changed_quota_holds_at_once_and_forgives_nothing(clock: Clock) -> None:
    """Who has used up a second's worth does not get another by an edit of the file."""
    limits = RateLimits(clock)
    limits.of(someone(Quota(items_per_s=10.0))).charge(10)
    changed = limits.of(someone(Quota(items_per_s=20.0)))
    assert charged(changed, 1) == 50
    bounded = limits.of(someone(Quota(items_per_s=20.0, in_flight_max=1)))
    bounded.begin_call()
    with pytest.raises(Overloaded):
        bounded.begin_call()


def test_each_identity_has_an_account_of_its_own(clock: Clock) -> None:
    limits = RateLimits(clock)
    quota = Quota(items_per_s=1.0)
    other = Identity("other", frozenset(), EVERY_BANK, EVERY_BANK, quota=quota)
    limits.of(someone(quota)).charge(1)
    assert charged(limits.of(other), 1) == 0
    assert charged(limits.of(someone(quota)), 1) == 1000
