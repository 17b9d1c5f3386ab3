"""What the master tells a front, and what it makes of what they say."""

import json

import pytest

from greentask import Group, Limits
from greentask.master.config import ServeConfig
from greentask.master.merging import merge


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
