"""The arithmetic of trying again, without a network."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.client.retry import Attempts, RetryBudget, RetryPolicy
from simsearch.client.transport.error_mapping import Refusal
from simsearch.errors import SimsearchError

POLICY = RetryPolicy()
DOWN = Refusal(SimsearchError("down"), grpc.StatusCode.UNAVAILABLE)


def full(pushback_ms: int | None) -> Refusal:
    return Refusal(SimsearchError("full"), grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_ms)


def attempts(
    deadline: float = 100.0,
    idempotent: bool = True,
    policy: RetryPolicy = POLICY,
    budget: RetryBudget | None = None,
    spread: float = 0.5,
) -> Attempts:
    return Attempts(
        policy,
        budget or RetryBudget(policy),
        idempotent=idempotent,
        deadline=deadline,
        spread=lambda: spread,
    )


def test_waits_double_and_then_it_is_over() -> None:
    """Four attempts have three waits between them."""
    call = attempts()
    waits = [call.wait_after(DOWN, 0.0, elsewhere=False) for _ in range(4)]
    assert waits == [0.1, 0.2, 0.4, None]


@given(st.floats(0, 1), st.integers(1, 20))
def test_a_wait_lies_around_its_nominal_length(spread: float, failures: int) -> None:
    """Half as long to half as long again, and never over the longest."""
    call = attempts(policy=RetryPolicy(attempts_max=50), spread=spread)
    wait_s = 0.0
    for _ in range(failures):
        wait_s = call.wait_after(DOWN, 0.0, elsewhere=False) or 0.0
    nominal_s = min(0.1 * 2 ** (failures - 1), 2.0)
    assert 0.5 * nominal_s <= wait_s <= 1.5 * nominal_s


def test_another_address_is_not_waited_for() -> None:
    """Where one is down and another is there."""
    assert attempts().wait_after(DOWN, 0.0, elsewhere=True) == 0.0


def test_pushback_is_believed_even_where_another_address_is() -> None:
    """At least as long as asked for, a little spread so that a crowd does not come back as one."""
    assert attempts(spread=0.0).wait_after(full(700), 0.0, elsewhere=True) == 0.7
    wait_s = attempts(spread=1.0).wait_after(full(700), 0.0, elsewhere=False)
    assert wait_s == pytest.approx(0.875)


@pytest.mark.parametrize(
    "refusal",
    [
        full(None),
        full(-1),
        Refusal(SimsearchError("no"), grpc.StatusCode.UNAVAILABLE, -1),
        Refusal(SimsearchError("no"), grpc.StatusCode.INVALID_ARGUMENT),
        Refusal(SimsearchError("no"), grpc.StatusCode.INTERNAL),
        Refusal(SimsearchError("no"), grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_what_would_fail_again_is_not_tried_again(refusal: Refusal) -> None:
    """A message that is too large, a server that asks for no more, and every refusal for cause."""
    assert attempts().wait_after(refusal, 0.0, elsewhere=True) is None


def test_an_edit_is_never_tried_again() -> None:
    """Not even elsewhere: its answer may be what was lost."""
    assert attempts(idempotent=False).wait_after(DOWN, 0.0, elsewhere=True) is None


def test_nothing_goes_beyond_the_deadline() -> None:
    """A wait that would not leave time is not begun."""
    assert attempts(deadline=10.1).wait_after(DOWN, 9.9, elsewhere=False) == 0.1
    assert attempts(deadline=10.0).wait_after(DOWN, 9.9, elsewhere=False) is None
    assert attempts(deadline=10.0).wait_after(full(5000), 9.0, elsewhere=False) is None


def test_the_budget_stops_retries_until_calls_succeed_again() -> None:
    """Half the tokens gone, no call is tried again; each answer brings a tenth of one back."""
    policy = RetryPolicy(budget=10)
    budget = RetryBudget(policy)

    def is_retried() -> bool:
        call = attempts(policy=policy, budget=budget)
        retried = call.wait_after(DOWN, 0.0, elsewhere=True) is not None
        assert call.held_back is not retried
        return retried

    assert [is_retried() for _ in range(6)] == [True] * 4 + [False] * 2
    for _ in range(30):
        budget.answered()
    assert [is_retried() for _ in range(3)] == [True, False, False]


def test_a_refusal_for_cause_costs_no_budget() -> None:
    """A caller that sends rubbish does not take retries away from others."""
    policy = RetryPolicy(budget=4)
    budget = RetryBudget(policy)
    for _ in range(50):
        attempts(policy=policy, budget=budget).wait_after(full(None), 0.0, elsewhere=False)
    assert attempts(policy=policy, budget=budget).wait_after(DOWN, 0.0, elsewhere=True) == 0.0
