"""What hooks see of calls that are enqueued, and that they can refuse them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.guarded_tasks import SEEN
from support.queue_calls import enqueue, outcome
from support.servers import LineClient, RunningServer, serving, wait_until


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hooks") / "seen"


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[RunningServer]:
    options = ("--queue", str(path.with_name("tasks.db")), "--log-calls")
    with serving(*options, apps=["support.guarded_tasks"], processes=1, **{SEEN: str(path)}) as server:
        yield server


@pytest.fixture
def peer(server: RunningServer, path: Path) -> Iterator[LineClient]:
    path.write_text("")
    with server.connect() as peer:
        yield peer


def seen(path: Path, count: int) -> list[list[Any]]:
    """What the hooks have seen, when it is so much."""
    lines = wait_until(lambda: len(told := path.read_text().splitlines()) >= count and told, f"{count} hooks")
    assert len(lines) == count, lines
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("function", ["add", "add_in_process"])
def test_an_enqueueing_is_a_call_of_its_own(server: RunningServer, peer: LineClient, path: Path, function: str) -> None:
    task = enqueue(peer, function, 1)
    assert outcome(peer, task)["result"] == 2
    told = seen(path, 4)
    for one in (
        ["before", function, 1, False, 1, None],
        ["after", function, 1, False, 1, "done"],
        ["before", function, task, True, 0, None],
        ["after", function, task, True, 0, "done"],
    ):
        assert one in told
    wait_until(lambda: f"enqueueing 1 of {function}, id 1, by 127.0.0.1:" in server.output())
    assert server.status()["calls"]["done"] >= 1


def test_a_refusal_refuses_it_and_nothing_is_kept(peer: LineClient, path: Path) -> None:
    reply = peer.ask({"function": "secret", "id": 1, "enqueue": True})
    assert reply["error"]["type"] == "Overloaded"
    assert reply["error"]["message"].endswith("may not have 1 of secret")
    assert [one[0] for one in seen(path, 3)] == ["before", "failed", "after"]
    assert seen(path, 3)[-1] == ["after", "secret", 1, False, 1, "refused"]
    assert peer.call("greentask.queue", action="list", name="secret")["tasks"] == []


def test_a_batch_is_asked_about_once(peer: LineClient, path: Path) -> None:
    reply = peer.ask({"function": "add", "id": 1, "batch": [[n] for n in range(11)], "enqueue": True})
    assert reply["error"]["message"].endswith("may not have 11 of add")
    assert seen(path, 3)[-1] == ["after", "add", 1, False, 11, "refused"]
    path.write_text("")
    reply = peer.ask({"function": "add", "id": 2, "batch": [[n] for n in range(10)], "enqueue": {"group": True}})
    assert outcome(peer, reply["result"]["group"])["result"]["done"] == 10
    told = seen(path, 22)
    assert ["before", "add", 2, False, 10, None] in told
    assert ["after", "add", 2, False, 10, "done"] in told


STEPS = [{"function": "add"}, {"group": [[{"function": "add"}, {"function": "secret"}]]}]


@pytest.mark.parametrize(
    "call",
    [
        {"function": "add", "args": [1], "enqueue": {"then": STEPS}},
        {"function": "greentask.compose", "args": [[{"function": "add", "args": [1]}, *STEPS]]},
    ],
)
def test_what_is_to_follow_is_asked_about_as_well(peer: LineClient, path: Path, call: dict[str, Any]) -> None:
    before = peer.call("greentask.queue")["ended"]
    reply = peer.ask({"id": 1, **call})
    assert reply["error"]["message"].endswith("may not have 1 of secret")
    told = seen(path, 6)
    assert told[:2] == [["before", "add", 1, False, 3, None], ["before", "secret", 1, False, 1, None]]
    assert {one[-1] for one in told[2:]} == {"refused"}
    assert peer.call("greentask.queue")["ended"] == before, "nothing of it is kept"


def test_what_follows_later_is_asked_about(peer: LineClient, path: Path) -> None:
    task = enqueue(peer, "add", 1, delay=3600)
    reply = peer.ask({"function": "secret", "id": 1, "enqueue": {"after": task}})
    assert reply["error"]["type"] == "Overloaded"
    assert peer.call("greentask.revoke", task=task)


def test_what_does_not_fit_has_been_refused_for_the_hooks_too(peer: LineClient, path: Path) -> None:
    reply = peer.ask({"function": "add", "args": [1, 2, 3], "id": 1, "enqueue": True})
    assert reply["error"]["type"] == "InvalidArguments"
    assert seen(path, 3)[-1] == ["after", "add", 1, False, 1, "refused"]
    peer.ask({"function": "ad", "args": [1], "id": 1, "enqueue": True})
    seen(path, 3)  # what no task was called for has no hooks
