"""Groups of task processes: each with its own size, limits and code."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from greentask import Group, Server, Tasks, task
from greentask.errors import ConfigurationError, WorkerLost
from greentask.server.groups import parse_bytes, parse_group
from support import waiting, work
from support.programs import greentask
from support.servers import LineClient, RunningServer, serving, wait_until

# ---- A server with two


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    options = ("--group", "ml=2,max_tasks=1000", "--process", "plain_pid=ml")
    with serving(*options, apps=["support.grouped_tasks", "support.grouped_models:plain_pid"], processes=1) as server:
        yield server


def test_each_task_runs_in_its_group(server: RunningServer, peer: LineClient) -> None:
    def groups() -> dict[str, Any]:
        found: dict[str, Any] = server.status()["groups"]
        return found

    def sizes() -> dict[str, tuple[int, int]]:
        return {name: (group["size"], group["alive"]) for name, group in groups().items()}

    wait_until(lambda: sizes() == {"default": (1, 1), "ml": (2, 2)}, "all are alive")
    assert peer.call("here") == server.pid
    assert peer.call("report") in groups()["default"]["pids"]
    assert peer.call("predict")["pid"] in groups()["ml"]["pids"]
    assert peer.call("plain_pid") in groups()["ml"]["pids"]
    assert "3 task processes" in server.output()


def test_a_group_imports_its_own_tasks_modules_only(peer: LineClient) -> None:
    assert peer.call("predict")["modules"] == ["support.grouped_models"]
    assert "support.grouped_tasks" in peer.call("modules")


def test_a_full_group_does_not_hold_up_the_other(server: RunningServer, peer: LineClient) -> None:
    for number in range(5):
        peer.send({"id": number, "function": "nap", "args": [30]})
    wait_until(lambda: server.status()["groups"]["ml"]["busy"] == 2, "the group is full")
    with server.connect() as other:
        other.call("report")
        status = server.status()
        assert status["groups"]["ml"]["waiting"] == 3
        assert status["groups"]["default"]["waiting"] == 0
        assert (status["processes"]["size"], status["processes"]["waiting"]) == (3, 3)
        assert len(status["processes"]["pids"]) == 3
    for number in range(5):
        peer.send({"id": 10, "function": "greentask.cancel", "args": [number]})
        peer.hear_all(2)


def test_a_death_in_one_group_is_that_groups(server: RunningServer, peer: LineClient) -> None:
    before = server.status()["groups"]
    peer.send({"id": 1, "function": "predict"})
    os.kill(peer.hear()["result"]["pid"], signal.SIGKILL)
    after = wait_until(
        lambda: (now := server.status()["groups"])["ml"]["lost"] > before["ml"]["lost"] and now, "it is lost"
    )
    assert after["default"] == before["default"]


def test_what_runs_where_is_listed(server: RunningServer) -> None:
    listed = greentask("tasks", "--server", server.address).stdout
    assert "a process of ml" in listed
    with server.connect() as peer:
        tasks = {task["name"]: task["process"] for task in peer.call("greentask.tasks")}
    assert (tasks["here"], tasks["report"], tasks["predict"]) == (False, True, "ml")


# ---- One in this process


def grouped(**options: Any) -> Server:
    tasks = Tasks([task(name="me")(work.me)])
    tasks.add(work.me, name="default.me", process=True)
    tasks.add(work.me, name="ml.me", process="ml")
    tasks.add(work.keep, name="keep", process="ml")
    return Server(tasks, "127.0.0.1:0", processes=1, **options)


def test_a_group_is_restarted_alone() -> None:
    server = grouped(groups={"ml": 2})
    server.start()
    try:
        before = server.status()["groups"]
        server.restart_group("ml")
        wait_until_new(server, before)
        after = server.status()["groups"]
        assert after["default"]["pids"] == before["default"]["pids"]
        with pytest.raises(ConfigurationError, match=r"no group of processes 'm' here; did you mean ml\?"):
            server.restart_group("m")
    finally:
        server.stop(0)


def wait_until_new(server: Server, before: Any) -> None:
    def is_new() -> bool:
        now = server.status()["groups"]["ml"]
        return now["alive"] == 2 and not set(now["pids"]) & set(before["ml"]["pids"])

    waiting.wait_until(is_new, what="every process of the group is new")


def test_limits_reach_the_groups() -> None:
    groups = {"ml": Group(3, max_memory=10**9, max_tasks=7, grace=0.5)}
    server = grouped(groups=groups, max_memory=2 * 10**9, max_tasks=5, grace=1.5)
    ml, default = server.groups["ml"], server.groups["default"]
    assert (ml.size, ml.max_tasks, ml.grace, ml._population._max_memory) == (3, 7, 0.5, 10**9)
    assert (default.size, default.max_tasks, default.grace, default._population._max_memory) == (1, 5, 1.5, 2 * 10**9)
    assert server.processes is default


def test_there_are_only_the_groups_that_tasks_name() -> None:
    assert dict(Server(Tasks([len]), processes=3).groups) == {}
    assert Server(Tasks([len])).processes is None
    assert list(Server(Tasks([task(process="default")(work.me)])).groups) == ["default"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, r"task 'ml.me' runs in the group of processes 'ml', whose size nobody says: pass --group ml=2"),
        ({"mls": 2}, r"pass --group ml=2 \(groups=\{.ml.: 2\}\); did you mean mls\?"),
        ({"x": 2}, r"pass --group ml=2 \(groups=\{.ml.: 2\}\); there is x$"),
        ({"ml": 2, "mls": 1}, r"no task runs in the group of processes 'mls'; did you mean ml\?"),
        ({"ml": 2, "x": 1}, r"no task runs in the group of processes 'x'; there is default, ml"),
        ({"ml": 0}, r"processes of a group is at least 1, not 0"),
        ({"ml": 2, "default": 1}, r"the group 'default' is described twice"),
    ],
)
def test_a_group_that_does_not_fit_is_an_error(groups: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        grouped(groups=groups)


@pytest.mark.parametrize("name", ["", "a b", "-x", "é", "a=1", "a,b"])
def test_a_groups_name_is_a_word(name: str) -> None:
    with pytest.raises(ConfigurationError, match="can't be a group's name"):
        task(process=name)(work.me)


# ---- The command line


@pytest.mark.parametrize(
    ("text", "name", "group"),
    [
        ("ml=2", "ml", Group(2)),
        ("ml=2,max_memory=4G,max_tasks=1000,grace=5", "ml", Group(2, 4 << 30, 1000, 5.0)),
        ("a.b-c=1,max_memory=1048576", "a.b-c", Group(1, 1048576)),
    ],
)
def test_a_group_is_written_in_one_word(text: str, name: str, group: Group) -> None:
    assert parse_group(text) == (name, group)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ml", "'ml' is no group: write NAME=N"),
        ("=2", "'=2' is no group"),
        ("ml=two", "group 'ml=two': processes is a whole number, not 'two'"),
        ("ml=0", "processes of a group is at least 1, not 0"),
        ("ml=2,max_memroy=4G", "has no option 'max_memroy'; did you mean max_memory?"),
        ("ml=2,x=4G", "has no option 'x'; there is grace, max_memory, max_tasks"),
        ("ml=2,max_memory=4X", "'4X' is no number of bytes: write 4G, 512M or 1048576"),
        ("ml=2,max_tasks=-1", "max_tasks is a whole number, not '-1'"),
        ("ml=2,grace=soon", "grace is in seconds, not 'soon'"),
        ("ml=2,grace=nan", "grace of a group is in seconds, 0 or more, not nan"),
    ],
)
def test_what_is_no_group_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        parse_group(text)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("text", "size"), [("17", 17), ("1k", 1024), ("3M", 3 << 20), ("2GiB", 2 << 30), ("1TB", 1 << 40), ("5B", 5)]
)
def test_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.slow
def test_the_command_line_says_what_is_wrong() -> None:
    for options, message in (
        (("--group", "ml=2,x=1"), "has no option 'x'"),
        (("--max-memory", "lots"), "'lots' is no number of bytes"),
        (("--group", "ml=2", "--group", "ml=3,grace=1"), "'ml=3,grace=1': 'ml' is given twice"),
        ((), "pass --group ml=2"),
    ):
        said = greentask("serve", "support.grouped_tasks", "--listen", "127.0.0.1:0", *options)
        assert said.returncode != 0
        assert message in " ".join(said.stderr.replace("│", " ").split())


@pytest.mark.slow
def test_the_default_groups_limits_are_flags() -> None:
    apps = ["support.work:me", "support.work:eat"]
    options = ("--process", "me", "--process", "eat", "--max-memory", "200M", "--max-tasks", "3")
    with serving(*options, apps=apps, processes=1) as server, server.connect() as peer:
        assert len({peer.call("me") for _ in range(9)}) >= 3
        error = peer.ask({"function": "eat", "args": [300 << 20]})["error"]
        assert error["type"] == WorkerLost.__name__
        assert "more than max_memory (209,715,200)" in error["message"]
