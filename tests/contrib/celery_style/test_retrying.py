"""When a task is tried again, in Celery's words: the arithmetic, and what is refused."""

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from greentask import ConfigurationError, Retry
from greentask.contrib.celery_style import Celery, NeedsQueue, NotCarriedOver
from greentask.contrib.celery_style.exceptions import MaxRetriesExceededError
from greentask.contrib.celery_style.request import Request
from greentask.contrib.celery_style.retrying import Retrying
from support import celery_tasks as tasks


def request(retries: int) -> Request:
    return Request("a", "task", retries=retries, is_eager=True)


def delays(retrying: Retrying, times: int) -> list[float | None]:
    errors = [retrying.by_itself(request(retries), "task", OSError("no luck")) for retries in range(times)]
    return [error.delay for error in errors if isinstance(error, Retry)]


def test_a_backoff_doubles_up_to_its_longest() -> None:
    steady = Retrying(autoretry_for=(OSError,), retry_backoff=2, retry_backoff_max=9, retry_jitter=False, max_retries=4)
    assert delays(steady, 10) == [2, 4, 8, 9]
    assert delays(Retrying(retry_backoff=True, retry_jitter=False, max_retries=None), 2000)[-1] == 600
    for retries, delay in enumerate(delays(Retrying(retry_backoff=True), 3)):
        assert delay is not None
        assert 0 <= delay <= 2**retries


def test_a_delay_is_that_of_the_call_or_of_the_task() -> None:
    retrying = Retrying(default_retry_delay=7)
    eta = datetime.now(timezone.utc) + timedelta(seconds=50)
    asked = [
        retrying.asked(request(0), "task"),
        retrying.asked(request(0), "task", countdown=3),
        retrying.asked(request(0), "task", eta=eta),
    ]
    assert [round(error.delay or 0) for error in asked if isinstance(error, Retry)] == [
        7,
        3,
        round(eta.timestamp() - time.time()),
    ]


def test_too_often_is_the_error_itself_or_says_so() -> None:
    error = OSError("no luck")
    assert Retrying().asked(request(3), "task", error) is error
    assert isinstance(Retrying().asked(request(3), "task"), MaxRetriesExceededError)
    assert isinstance(Retrying().asked(request(3), "task", max_retries=4), Retry)
    assert isinstance(Retrying(max_retries=None).asked(request(999), "task"), Retry)
    assert str(Retrying().asked(request(1), "task", error)) == "tried again after OSError: no luck"
    assert str(Retrying().asked(request(1), "task")) == "tried again later"


def test_without_a_queue_nobody_tries_again() -> None:
    assert isinstance(Retrying().asked(Request("a", "task"), "task"), NeedsQueue)


@pytest.mark.parametrize("option", [{"args": (1,)}, {"kwargs": {}}, {"throw": False}, {"queue": "other"}])
def test_what_retry_cannot_do_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(NotCarriedOver, match=rf"{next(iter(option))}= of retry\(\) of task '.*try_again'"):
        tasks.try_again.retry(**option)


def test_options_that_make_no_sense_are_refused_at_import() -> None:
    own = Celery("own", set_as_current=False, process=False)
    with pytest.raises(ConfigurationError, match="autoretry_for of a task is a tuple of exceptions' classes, not 5"):
        own.task(autoretry_for=5)(print)
    with pytest.raises(NotCarriedOver, match="'eta' in retry_kwargs"):
        own.task(retry_kwargs={"eta": 5})(print)
