"""When a task that failed is tried again."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.errors import ConfigurationError, DeadlineExceeded, InvalidArguments, InvalidResult
from greentask.tasks.context import RunningTask
from greentask.tasks.execution import execute
from greentask.tasks.retries import Backoff, Retry, RetryPolicy, make_policy
from greentask.tasks.task import Task
from greentask.wire.json import loads


@given(st.floats(0, 100), st.floats(1, 10), st.floats(0, 1000), st.integers(1, 10_000), st.floats(0, 1))
def test_a_backoff_grows_to_its_longest_wait(base: float, factor: float, most: float, failures: int, at: float) -> None:
    plain, random = Backoff(base, factor, most, jitter=False), Backoff(base, factor, most)
    assert plain.delay(failures) <= plain.delay(failures + 1) <= most
    assert plain.delay(1) == min(base, most)
    assert plain.delay(failures) / 2 <= random.delay(failures, at) <= plain.delay(failures)


@pytest.mark.parametrize(
    "options",
    [
        {"base": -1},
        {"base": float("nan")},
        {"base": "1s"},
        {"base": float("inf")},
        {"factor": 0.5},
        {"factor": True},
        {"max": float("inf")},
        {"max": -1},
        {"max": 1e9},
        {"max": None},
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    (value,) = options.values()
    with pytest.raises(ConfigurationError, match=repr(value)):
        Backoff(**options)


def test_a_delay_that_makes_no_sense_is_refused() -> None:
    for delay in (-1, float("nan"), 1e12):
        with pytest.raises(ValueError, match="delay of a Retry is in seconds"):
            Retry(delay=delay)
    with pytest.raises(TypeError, match=r"delay of a Retry is in seconds .* not 'soon'"):
        Retry(delay="soon")  # type: ignore[arg-type]
    assert Retry(delay=timedelta(minutes=2)).delay == 120.0


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": True},
        {"retries": 1.5},
        {"backoff": 5},
        {"retry_on": (ValueError, "KeyError")},
        {"give_up_on": int},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=name):
        Task(len, **options)


def test_an_error_is_worth_another_attempt_as_its_class_says() -> None:
    policy = make_policy("t", 3, None, (OSError, DeadlineExceeded), ConnectionRefusedError)
    assert policy.wants_retry(ConnectionResetError()) is True
    assert policy.wants_retry(DeadlineExceeded("too late")) is True
    assert policy.wants_retry(ConnectionRefusedError()) is False
    assert policy.wants_retry(ValueError()) is False
    assert policy.wants_retry(Retry(delay=0)) == {"delay": 0.0}
    assert policy.wants_retry(Retry()) == {"delay": None}
    assert RetryPolicy(give_up_on=(Exception,)).wants_retry(Retry()) == {"delay": None}, "it is no error"
    assert RetryPolicy().wants_retry(InvalidArguments("no")) is False
    assert RetryPolicy().wants_retry(KeyboardInterrupt()) is False


def test_retries_come_to_an_end() -> None:
    policy = RetryPolicy(2, Backoff(base=3, jitter=False))
    error = {"type": "ValueError", "message": "", "retry": True}
    assert [policy.delay(error, failures) for failures in (1, 2, 3)] == [3.0, 6.0, None]
    assert policy.delay(error, 3, retries=3) == 12.0
    assert policy.delay(error, 1, retries=0) is None
    assert policy.delay({**error, "retry": False}, 1) is None
    assert policy.delay({"type": "ValueError", "message": ""}, 1) is None
    assert RetryPolicy().delay(error, 1) is None, "where the task says nothing, an error is final"


def test_who_asks_to_be_tried_again_is() -> None:
    asks = {"type": "Retry", "message": "", "retry": {"delay": 7.0}}
    assert RetryPolicy().delay(asks, 1000) == 7.0
    assert RetryPolicy(2).delay(asks, 2) == 7.0
    assert RetryPolicy(2).delay(asks, 3) is None
    assert RetryPolicy().delay({**asks, "retry": {"delay": 0.0}}, 1000) == 0.0
    backoff = RetryPolicy(backoff=Backoff(base=3, jitter=False))
    assert backoff.delay({**asks, "retry": {"delay": None}}, 2) == 6.0


class NotPaid(Retry):
    """A user's own."""


class Unpaid(Retry):
    """One that does not call ours when it is made."""

    def __init__(self, delay: Any) -> None:
        self.delay = delay


class Puzzling(Retry):
    delay = property(lambda self: self.nothing)

    def __init__(self) -> None:
        pass


class Retries:
    class Retry(Exception):
        """Another library's."""


def test_who_asks_is_known_by_its_class_and_not_by_its_name() -> None:
    policy = RetryPolicy()
    asks = {"type": "NotPaid", "message": "", "retry": policy.wants_retry(NotPaid(delay=3))}
    assert policy.delay(asks, 1000) == 3.0
    fails = {"type": "Retry", "message": "", "retry": policy.wants_retry(Retries.Retry())}
    assert policy.delay(fails, 1) is None, "where the task says nothing, an error is final"


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (OSError("x"), True),
        (KeyError("x"), False),
        (Retry(delay=5), {"delay": 5.0}),
        (NotPaid(), {"delay": None}),
        (Unpaid(timedelta(seconds=9)), {"delay": 9.0}),
        *((Unpaid(wrong), {"delay": None}) for wrong in ("soon", -3, float("nan"), 1e12, True, [])),
        (Puzzling(), {"delay": None}),
    ],
)
def test_the_error_of_a_durable_task_says_what_it_is_worth(error: Exception, worth: object) -> None:
    def fails() -> None:
        raise error

    task = Task(fails, retry_on=OSError)
    ended_well, body = execute(task, [], RunningTask("x", attempt=1), durable=True)
    told = loads(body)
    assert not ended_well
    assert told["retry"] == worth
    # One that only asks to be tried again has no story to tell.
    assert ("traceback" in told) == (not isinstance(error, Retry))
    assert "retry" not in loads(execute(task, [], RunningTask())[1]), "nobody else is told"


def test_a_result_that_is_none_is_an_error_of_the_class_that_is_told() -> None:
    for options, worth in ({"retry_on": InvalidResult}, True), ({"give_up_on": InvalidResult}, False), ({}, True):
        task = Task(object, name="thing", **options)
        told = loads(execute(task, [], RunningTask("x", attempt=1), durable=True)[1])
        assert (told["type"], told["retry"]) == ("InvalidResult", worth)
