"""Times on the command line."""

import math
from collections.abc import Iterator

import click
import pytest

from greentask.cli import _group
from greentask.cli.times import Duration, Moment, Seconds
from support.programs import greentask


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("3d", 259200), ("1w", 604800), ("0", 0)]
)
def test_a_time_is_so_many_seconds(text: str, seconds: float) -> None:
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "5x", "1 h", "1e3", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no time such as 90s, 10m, 2h or 3d"):
        Seconds().convert(text, None, None)


def test_more_than_any_time_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="is more than any time"):
        Seconds().convert("9" * 400 + "d", None, None)


@pytest.mark.parametrize(
    ("kind", "fits", "others", "told"),
    [
        (Duration(), ["0", "0.5", "1e9", 30.0], ["-1", "-0.1"], "from 0 to 1,000,000,000"),
        (Duration(2.0), ["2", "30"], ["0", "1.99"], "from 2 to 1,000,000,000"),
        (Duration(above=True), ["1e-3", "30"], ["0", "-1"], "above 0, and at most 1,000,000,000"),
    ],
)
def test_a_number_of_seconds_is_one_that_timers_take(
    kind: Duration, fits: list[str], others: list[str], told: str
) -> None:
    for text in fits:
        assert kind.convert(text, None, None) == float(text)
    for text in (*others, "nan", "inf", "-inf", "1e300", "1000000001", "soon", ""):
        with pytest.raises(click.BadParameter, match=f"^{text!r} is no number of seconds {told}$"):
            kind.convert(text, None, None)


def numbers(command: click.Command, *names: str) -> Iterator[tuple[tuple[str, ...], click.Parameter]]:
    """All options of all commands that take a number with a fraction."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from numbers(inner, *names, name)
    else:
        for option in command.params:
            if isinstance(option.type, (click.types.FloatParamType, Duration, Seconds, Moment)):
                yield names, option


def test_no_number_of_any_command_is_nan_or_infinite_or_negative() -> None:
    found = {(*names, option.opts[0]): option for names, option in numbers(_group)}
    assert found.keys() >= {
        ("serve", "--queue-lease"),
        ("serve", "--grace"),
        ("serve", "--dead-after"),
        ("serve", "--result-ttl"),
        ("call", "--timeout"),
        ("enqueue", "--timeout"),
        ("enqueue", "--at"),
        ("top", "--every"),
        ("stop", "--drain-timeout"),
        ("queue", "list", "--older"),
    }
    for where, option in found.items():
        for text in ("nan", "inf", "-1", str(-math.inf)):
            with pytest.raises(click.BadParameter, match=f"'{text}' is no "):
                print(where, option.type.convert(text, option, None))


def test_a_flag_that_can_not_be_is_named_with_what_may_be() -> None:
    done = greentask("serve", "support.durable_tasks", "--queue-lease", "nan")
    assert done.returncode == 2
    told = "Error: Invalid value for '--queue-lease': 'nan' is no number of seconds from 2 to 1,000,000,000"
    assert done.stderr.splitlines()[-1] == told


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


@pytest.mark.parametrize("text", ["20261224", "202612240800", "2026", "0", "1", "1798095600000", "9" * 400])
def test_a_date_without_a_time_and_milliseconds_are_no_unix_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"no Unix time from 2001 on, .*: 2026-12-24T08:00\+01:00"):
        Moment().convert(text, None, None)
    with pytest.raises(click.BadParameter, match=r"has no timezone: 2026-12-24T00:00\+01:00, say"):
        Moment().convert("2026-12-24", None, None)


def test_a_moment_without_a_timezone_is_none() -> None:
    with pytest.raises(click.BadParameter, match=r"has no timezone: 2026-12-24T08:00\+01:00, say"):
        Moment().convert("2026-12-24 08:00", None, None)
