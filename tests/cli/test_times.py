"""Times on the command line."""

import click
import pytest

from greentask.cli.times import Seconds


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
