"""Middleware, around the calls and the tasks of a real server and its processes."""

import itertools
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greentask import CallInfo, Middleware, Server, Tasks
from greentask.errors import ConfigurationError, TimeLimit
from greentask.tasks import middleware as watching
from support.programs import greentask
from support.servers import RunningServer, serving, wait_until
from support.watched_tasks import LOG

pytestmark = pytest.mark.once


class Hooks:
    """What the hooks have written so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []

    def since(self) -> list[dict[str, Any]]:
        """What is new since the last time, but for the processes'."""
        told = self.all()
        new, self._seen = told[self._seen :], len(told)
        return [one for one in new if not one["hook"].startswith("process_")]

    def of_next(self, hook: str) -> list[dict[str, Any]]:
        """What is new, once that hook is among it."""
        wait_until(lambda: any(one["hook"] == hook for one in self.all()[self._seen :]), hook)
        return self.since()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hooks") / "log"


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[RunningServer]:
    with serving(apps=["support.watched_tasks"], **{LOG: str(path)}) as server:
        yield server


@pytest.fixture
def hooks(server: RunningServer, path: Path) -> Hooks:
    hooks = Hooks(path)
    hooks.since()
    return hooks


def names(told: list[dict[str, Any]]) -> list[str]:
    return [one["hook"] for one in told]


def test_a_call_in_a_greenlet_has_its_hooks_in_order(server: RunningServer, hooks: Hooks) -> None:
    with server.connect() as peer:
        assert peer.ask({"id": 7, "function": "add", "args": [1, 2]}) == {"id": 7, "result": 3}
        told = hooks.of_next("after_call")
        assert names(told) == ["before_call", "before_task", "after_task", "after_call"]
        port = peer.socket.getsockname()[1]
        assert told[0] | {"pid": 0} == {
            "hook": "before_call", "pid": 0, "task": "add", "id": 7, "item": None, "peer": f"127.0.0.1:{port}",
            "group": None,
        }  # fmt: skip
        assert told[1]["mark"] == "add", "what one hook keeps, the next one finds"
        assert told[3]["outcome"] == "done"
        assert told[3]["took"] >= 0


def test_a_call_in_a_process_has_them_in_both_places(server: RunningServer, hooks: Hooks) -> None:
    assert server.call("add_in_process", 1, 2) == 3
    told = hooks.of_next("after_call")
    assert names(told) == ["before_call", "before_task", "after_task", "after_call"]
    assert told[0]["group"] == "default"
    assert told[1]["where"] == "process"
    assert told[1]["pid"] == told[2]["pid"] != told[0]["pid"] == told[3]["pid"]


@pytest.mark.parametrize("function", ["fail", "fail_in_process"])
def test_a_failure_is_told_where_it_happens_and_where_it_is_answered(
    server: RunningServer, hooks: Hooks, function: str
) -> None:
    with server.connect() as peer:
        assert "error" in peer.ask({"function": function})
    told = hooks.of_next("after_call")
    assert names(told) == ["before_call", "before_task", "task_failed", "after_task", "call_failed", "after_call"]
    assert (told[2]["outcome"], told[2]["error"]) == ("failed", "ValueError")
    assert (told[4]["outcome"], told[4]["error"]) == ("failed", "ValueError")


def test_every_outcome_is_told_once(server: RunningServer, hooks: Hooks) -> None:
    with server.connect() as peer:
        peer.send(
            {"id": "late", "function": "nap", "args": [30], "timeout": 0.05},
            {"id": "lost", "function": "die"},
            {"id": "wrong", "function": "add", "args": []},
            {"id": "no", "function": "add", "args": [1]},
            {"id": "gone", "function": "nap", "args": [30]},
            {"id": "x", "function": "greentask.cancel", "args": {"id": "gone"}},
        )
        replies = {reply["id"]: reply for reply in peer.hear_all(6)}
    assert replies["no"]["error"] == {"type": "Overloaded", "message": "not today"}
    ended = [one for one in hooks.of_next("after_call") if one["hook"] == "after_call"]
    wait_until(lambda: len(ended) == 5 or ended.extend(one for one in hooks.since() if one["hook"] == "after_call"))
    assert {one["id"]: one["outcome"] for one in ended} == {
        "late": "out of time",
        "lost": "lost",
        "wrong": "refused",
        "no": "refused",
        "gone": "cancelled",
    }


def test_items_and_streams_have_their_hooks(server: RunningServer, hooks: Hooks) -> None:
    with server.connect() as peer:
        peer.send({"id": 1, "function": "add", "batch": [[1], [2], []]})
        assert len(peer.hear_all(4)) == 4
        peer.send({"id": 2, "function": "count", "args": [3], "stream": True})
        assert len(peer.hear_all(4)) == 4
    told: list[dict[str, Any]] = []
    wait_until(lambda: told.extend(hooks.since()) or len([one for one in told if one["hook"] == "after_call"]) == 4)
    ended = [(one["id"], one["item"], one["outcome"]) for one in told if one["hook"] == "after_call"]
    assert sorted(ended, key=repr) == sorted(
        [(1, 0, "done"), (1, 1, "done"), (1, 2, "refused"), (2, None, "done")], key=repr
    )


def test_a_hook_that_breaks_down_is_logged_and_breaks_nothing(server: RunningServer, hooks: Hooks) -> None:
    with server.connect() as peer:
        assert peer.ask({"id": "oh", "function": "add", "args": [1]}) == {"id": "oh", "result": 1}
    hooks.of_next("after_call")
    assert "the hook Guard.before_call failed" in server.output()
    assert "ZeroDivisionError: a defect of the hook" in server.output()


def test_servers_and_processes_begin_and_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with serving(apps=["support.watched_tasks"], **{LOG: str(path)}) as server:
        hooks = Hooks(path)
        assert server.call("add_in_process", 1) == 1
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        told = hooks.all()
    assert sorted(names(told)[:3]) == ["process_started", "process_started", "server_started"]
    assert names(told)[-1] == "server_stopped"
    assert names(told).count("process_stopped") == 2
    assert {one["group"] for one in told if one["hook"].startswith("process_")} == {"default"}


def test_a_second_signal_ends_no_call_without_its_hooks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with serving(apps=["support.watched_tasks"], **{LOG: str(path)}) as server, server.connect() as peer:
        hooks = Hooks(path)
        peer.send(*({"id": number, "function": "nap", "args": [60]} for number in range(9)))
        peer.send({"id": 9, "function": "nap", "batch": [[60], [60]]})
        wait_until(lambda: names(hooks.all()).count("before_task") == 11, "they run")
        server.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.output(), "it drains")
        time.sleep(0.6)  # for half a second, another one is taken for the same
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        told = hooks.all()
    assert {one["outcome"] for one in told if one["hook"] == "after_call"} == {"cancelled"}
    assert all(names(told).count(hook) == 11 for hook in ("call_failed", "after_call", "task_failed", "after_task"))
    assert "server_stopped" in names(told)


def test_it_may_be_given_by_name(tmp_path: Path) -> None:
    path = tmp_path / "log"
    options = ("--middleware", "support.watched_tasks:Recorder")
    with serving(*options, apps=["support.server_tasks:add"], **{LOG: str(path)}) as server:
        assert server.call("add", 1, 2) == 3
        assert names(Hooks(path).of_next("after_call"))[-1] == "after_call"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nothing", "write package.module:object"),
        ("no.such:thing", "there is no module 'no'"),
        ("support.watched_tasks:Nobody", "has no 'Nobody'"),
        ("support.watched_tasks:add", "is no greentask.Middleware"),
    ],
)
def test_a_wrong_name_is_an_error_at_start(name: str, told: str) -> None:
    done = greentask("serve", "support.server_tasks:add", "--listen", "127.0.0.1:0", "--middleware", name)
    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]


def test_what_processes_can_not_have_is_an_error() -> None:
    class Local(Middleware):
        def before_task(self, call: object) -> None:
            pass

    from support import server_tasks

    with pytest.raises(ConfigurationError, match="can't be copied to task processes"):
        Server(Tasks([server_tasks.add_in_process]), "127.0.0.1:0", middleware=[Local()])


def test_a_class_is_no_middleware_and_a_coroutine_no_hook() -> None:
    class Waiting(Middleware):
        async def before_call(self, call: CallInfo) -> None:  # type: ignore[override]
            pass

    with pytest.raises(ConfigurationError, match=r"is no greentask.Middleware; give an object, as Waiting\(\)"):
        Server([len], "127.0.0.1:0", middleware=[Waiting])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match=r"is no greentask.Middleware$"):
        Server([len], "127.0.0.1:0", middleware=[len])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match=r"before_call of middleware .* is a coroutine function"):
        Server([len], "127.0.0.1:0", middleware=[Waiting()])


def test_a_named_class_is_made_once_in_the_server_and_once_for_each_group(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(
        "import os\n"
        "from greentask import Middleware, task\n"
        "class Counting(Middleware):\n"
        "    def __init__(self):\n"
        "        with open('made', 'a') as file:\n"
        "            file.write(f'{os.getpid()}\\n')\n"
        "    def before_task(self, call): ...\n"
        "@task(process=True)\n"
        "def one(): ...\n"
        "@task(process='other')\n"
        "def two(): ...\n"
    )
    options = ("--middleware", "counting:Counting", "--group", "other=1")
    with serving(*options, apps=["counting"], cwd=tmp_path, processes=1):
        made = (tmp_path / "made").read_text().split()
    assert len(made) == len({*made}) == 3


@pytest.mark.slow
def test_every_call_begins_and_ends_once_whatever_becomes_of_it(tmp_path: Path) -> None:
    """In both places, with limits, cancellations, processes that die and callers that go away."""
    seed = random.getrandbits(32)
    print(f"seed: {seed}")
    chance, ids = random.Random(seed), itertools.count()
    options = ("--max-running", "nap=5", "--max-calls", "200", "--cancel-abandoned")
    path = tmp_path / "log"
    with serving(*options, apps=["support.watched_tasks"], **{LOG: str(path)}) as server:
        for _ in range(40):
            with server.connect() as peer:
                peer.send(*(any_call(chance, next(ids)) for _ in range(chance.randrange(1, 30))))
                if chance.random() < 0.5:
                    peer.end_sending()
                    peer.hear_rest()
                elif chance.random() < 0.5:
                    peer.reset()
        wait_until(lambda: not server.status()["in_flight"], "all have ended")
        assert not server.call("greentask.status", detail=True)["running"]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "Traceback" not in server.output()
    told = Hooks(path).all()
    begun, ended = (
        Counter((one["id"], one["item"], one["task"]) for one in told if one["hook"] == hook)
        for hook in ("before_call", "after_call")
    )
    assert begun == ended
    lost = [one for one in told if one["hook"] == "after_call" and one["outcome"] == "lost"]
    # One that is stopped as it ends in its process may be so in this very hook, before that has written it down.
    stopped = {
        one["id"] for one in told if one["hook"] == "after_call" and one["outcome"] in ("cancelled", "out of time")
    }
    hit = [one for one in told if one["hook"] == "before_task" and one["where"] == "process" and one["id"] in stopped]
    assert names(told).count("after_task") >= names(told).count("before_task") - len(lost) - len(hit)


def any_call(chance: random.Random, id: int) -> Any:
    """A line of many kinds, most of which go well."""
    function = chance.choice(["add", "add_in_process", "fail", "fail_in_process"])
    rpc = {"jsonrpc": "2.0", "method": function, "params": [1]}
    return chance.choice(
        [
            {"id": id, "function": function, "args": [1]},
            {"id": id, "function": function, "batch": [[1], [2], [], [3]]},
            {"id": id, "function": "count", "args": [20], "stream": chance.randrange(1, 30)},
            {"id": id, "function": "nap", "args": [chance.random() / 4], "timeout": chance.random() / 8},
            {"id": f"cancel {id}", "function": "greentask.cancel", "args": {"id": id - 1}},
            {"id": id, "function": "die" if chance.random() < 0.2 else "add"},
            {**rpc, "id": id},
            [{**rpc, "id": id}, rpc],
        ]
    )


# ---- Around one task, without a server


INFO = CallInfo("add", 1, None, None, "server", None, 0.0, {})


class Noting(Middleware):
    def __init__(self, name: str, told: list[str], interrupted_in: str = "") -> None:
        self.name = name
        self.told = told
        self.interrupted_in = interrupted_in

    def note(self, hook: str) -> None:
        self.told.append(f"{self.name} {hook}")
        if self.interrupted_in == hook:
            raise TimeLimit("out of time")

    def before_task(self, call: CallInfo) -> None:
        self.note("before_task")

    def task_failed(self, call: CallInfo, error: BaseException) -> None:
        self.note("task_failed")

    def after_task(self, call: CallInfo) -> None:
        self.note(f"after_task {call.outcome}")


@pytest.mark.parametrize(
    ("interrupted_in", "numerator"),
    [("before_task", 1), ("task_failed", 0), ("after_task done", 1), ("after_task failed", 0)],
)
def test_what_interrupts_a_hook_keeps_no_other_from_its_end(interrupted_in: str, numerator: int) -> None:
    told: list[str] = []
    hooks = watching.Hooks([Noting("outer", told), Noting("inner", told, interrupted_in)])
    with pytest.raises(TimeLimit):
        hooks.around(INFO, lambda: 1 / numerator, lambda error: {})
    assert [one.split()[:2] for one in told[-2:]] == [["inner", "after_task"], ["outer", "after_task"]]
