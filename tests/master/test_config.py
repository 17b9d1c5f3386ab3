"""What the master tells a front, and what it makes of what they say."""

import json

import pytest

from greentask import Group, Limits
from greentask.master.config import ServeConfig
from greentask.master.merging import added, counts_of, merge


def test_it_goes_through_json_unchanged() -> None:
    config = ServeConfig(
        ("shop.tasks", "shop:more"),
        ("tcp://127.0.0.1:1", "unix:///s"),
        processes=3,
        groups={"ml": Group(2, max_memory=1 << 30)},
        max_running={"send_mail": 4},
        limits=Limits(max_line=1000),
    )
    assert ServeConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(("fronts", "processes", "shares"), [(1, 5, [5]), (2, 5, [3, 2]), (3, 2, [1, 1, 1])])
def test_each_front_has_its_share_of_the_processes(fronts: int, processes: int, shares: list[int]) -> None:
    config = ServeConfig(("a",), fronts=fronts, processes=processes, groups={"ml": Group(processes)})
    given = [config.for_front(number) for number in range(fronts)]
    assert [one.processes for one in given] == shares
    assert [one.groups["ml"].processes for one in given] == shares


def group(size: int, *pids: int) -> dict[str, object]:
    return {"size": size, "alive": len(pids), "busy": 0, "waiting": 1, "lost": 0, "recycled": 0, "pids": list(pids)}


def test_the_status_of_several_is_their_sum() -> None:
    one = {"front": 0, "pid": 1, "connections": 2, "in_flight": 3, "draining": False}
    two = {"front": 1, "pid": 2, "connections": 5, "in_flight": 7, "draining": True}
    status = merge([{**one, "groups": {"default": group(2, 10, 11)}}, {**two, "groups": {"default": group(1, 12)}}])
    assert (status["connections"], status["in_flight"], status["draining"]) == (7, 10, False)
    assert status["groups"]["default"] == {**group(3, 10, 11, 12), "waiting": 2}
    assert status["processes"]["size"] == 3
    assert [front["pid"] for front in status["fronts"]] == [1, 2]
    assert merge([]) == {"fronts": []}
    assert "groups" not in merge([one])


def counted(done: int, running: int) -> dict[str, object]:
    tasks = {"add": {"outcomes": {"done": done}, "histogram": [done, 0]}}
    counts = {
        "calls": {"done": done},
        "refused": {},
        "queue": {"running": running, "done": done},
        "tasks_called": tasks,
    }
    return {**counts, "counted": {"hook": {"add": [done, 0.5]}}, "running_by_task": {"add": running}}


def test_what_was_counted_outlives_a_front_and_what_runs_does_not() -> None:
    shown = {"connections": 0, "in_flight": 0, "draining": False}
    past = counts_of({**shown, **counted(5, 3)})
    status = merge([{**shown, "front": 0, **counted(2, 1)}, {**shown, "front": 1, **counted(1, 0)}], past)
    assert status["calls"] == {"done": 8}
    assert status["queue"] == {"running": 1, "done": 8}
    assert status["tasks_called"] == {"add": {"outcomes": {"done": 8}, "histogram": [8, 0]}}
    assert status["counted"] == {"hook": {"add": [8, 1.5]}}
    assert status["running_by_task"] == {"add": 1}
    assert all("counted" not in front for front in status["fronts"])
    assert counts_of({**shown, "calls": {"done": 1}}) == {}, "not all of it was asked for"
    assert "counted" not in merge([{**shown, "front": 0}], past)


def test_lists_of_another_length_are_of_other_code() -> None:
    assert added([{"a": [1, 1, 1]}, {"a": [1, 2]}, {"a": [10, 20], "b": 1}]) == {"a": [11, 22], "b": 1}
