"""Which server gets a call, and how many retries there are: arithmetic, with the time as an argument."""

import socket
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.client.balance import Balance, Missing, RetryBudget, Target
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
    balance.answered(bad)
    assert spread(balance, 100)["b"] > 0


def test_one_that_takes_its_time_gets_calls_only_where_the_others_fail() -> None:
    balance = Balance(THREE)
    slow, first, second = balance.targets
    slow.is_slow = True
    assert set(spread(balance, 10)) == {"b", "c"}
    for target in (first, second):
        balance.failed(target, now=100.0)
    assert balance.pick() is slow
    balance.works(slow)
    assert balance.pick() is slow
    assert not slow.is_slow


def test_one_that_is_full_gets_calls_only_where_no_other_is_well() -> None:
    balance = Balance(THREE)
    balance.targets[0].is_full = True
    assert spread(balance, 20) == {"b": 10, "c": 10}
    balance.failed(balance.targets[1], 0.0)
    balance.targets[2].is_full = True
    assert spread(balance, 10) == {"a": 10}, "of those that are full, the one with the fewest"


def test_one_that_came_back_gets_calls_when_it_has_answered() -> None:
    balance = Balance(THREE)
    back = balance.targets[0]
    balance.failed(back, 0.0)
    balance.works(back)
    assert spread(balance, 20) == {"b": 10, "c": 10}
    balance.answered(back)
    assert spread(balance, 10) == {"a": 10}


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


# ---- Names


def found(balance: Balance, *hosts: str) -> list[Target]:
    (name,) = balance.names
    return balance.found(name, [(socket.AF_INET, (host, 1)) for host in hosts])


def hosts(balance: Balance) -> list[str]:
    return [target.where[1][0] for target in balance.targets if target.where is not None]


def test_the_addresses_of_a_name_are_servers_that_share_its_weight() -> None:
    balance = Balance(parse_addresses("name:1,10.0.0.9:1"), [3, 1])
    (unknown,) = found(balance, "10.0.0.1", "10.0.0.2")
    assert unknown.where is None
    assert hosts(balance) == ["10.0.0.9", "10.0.0.1", "10.0.0.2"]
    assert [target.weight for target in balance.targets] == [1, 1.5, 1.5]
    assert spread(balance, 40) == {"name": 30, "10.0.0.9": 10}


def test_an_address_that_stays_keeps_what_is_known_of_it_and_one_that_goes_gets_no_calls() -> None:
    balance = Balance(parse_addresses("name:1"))
    found(balance, "10.0.0.1", "10.0.0.2")
    first, second = balance.targets
    balance.failed(first, now=100.0)
    second.outstanding = 5
    assert found(balance, "10.0.0.1", "10.0.0.3") == [second]
    assert balance.targets[0] is first
    assert first.failures == 1
    assert {str(target) for target in balance.targets} == {"tcp://name:1 (10.0.0.1)", "tcp://name:1 (10.0.0.3)"}
    assert found(balance, "10.0.0.3") == [first]
    assert [str(target) for target in balance.targets] == ["tcp://name:1"]
    assert balance.pick() is balance.targets[0]


def test_a_name_is_asked_for_once_in_a_while_and_after_one_of_its_addresses_was_lost() -> None:
    balance = Balance(parse_addresses("name:1"))
    (name,) = balance.names
    assert name.is_due(100.0, every=30)
    name.asked_at = 100.0
    found(balance, "10.0.0.1")
    assert not name.is_due(129.0, every=30)
    assert name.is_due(130.0, every=30)
    balance.failed(balance.targets[0], now=100.5)
    assert not name.is_due(100.9, every=30), "not again and again"
    assert name.is_due(101.0, every=30)


@pytest.mark.parametrize("address", ["10.0.0.1:1", "[::1]:1", "unix:///path", "tls://10.0.0.1:1"])
def test_what_is_no_name_is_known_from_the_start(address: str) -> None:
    balance = Balance(parse_addresses(address))
    assert balance.names == []
    assert balance.targets[0].where is not None


# ---- Being away


def test_one_that_was_there_may_come_back_for_a_while() -> None:
    balance = Balance(THREE)
    target = balance.targets[0]
    balance.failed(target, now=100.0)
    assert not balance.may_come_back(100.0, gone_after=5), "it was never there"
    balance.works(target)
    balance.answered(target)
    balance.failed(target, now=200.0)
    assert balance.may_come_back(204.9, gone_after=5)
    assert not balance.may_come_back(205.0, gone_after=5)
    assert not balance.may_come_back(200.0, gone_after=0)


def test_one_that_is_reached_and_never_answers_is_not_there() -> None:
    balance = Balance(THREE)
    target = balance.targets[0]
    balance.works(target)
    balance.failed(target, now=100.0)
    for now in (101.0, 103.0, 105.0):
        balance.works(target)
        balance.failed(target, now)
    assert not balance.may_come_back(105.0, gone_after=5)


def test_retries_are_a_tenth_of_the_calls_with_some_in_reserve() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(100)) == 10
    for _ in range(1000):
        budget.made += 1
    assert 90 <= sum(budget.spend() for _ in range(1000)) <= 100


# ---- Tasks that a server has not


def test_who_has_no_such_task_is_known_for_a_while() -> None:
    one, other, _ = Balance(THREE).targets
    missing = Missing()
    assert not missing
    missing.add(b"add", one, 100.0)
    missing.add(b"add", other, 105.0)
    assert missing
    assert missing.of(b"nap", 105.0) == set()
    assert missing.of(b"add", 105.0) == {one, other}
    assert missing.of(b"add", 111.0) == {other}
    assert missing.of(b"add", 116.0) == set()
    assert not missing


def test_it_does_not_know_any_number_of_tasks() -> None:
    (one, *_), missing = Balance(THREE).targets, Missing()
    for number in range(3 * Missing.MOST):
        missing.add(b"%d" % number, one, 100.0)
    assert len(missing._until) <= Missing.MOST
    assert missing.of(b"%d" % (3 * Missing.MOST - 1), 100.0) == {one}
