"""When a server is asked for a sign of life, and when it is given up."""

from typing import Any

from greentask.client.life import Life

MUCH = 1 << 20


def begun(dead_after: float = 15.0, idle_after: float = 60.0) -> Life:
    life = Life(dead_after, idle_after)
    life.begin(1000.0)
    return life


def look(
    life: Life,
    *,
    at: float | None = None,
    is_busy: bool = True,
    is_leaving: bool = False,
    arrived: int = 0,
    missing: int = 0,
) -> Any:
    """As it is at a time, or when it is to be looked at."""
    now = life.look_at if at is None else at
    return life.look(now, is_busy=is_busy, is_leaving=is_leaving, arrived=arrived, missing=missing)


def test_one_that_says_nothing_is_asked_and_given_up_after_its_time() -> None:
    life = begun()
    assert life.look_at == 1005
    assert look(life) == "silent"
    assert life.look_at == 1010
    assert look(life) == "silent"
    assert life.look_at == 1015
    assert look(life) == "dead"


def test_one_that_says_something_is_not_given_up() -> None:
    life = begun()
    for _ in range(10):
        life.heard_at = life.look_at - 1
        assert look(life) == "well"
        life.heard_at = life.look_at - 3
        assert look(life) == "silent"


def test_it_is_looked_at_when_its_time_is_over_and_not_after_that() -> None:
    life = begun()
    life.heard_at = 1002.0
    assert [look(life), look(life)] == ["silent", "silent"]
    assert life.look_at == 1015
    assert look(life) == "silent"
    assert life.look_at == 1017
    assert look(life) == "dead"


def test_while_this_thread_did_something_else_it_was_not_the_server_that_was_silent() -> None:
    life = begun()
    assert look(life, at=1105.0) == "silent"
    assert life.look_at == 1110
    assert [look(life), look(life)] == ["silent", "dead"]


def test_a_large_line_that_arrives_is_a_sign_of_life() -> None:
    life = begun()
    assert look(life, arrived=1000, missing=MUCH) == "silent"
    assert [look(life, arrived=arrived, missing=MUCH) for arrived in (2000, 3000, 4000, 5000)] == ["well"] * 4
    assert look(life, arrived=6000) == "well", "the last of it"
    assert [look(life, arrived=7000) for _ in range(3)] == ["silent", "silent", "dead"], "a question has arrived"


def test_a_large_line_of_which_nothing_arrives_is_none() -> None:
    life = begun()
    assert [look(life, arrived=1000, missing=MUCH) for _ in range(3)] == ["silent", "silent", "dead"]


def test_a_question_that_arrives_is_no_sign_of_life() -> None:
    life = begun()
    assert [look(life, arrived=turn * 40, missing=40) for turn in range(3)] == ["silent", "silent", "dead"]


def test_one_that_nobody_uses_is_closed() -> None:
    life = begun(idle_after=12.0)
    life.heard_at = 2000.0
    assert look(life) == "well"  # in use until 1005
    assert [look(life, is_busy=False) for _ in range(3)] == ["well", "well", "unused"]
    assert life.look_at == 1020


def test_one_whose_server_goes_away_is_closed_when_its_calls_have_ended() -> None:
    life = begun()
    life.heard_at = 1004.0
    assert look(life, is_leaving=True) == "well"
    assert look(life, is_leaving=True, is_busy=False) == "unused"


def test_a_look_that_is_late_is_known() -> None:
    life = begun()
    assert not life.is_late(1005.9)
    assert life.is_late(1006.1)
