"""Times on the command line."""

import click
import pytest

from greentask.cli.times import Moment, Seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("3d", 259200), ("1w", 604800), ("0", 0)]
)
def test_a_time_is_so_many_seconds(text: str, seconds: float) -> None:
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "5x", "1 h", "1e3", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no time such as 90s, 10m, 2h or 3d"):
        Seconds().convert(text, None, None)


def test_no_time_at_all_is_refused_where_there_must_be_some() -> None:
    assert Seconds(may_be_0=False).convert("1", None, None) == 1
    with pytest.raises(click.BadParameter, match="'0' is no time above 0"):
        Seconds(may_be_0=False).convert("0", None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", 1.7e9),
        ("1700000000.5", 1.7e9 + 0.5),
        ("2023-11-14T22:13:20Z", 1.7e9),
        ("2023-11-14T23:13:20+01:00", 1.7e9),
        ("2023-11-14 22:13:20+00:00", 1.7e9),
    ],
)
def test_a_moment_is_in_seconds_since_1970(text: str, seconds: float) -> None:
    assert Moment().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "tomorrow", "-1", "nan", "2023-13-01T00:00+00:00"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"no moment such as 2026-12-24T08:00\+01:00, or a Unix time"):
        Moment().convert(text, None, None)


def test_a_moment_without_a_timezone_is_none() -> None:
    with pytest.raises(click.BadParameter, match=r"has no timezone: 2026-12-24T08:00\+01:00, say"):
        Moment().convert("2026-12-24 08:00", None, None)
