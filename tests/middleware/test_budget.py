"""A retry budget bounds how many of all calls are repeated, in the long run and in a burst."""

from __future__ import annotations

import math
import random

import pytest

from rpcfw.limiter.budget import RetryBudget


def spend(budget: RetryBudget, now: float) -> int:
    """Repeat until it refuses, and say how often that was."""
    count = 0
    while budget.withdraw(now):
        count += 1
    return count


def test_the_reserve_is_there_at_the_start_and_each_call_brings_in_its_share() -> None:
    budget = RetryBudget(0.1, reserve=5)
    assert spend(budget, 0.0) == 5
    for _ in range(30):
        budget.deposit(0.0)
    assert spend(budget, 0.0) == 3


def test_it_holds_no_more_than_the_calls_of_the_window_brought_in() -> None:
    budget = RetryBudget(0.1, reserve=5, window_s=10.0)
    for call in range(1000):
        budget.deposit(call * 0.1)  # ten calls a second, a hundred in the window
    assert 9 <= spend(budget, 100.0) <= 12


def test_what_the_window_holds_falls_to_the_reserve_when_calls_cease() -> None:
    budget = RetryBudget(0.1, reserve=5, window_s=10.0)
    for _ in range(1000):
        budget.deposit(0.5)
    assert budget.tokens(0.5) == pytest.approx(100)
    assert budget.tokens(9.0) == pytest.approx(100)
    assert budget.tokens(20.0) == pytest.approx(5)
    assert budget.tokens(1e9) == pytest.approx(5)


def test_what_reached_no_server_is_given_back_but_never_more_than_it_can_hold() -> None:
    budget = RetryBudget(reserve=2)
    assert budget.withdraw(0.0)
    assert budget.withdraw(0.0)
    assert not budget.withdraw(0.0)
    for _ in range(5):
        budget.refund()
    assert spend(budget, 0.0) == 2


def test_a_budget_without_limit_never_refuses() -> None:
    budget = RetryBudget(reserve=math.inf)
    budget.deposit(0.0)
    assert all(budget.withdraw(0.0) for _ in range(10_000))
    budget.refund()
    assert budget.withdraw(100.0)


def test_a_sum_of_many_small_shares_buys_what_it_should() -> None:
    budget = RetryBudget(0.1, reserve=0)
    bought = 0
    for call in range(10_000):
        budget.deposit(call * 0.001)
        bought += budget.withdraw(call * 0.001)
    assert bought == 1000


@pytest.mark.parametrize("seed", range(20))
def test_in_an_outage_of_any_shape_servers_see_less_than_a_fifth_more_than_is_offered(seed: int) -> None:
    """Every call fails and is repeated twice if it may be, at a load that jumps about."""
    print(f"seed={seed}")
    rng = random.Random(seed)
    budget, now, offered, seen = RetryBudget(), 1000.0, 0, 0
    while offered < 20_000:
        now += rng.choice([0.0, 0.0001, 0.01, 1.0, 60.0]) * rng.random()
        for _ in range(rng.choice([1, 1, 10, 500])):
            budget.deposit(now)
            offered += 1
            seen += 1 + sum(budget.withdraw(now) for _ in range(2))
    assert seen <= offered * 1.1 + 50
    assert seen < offered * 1.2


@pytest.mark.parametrize(
    "wrong", [{"ratio": -1}, {"ratio": math.nan}, {"reserve": -1}, {"window_s": 0}, {"window_s": math.inf}]
)
def test_a_wrong_figure_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryBudget(**wrong)
