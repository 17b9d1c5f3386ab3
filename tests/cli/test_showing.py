"""A status as tables: what is shown where there is little room for it."""

from typing import Any

import pytest
from rich.console import Console

from greentask.cli.showing import show

TITLES = ("Tasks", "Running, the oldest", "Fronts", "Task processes", "Busiest connections")


def status(tasks: int = 50, processes: int = 40, called: int = 0) -> dict[str, Any]:
    """A server that has much to do; `called` is the number of a task that was called three times more."""
    names = [f"task_{number}" for number in range(tasks)]
    return {
        "version": "1.0",
        "python": "3.13",
        "listen": ["tcp://127.0.0.1:12345"],
        "draining": False,
        "uptime": 5.0,
        "connections": 20,
        "in_flight": 20,
        "calls": {"done": 50},
        "groups": {"default": {"alive": 40, "size": 40, "busy": 20, "waiting": 0, "lost": 0, "recycled": 0}},
        "tasks_called": {
            name: {"outcomes": {"done": 1}, "histogram": [1 + 3 * (number == called), 0]}
            for number, name in enumerate(names)
        },
        "running": [
            {"task": name, "seconds": 1.0, "id": 1, "peer": "127.0.0.1:5", "group": None, "args": "x" * 190}
            for name in names[:20]
        ],
        "fronts": [
            {"pid": number, "front": number, "draining": False, "uptime": 5.0, "connections": 5, "in_flight": 5}
            for number in range(4)
        ],
        "task_processes": [
            {"pid": 1000 + number, "group": "default", "state": "idle", "done": 0, "memory": 17_000_000}
            for number in range(processes)
        ],
        "busiest": [{"peer": "127.0.0.1:5", "in_flight": 1, "unsent": 0, "read": 1, "written": 1}] * 15,
    }


def shown(height: int | None, now: dict[str, Any], before: dict[str, Any] | None = None) -> list[str]:
    console = Console(width=80, height=height or 24, force_terminal=False)
    with console.capture() as written:
        console.print(show(now, before, 1.0, height))
    return written.get().splitlines()


@pytest.mark.parametrize("height", [24, 40, 60])
def test_each_table_has_rows_on_a_screen_however_much_there_is(height: int) -> None:
    lines = shown(height, status())
    assert len(lines) <= height
    titles = [line for line in lines if line.startswith(TITLES)]
    assert len(titles) == len(TITLES)
    assert " of 50)" in titles[0]
    assert any(line.startswith("1000 ") for line in lines), "a process is shown"
    [call] = [line for line in lines if "127.0.0.1:5" in line and "xxx" in line][:1]
    assert call.startswith(("task_0", "│ task_0")), "its arguments are cut, and nothing else of it"


def test_where_there_is_room_all_of_it_is_shown() -> None:
    lines = shown(60, status(tasks=2, processes=2))
    assert len(lines) <= 60
    assert not [line for line in lines if line.startswith(TITLES) and " of " in line.partition("(")[2]]
    everything = shown(None, status())
    assert sum("task_" in line for line in everything) >= 50


def test_what_was_called_most_since_the_last_look_comes_first() -> None:
    before = status(called=-1)
    lines = shown(24, status(called=49), before)
    first = next(number for number, line in enumerate(lines) if line.startswith("Tasks")) + 2
    assert lines[first].startswith("task_49 ")
    assert " 3.0 " in lines[first]
