"""When tasks run by themselves: the ticks, and what is done about them."""

import sys
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.errors import ConfigurationError
from greentask.tasks.schedules import CORRECTION, Plan, Schedule, make_schedule, next_plan

ZONES = ["UTC", "Europe/Paris", "America/New_York", "Asia/Beirut", "Australia/Lord_Howe", "America/Havana"]
EXPRESSIONS = [
    "*/5 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "0,30 1-3 * * *",
    "15 */2 * * *",
    "0 0 * * *",
    "30 0 1 * *",
    "0 9 * * MON-FRI",
    "59 23 L * *",
    "*/20 * * * * *",
]
DAY = 86400


def cron(expression: str, zone: str = "Europe/Paris") -> Schedule:
    schedule = make_schedule("t", expression, zone)
    assert schedule is not None
    return schedule


def ticks(schedule: Schedule, begin: str, hours: float, zone: str = "Europe/Paris") -> list[str]:
    """The ticks of so many hours, as that zone's clocks show them."""
    moment = datetime.fromisoformat(begin).replace(tzinfo=ZoneInfo(zone)).timestamp()
    end, shown = moment + hours * 3600, []
    while (moment := schedule.next_after(moment)) <= end:
        shown.append(f"{datetime.fromtimestamp(moment, ZoneInfo(zone)):%d %H:%M%z}")
    return shown


# ---- Ticks


def test_a_time_of_day_that_is_left_out_comes_right_after_the_gap() -> None:
    assert ticks(cron("30 2 * * *"), "2026-03-28 00:00", 71) == ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]


def test_a_time_of_day_that_comes_twice_is_meant_once() -> None:
    assert ticks(cron("30 2 * * *"), "2026-10-24 00:00", 72) == ["24 02:30+0200", "25 02:30+0200", "26 02:30+0100"]


def test_what_comes_every_hour_goes_on_in_real_time() -> None:
    assert ticks(cron("0 * * * *"), "2026-03-29 00:30", 3) == ["29 01:00+0100", "29 03:00+0200", "29 04:00+0200"]
    assert ticks(cron("0 * * * *"), "2026-10-25 01:30", 3) == ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]


def test_the_zone_is_utc_unless_it_is_given() -> None:
    schedule = make_schedule("t", "0 12 * * *", None)
    assert schedule is not None
    assert schedule.next_after(0) == 12 * 3600


AROUND = st.sampled_from(["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-10-04"]).flatmap(
    lambda day: st.floats(-DAY, 2 * DAY).map(
        lambda more: datetime.fromisoformat(day + "T00:00+00:00").timestamp() + more
    )
)


@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), AROUND, st.floats(0, 1))
def test_between_a_moment_and_its_next_tick_there_is_no_other(
    expression: str, zone: str, moment: float, part: float
) -> None:
    schedule = cron(expression, zone)
    tick = schedule.next_after(moment)
    assert tick > moment
    between = moment + (tick - moment) * part
    if between < tick:
        assert schedule.next_after(between) == tick


@given(st.floats(1, 1e7), st.floats(0, 4e9))
def test_an_interval_has_its_ticks_at_even_distances(seconds: float, moment: float) -> None:
    schedule = make_schedule("t", seconds, None)
    assert schedule is not None
    first = schedule.next_after(moment)
    assert moment < first <= moment + seconds * 1.01
    assert schedule.next_after(first) - first == pytest.approx(seconds, abs=1e-5)


def test_an_interval_may_be_a_timedelta() -> None:
    assert make_schedule("t", timedelta(minutes=5), None) == make_schedule("t", 300, None)


# ---- Plans


class World:
    """Servers that look now and then, sharing one plan, as a file has it."""

    def __init__(self, schedule: Schedule, now: float, *, catch_up: bool = True) -> None:
        self.schedule = schedule
        self.now = now
        self.catch_up = catch_up
        self.plan: Plan | None = None
        self.runs: list[float] = []
        self.look()

    def look(self) -> None:
        plan, runs = next_plan(self.schedule, self.plan, self.now, catch_up=self.catch_up)
        self.plan = plan or self.plan
        self.runs += [self.now] * runs

    def go_on(self, seconds: float, step: float = 1.0) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            for _ in range(3):  # servers
                self.look()


@given(st.sampled_from(EXPRESSIONS[:9]), st.sampled_from(ZONES), AROUND, st.lists(st.floats(1, 7200), min_size=5))
def test_a_tick_is_run_once_however_rarely_one_looks(
    expression: str, zone: str, begin: float, passing: list[float]
) -> None:
    world = World(cron(expression, zone), begin)
    for seconds in passing:
        before, already = world.now, len(world.runs)
        world.go_on(seconds, seconds)
        assert len(world.runs) - already == (world.schedule.next_after(before) <= world.now)


def test_each_tick_runs_once_on_the_day_of_a_change() -> None:
    begin = datetime.fromisoformat("2026-10-25T00:00+02:00").timestamp()
    world = World(cron("*/30 * * * *"), begin)
    world.go_on(25 * 3600, 60)
    assert len(world.runs) == 50
    assert all(later - one == 1800 for one, later in pairwise(world.runs))


def test_missed_ticks_come_to_one_run() -> None:
    world = World(cron("0 * * * *"), 0.0)
    world.now += 30.5 * 3600
    world.look()
    assert len(world.runs) == 1
    world.go_on(3600, 60)
    assert len(world.runs) == 2


def test_missed_ticks_are_left_out_without_catch_up() -> None:
    world = World(cron("0 * * * *"), 0.0, catch_up=False)
    world.now += 30.5 * 3600
    world.look()
    assert world.runs == []
    world.go_on(1860, 20)
    assert len(world.runs) == 1


def test_a_clock_that_is_set_back_a_little_brings_no_tick_again() -> None:
    world = World(cron("0 * * * *"), 1.0)
    world.go_on(3 * 3600, 60)
    world.now -= 2 * 3600
    world.go_on(2 * 3600, 60)
    assert len(world.runs) == 3
    world.go_on(3600, 60)
    assert len(world.runs) == 4


def test_a_clock_that_was_wrong_by_years_does_not_stop_the_schedule() -> None:
    world = World(cron("0 * * * *"), 1.0)
    world.now += 10 * 366 * DAY
    world.look()
    assert len(world.runs) == 1
    world.now -= 10 * 366 * DAY
    world.go_on(2 * 3600, 60)
    assert len(world.runs) == 3


@given(st.lists(st.floats(-CORRECTION, CORRECTION) | st.just(0.0), max_size=8), st.integers(0, 3600))
def test_no_tick_is_run_twice_by_a_clock_that_wanders_by_less_than_a_correction(jumps: list[float], phase: int) -> None:
    world = World(cron("0 * * * *", "UTC"), DAY * 100.0 + phase)
    for jump in jumps:
        latest = world.plan.seen if world.plan else 0.0
        world.now = max(world.now + jump, latest - CORRECTION)
        world.look()
        world.go_on(1200, 300)
    hours = [int(moment // 3600) for moment in world.runs]
    assert len(hours) == len(set(hours))


# ---- What is no schedule


@pytest.mark.parametrize("every", [0, 0.5, -1, True, float("nan"), 1e10, b"*", timedelta(0), []])
def test_what_is_no_interval_is_refused(every: object) -> None:
    with pytest.raises(ConfigurationError, match="every is a number of seconds"):
        make_schedule("t", every, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("every", ["", "* * * *", "61 * * * *", "@daily", "0 0 30 2 *", "a b c d e"])
def test_what_is_no_cron_expression_is_refused(every: str) -> None:
    with pytest.raises(ConfigurationError, match="no cron expression such as"):
        make_schedule("t", every, None)


def test_without_cronsim_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'greentask\[queue\]'"):
        make_schedule("t", "* * * * *", None)
    assert make_schedule("t", 30, None) is not None


def test_zones_are_known_and_go_with_cron_only() -> None:
    with pytest.raises(ConfigurationError, match="no timezone 'Europe/Lutetia'"):
        make_schedule("t", "* * * * *", "Europe/Lutetia")
    with pytest.raises(ConfigurationError, match="goes with"):
        make_schedule("t", 30, "Europe/Paris")
