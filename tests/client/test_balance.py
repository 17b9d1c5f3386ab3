"""Which server gets a call, and how many retries there are: arithmetic, with the time as an argument."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.client.balance import Balance, RetryBudget
from greentask.wire.address import parse_addresses

THREE = parse_addresses("a:1,b:1,c:1")


def spread(balance: Balance, calls: int) -> Counter[str]:
    """Who gets so many calls, none of which ends."""
    given: Counter[str] = Counter()
    for _ in range(calls):
        target = balance.pick()
        assert target is not None
        target.outstanding += 1
        given[target.address.host] += 1
    return given


def test_equal_servers_take_turns_also_with_calls_that_end_at_once() -> None:
    balance = Balance(THREE)
    assert spread(balance, 30) == {"a": 10, "b": 10, "c": 10}
    balance = Balance(THREE)
    picked = [balance.pick() for _ in range(30)]
    assert Counter(target.address.host for target in picked if target) == {"a": 10, "b": 10, "c": 10}


def test_a_slow_one_gets_fewer() -> None:
    balance = Balance(THREE)
    balance.targets[0].outstanding = 50
    assert spread(balance, 100) == {"b": 50, "c": 50}


@given(st.lists(st.integers(1, 10), min_size=2, max_size=5))
def test_weights_divide_the_calls(weights: list[int]) -> None:
    balance = Balance(parse_addresses([f"{name}:1" for name in "abcde"[: len(weights)]]), weights)
    given = spread(balance, 20 * sum(weights))
    for name, weight in zip("abcde", weights):
        assert abs(given[name] - 20 * weight) <= len(weights)


@pytest.mark.parametrize("weights", [[1], [1, 2, 0], [1, 2, -1], [1, 2, float("nan")]])
def test_wrong_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        Balance(THREE, weights)


def test_one_that_failed_gets_nothing_until_it_works_while_there_are_others() -> None:
    balance = Balance(THREE)
    bad = balance.targets[1]
    balance.failed(bad, now=100.0)
    assert set(spread(balance, 100)) == {"a", "c"}
    balance.works(bad)
    assert spread(balance, 100)["b"] > 0


def test_where_all_fail_the_one_that_may_be_tried_first_is_picked() -> None:
    balance = Balance(THREE)
    for target in balance.targets:
        balance.failed(target, now=100.0)
    best = min(balance.targets, key=lambda target: target.retry_at)
    assert balance.pick() is best
    assert balance.pick(avoid={best}) is not best
    assert balance.pick(avoid=set(balance.targets)) is None


@given(st.integers(1, 100))
def test_the_pauses_grow_and_have_an_end(failures: int) -> None:
    balance = Balance(THREE)
    target = balance.targets[0]
    for _ in range(failures):
        balance.failed(target, now=0.0)
    assert 0 <= target.retry_at <= min(0.05 * 2 ** (failures - 1), 1.0)


def test_one_that_is_reached_and_never_answers_is_left_alone_for_longer_each_time() -> None:
    balance = Balance(THREE)
    target = balance.targets[0]
    for _ in range(5):  # as where a proxy takes the connection, and finds nobody behind it
        balance.failed(target, now=0.0)
        balance.works(target)
    balance.failed(target, now=0.0)
    assert target.failures == 6
    balance.works(target)
    balance.answered(target)
    balance.failed(target, now=0.0)
    assert target.failures == 1


def test_retries_are_a_tenth_of_the_calls_with_some_in_reserve() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(100)) == 10
    for _ in range(1000):
        budget.earn()
    assert 90 <= sum(budget.spend() for _ in range(1000)) <= 100
