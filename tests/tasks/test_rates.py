"""How often tasks may begin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.errors import ConfigurationError
from greentask.tasks.rates import Rate, make_rate


@pytest.mark.parametrize(
    ("text", "count", "seconds"), [("10/s", 10, 1), ("100/m", 100, 60), ("5/h", 5, 3600), ("7/2d", 7, 172800)]
)
def test_rates(text: str, count: int, seconds: int) -> None:
    assert make_rate("t", text) == Rate(count, seconds)


@pytest.mark.parametrize("text", ["", "10", "0/s", "1/0s", "-1/s", "1/w", "1.5/s", 10, "10/s "])
def test_what_is_no_rate_is_refused(text: object) -> None:
    with pytest.raises(ConfigurationError, match=r"rate is '10/s'"):
        make_rate("t", text)  # type: ignore[arg-type]


@given(st.integers(1, 20), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 30)), max_size=30))
def test_in_no_stretch_of_time_do_more_begin(count: int, asked: list[tuple[float, int]]) -> None:
    rate, now = Rate(count, 10.0), 1000.0
    began: list[tuple[float, int]] = []
    for passed, wanted in asked:
        now += passed
        room = rate.room(began, now)
        if room:
            began.append((now, min(room, wanted)))
    for at, _ in began:
        assert sum(many for when, many in began if at - 10 < when <= at) <= count


@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=10))
def test_the_wait_is_as_long_as_there_is_no_room(count: int, began: list[tuple[float, int]]) -> None:
    rate, now = Rate(count, 10.0), 10.0
    wait = rate.wait(began, now)
    assert (wait == 0) == (rate.room(began, now) > 0)
    assert rate.room(began, now + wait + 1e-6) > 0
