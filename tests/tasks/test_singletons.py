"""Which calls are the same to a task of which one at a time may wait, and for how long one may."""

from typing import Any

import pytest

from greentask import task
from greentask.errors import ConfigurationError
from greentask.tasks.singletons import singleton_key
from greentask.tasks.task import Task


@task(singleton=("shop", "year"))
def report(shop: object, year: int = 2026, lines: int = 10) -> None: ...


def key(one: Task[..., object], args: dict[str, object] | list[object] | None) -> str:
    assert one.singleton is not None
    return singleton_key(one.singleton, one.binder, args)


def test_calls_are_the_same_whose_named_arguments_are_however_they_are_passed() -> None:
    same = [["a"], ["a", 2026, 5], {"shop": "a"}, {"lines": 7, "year": 2026, "shop": "a"}]
    assert len({key(report, args) for args in same}) == 1
    others = [["b"], ["a", 2025], ["a", "2026"], [None], [["a"]], ["x" * 1000], ["y" * 1000], [{"b": 1, "a": 2}]]
    assert len({key(report, args) for args in (*others, ["a"])}) == len(others) + 1
    assert key(report, [{"a": 2, "b": 1}]) == key(report, [{"b": 1, "a": 2}])
    assert len(key(report, ["x" * 10_000])) < 201


def test_all_calls_are_the_same_to_a_task_that_is_one() -> None:
    one = task(name="one", singleton=True)(lambda a=1: a)
    assert key(one, None) == key(one, [5])
    assert task(name="one")(lambda a=1: a).singleton is None


@pytest.mark.parametrize("singleton", ["years", ("shop", "years"), (1,), 5])
def test_a_parameter_that_is_not_there_is_refused(singleton: object) -> None:
    with pytest.raises(ConfigurationError, match="singleton is True, or names of parameters"):
        task(singleton=singleton)(report.function)  # type: ignore[call-overload]


def test_what_runs_by_itself_needs_no_arguments() -> None:
    with pytest.raises(ConfigurationError, match="each parameter needs a default"):
        task(every=30)(report.function)
    assert task(name="one", every=30)(lambda a=1, *b, **c: a).schedule is not None


@pytest.mark.parametrize("priority", [11, -11, 2.0, True, "high"])
def test_what_is_no_priority_is_refused(priority: Any) -> None:
    with pytest.raises(ConfigurationError, match="priority is a whole number from -10 to 10, not"):
        task(priority=priority)(report.function)


@pytest.mark.parametrize("ttl", [0, -1, float("inf")])
def test_what_is_no_ttl_is_refused(ttl: float) -> None:
    with pytest.raises(ConfigurationError, match="ttl is in seconds above 0"):
        task(ttl=ttl)(report.function)
