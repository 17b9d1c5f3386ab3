"""How often an origin may fail, in a time that the test makes."""

from hypothesis import given
from hypothesis import strategies as st

from greentask.server.attempts import Attempts


def test_so_many_in_a_row_and_then_one_now_and_then() -> None:
    attempts = Attempts(per_minute=10)
    for _ in range(10):
        assert attempts.wait("a", 100.0) == 0
        attempts.failed("a", 100.0)
    assert round(attempts.wait("a", 100.0), 3) == 6
    assert round(attempts.wait("a", 105.0), 3) == 1
    assert attempts.wait("a", 106.0) == 0
    attempts.failed("a", 106.0)
    assert round(attempts.wait("a", 106.0), 3) == 6
    assert attempts.wait("b", 106.0) == 0, "others have their own"
    for _ in range(10):
        assert attempts.wait("a", 200.0) == 0, "a minute later all is forgiven"
        attempts.failed("a", 200.0)
    assert attempts.wait("a", 200.0) > 0


def test_one_a_minute() -> None:
    attempts = Attempts(per_minute=1)
    attempts.failed("a", 0.0)
    assert round(attempts.wait("a", 0.0)) == 60
    assert attempts.wait("a", 60.0) == 0


def test_origins_beyond_the_most_are_forgotten_the_oldest_failure_first() -> None:
    attempts = Attempts(per_minute=1, most=3)
    for origin in ("a", "b", "c", "a", "d"):
        attempts.failed(origin, 1.0)
    assert len(attempts) == 3
    assert [bool(attempts.wait(origin, 1.0)) for origin in "abcd"] == [True, False, True, True]


@given(st.lists(st.floats(0, 30)), st.integers(1, 50))
def test_in_the_long_run_it_is_the_rate(pauses: list[float], per_minute: int) -> None:
    attempts, now, failures = Attempts(per_minute), 1000.0, 0
    for pause in pauses:
        now += pause
        for _ in range(3):
            if attempts.wait("a", now) == 0:
                attempts.failed("a", now)
                failures += 1
    assert failures <= per_minute + (now - 1000.0) / 60 * per_minute + 1
