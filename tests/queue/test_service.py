"""Durable tasks of a real server, on the wire."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from greentask import Client
from greentask.queue.byhand import QueueFile
from greentask.queue.interface import Step
from greentask.queue.managing import Filter
from support.durable_tasks import marks
from support.programs import greentask
from support.queue_calls import enqueue, outcome, queue_server
from support.queues import message
from support.servers import LineClient, RunningServer, serving, wait_until

APPS = ("support.durable_tasks",)


server = queue_server


@pytest.fixture
def peer(server: RunningServer) -> Iterator[LineClient]:
    with server.connect() as peer:
        yield peer


def run(peer: LineClient, function: str, *args: object, **options: object) -> dict[str, Any]:
    """Enqueue it, and wait for its end."""
    return outcome(peer, enqueue(peer, function, *args, **options))


def dead(peer: LineClient, task: str) -> dict[str, Any]:
    return next(letter for letter in peer.call("greentask.queue", action="dead") if letter["task"] == task)


# ---- Well


@pytest.mark.parametrize("where", ["", "_in_process"])
def test_it_runs_and_its_result_is_told_whenever_one_asks(peer: LineClient, where: str) -> None:
    task = enqueue(peer, f"add{where}", 1, 2)
    found = outcome(peer, task)
    assert found == {"task": task, "name": f"add{where}", "state": "done", "attempts": 1, "result": 3}
    assert outcome(peer, task, False) == found


@pytest.mark.parametrize("function", ["me", "me_in_process"])
def test_a_task_knows_its_receipt_and_which_attempt_it_is(peer: LineClient, function: str) -> None:
    task = enqueue(peer, function)
    assert outcome(peer, task)["result"] == [task, function, 1]


def test_a_batch_is_kept_as_a_whole(peer: LineClient) -> None:
    reply = peer.ask({"function": "add", "id": 7, "batch": [[1], {"a": 2, "b": 3}, [4]], "enqueue": True})
    assert [outcome(peer, task)["result"] for task in reply["result"]["tasks"]] == [2, 5, 5]
    refused = peer.ask({"function": "add", "id": 8, "batch": [[1], [1, 2, 3]], "enqueue": True})
    assert refused["error"]["type"] == "InvalidArguments"
    assert refused["error"]["message"].startswith("item 1 of the 2, from 0 on: add(a: int, b: int = 1)")


def test_a_key_keeps_it_from_being_enqueued_twice(peer: LineClient) -> None:
    first = enqueue(peer, "add", 1, key="order 5")
    assert enqueue(peer, "add", 2, key="order 5") == first
    assert outcome(peer, first)["result"] == 2
    assert enqueue(peer, "add", 3, key="order 5") == first


def test_a_large_one_goes_there_and_back(peer: LineClient) -> None:
    text = "x" * 3_000_000
    for function in ("note", "note_in_process"):
        assert run(peer, function, "/dev/null", text)["result"] == text


def test_its_progress_is_told_to_who_waits(peer: LineClient) -> None:
    task = enqueue(peer, "steps", 5)
    peer.send({"function": "greentask.result", "args": [task, True], "id": 9, "progress": True})
    heard = []
    while "progress" in (message := peer.hear()):
        heard.append(message["progress"])
    assert message["result"]["result"] == 5
    assert heard
    assert all(report["total"] == 5 for report in heard)


def test_waiting_for_a_result_has_an_end(peer: LineClient) -> None:
    task = enqueue(peer, "add", 1, delay=3600)
    assert outcome(peer, task, 0.05)["state"] == "scheduled"
    assert outcome(peer, task, False)["state"] == "scheduled"
    peer.send({"function": "greentask.result", "args": [task, True], "id": "w"})
    assert peer.ask({"function": "greentask.cancel", "args": ["w"]})["id"] == "w"


def test_what_has_not_begun_can_be_revoked(peer: LineClient) -> None:
    task = enqueue(peer, "add", 1, delay=3600)
    assert peer.call("greentask.revoke", task=task) is True
    assert peer.call("greentask.revoke", task=task) is False
    found = outcome(peer, task)
    assert (found["state"], found["error"]["type"]) == ("revoked", "Cancelled")


@pytest.mark.parametrize("function", ["nap", "nap_in_process"])
def test_what_runs_is_ended_where_that_is_asked_for(peer: LineClient, tmp_path: Path, function: str) -> None:
    task = enqueue(peer, function, str(tmp_path / "marks"), 60, retries=5)
    wait_until(lambda: marks(tmp_path / "marks") == ["began"])
    assert peer.call("greentask.revoke", task=task) is False
    assert peer.call("greentask.revoke", task=task, running=True) is True
    found = outcome(peer, task)
    assert (found["state"], found["attempts"]) == ("revoked", 1)
    assert found["error"] == {"type": "Cancelled", "message": "it was revoked", "started": True}
    assert peer.call("greentask.revoke", task=task, running=True) is False
    assert marks(tmp_path / "marks") == ["began"]
    refused = peer.ask({"function": "greentask.revoke", "args": [task, 1], "id": 5})
    assert refused["error"]["type"] == "InvalidArguments"


@pytest.mark.slow
def test_what_runs_is_ended_wherever_that_is_asked_for(tmp_path: Path) -> None:
    """At a server that doesn't have the task, and at the file."""
    queue, file = str(tmp_path / "tasks.db"), tmp_path / "marks"
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(serving("--queue", queue, apps=apps, processes=1))
            for apps in (APPS, ("support.durable_tasks:add",))
        )
        peer, stranger = (stack.enter_context(server.connect()) for server in (one, other))
        for revoke in (
            lambda task: stranger.call("greentask.revoke", task=task, running=True),
            lambda task: "being ended" in greentask("queue", "revoke", "--running", task, "-q", queue).stdout,
        ):
            file.unlink(missing_ok=True)
            task = enqueue(peer, "nap_in_process", str(file), 60)
            wait_until(lambda: marks(file) == ["began"])
            assert revoke(task)
            assert outcome(peer, task)["state"] == outcome(stranger, task)["state"] == "revoked"
        assert one.status()["queue"]["revoked"] == 2


def test_who_waits_hears_of_a_revocation(server: RunningServer, peer: LineClient) -> None:
    task = enqueue(peer, "add", 1, delay=3600)
    peer.send({"function": "greentask.result", "args": [task, True], "id": 5})
    with server.connect() as other:
        wait_until(lambda: server.status()["in_flight"] >= 1)
        assert other.call("greentask.revoke", task=task)
    assert peer.hear()["result"]["state"] == "revoked"


def test_max_running_holds_for_durable_tasks(peer: LineClient, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    tasks = [enqueue(peer, "alone", str(file), 0.02) for _ in range(5)]
    assert [outcome(peer, task)["state"] for task in tasks] == ["done"] * 5
    assert marks(file) == ["began", "ended"] * 5


def test_what_was_taken_ahead_and_does_not_begin_is_given_back(tmp_path: Path) -> None:
    with serving("--queue", str(tmp_path / "tasks.db"), apps=APPS, processes=1) as server, server.connect() as peer:
        file = str(tmp_path / "marks")
        quick = peer.ask({"function": "add_in_process", "id": 1, "batch": [[1]] * 500, "enqueue": True})
        outcome(peer, quick["result"]["tasks"][-1])
        naps = [enqueue(peer, "nap_in_process", file, 3.0) for _ in range(4)]
        states = wait_until(
            lambda: (now := [outcome(peer, nap, False)["state"] for nap in naps]).count("waiting") == 3 and now,
            "those that did not begin wait for whoever can run them",
            2.5,
        )
        assert states == ["running", "waiting", "waiting", "waiting"]


def test_a_batch_has_its_bounds(peer: LineClient) -> None:
    reply = peer.ask({"function": "add", "id": 1, "batch": [[1]] * 100_001, "enqueue": True})
    assert reply["error"]["type"] == "InvalidArguments"
    assert "100,000 are the most (max_batch)" in reply["error"]["message"]


# ---- One after another


def test_a_graph_without_a_head_is_enqueued_as_a_whole(peer: LineClient) -> None:
    fan = {"group": [{"function": "add", "args": [1]}, [{"function": "add", "args": {"a": 2}}, {"function": "odd"}]]}
    placed = peer.call("greentask.compose", chain=[fan, {"function": "collect"}])["tasks"]
    group, last = placed
    assert [len(chain) for chain in group["tasks"]] == [1, 2]
    assert outcome(peer, last)["result"] == [2, 3]
    assert outcome(peer, group["group"])["result"] == {"total": 2, "done": 2, "failed": 0}


@pytest.mark.parametrize("size", [10, 200_000])
@pytest.mark.parametrize("function", ["note", "note_in_process"])
def test_one_that_follows_by_id_is_enqueued_late(peer: LineClient, function: str, size: int) -> None:
    before = enqueue(peer, "note", "/dev/null", "/dev/null")
    assert outcome(peer, before)["state"] == "done"
    late = enqueue(peer, function, "x" * size, after=before)
    assert outcome(peer, late)["result"] == "x" * size


def test_a_group_is_open_until_a_line_closes_it(peer: LineClient) -> None:
    def add(**options: object) -> dict[str, Any]:
        reply = peer.ask({"function": "add", "id": 1, "batch": [[1, 1]], "enqueue": options})
        return dict(reply.get("result") or reply["error"])

    begun = add(group=True, open=True, then={"function": "collect"})
    add(group=begun["group"], open=True)
    assert outcome(peer, begun["group"], 0.05)["state"] == "running"
    add(group=begun["group"])
    assert outcome(peer, begun["then"][0])["result"] == [2, 2, 2]
    assert "no group that is open" in add(group=begun["group"])["message"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"args": [1, 1], "enqueue": {"group": True}}, "a group is made of a batch"),
        ({"args": [1], "enqueue": {"after": "x"}}, "the queue knows no task 'x'"),
        ({"args": [1, 2, 3], "enqueue": {"after": "x"}}, "too many"),
        ({"args": [1], "enqueue": {"then": {"function": "nobody"}}}, "nobody"),
        ({"batch": [[1]], "enqueue": {"after": "x"}}, "a batch doesn't follow"),
        ({"batch": [[1], [2]], "enqueue": {"key": "k"}}, "a key is one task's"),
    ],
)
def test_what_can_not_be_composed_is_refused(peer: LineClient, call: dict[str, Any], said: str) -> None:
    assert said in peer.ask({"function": "add", "id": 1, **call})["error"]["message"]
    assert "at least one" in peer.ask({"function": "greentask.compose", "args": [[]], "id": 2})["error"]["message"]


# ---- Attempts


def test_it_is_tried_again_as_it_says(peer: LineClient) -> None:
    found = run(peer, "fail", "ValueError", 3)
    assert (found["state"], found["result"], found["attempts"]) == ("done", 3, 3)


def test_after_its_last_attempt_it_is_a_dead_letter_that_has_everything(peer: LineClient) -> None:
    task = enqueue(peer, "fail")
    found = outcome(peer, task)
    assert (found["state"], found["attempts"]) == ("failed", 3)
    assert found["error"] == {"type": "ValueError", "message": "attempt 3"}
    letter = dead(peer, task)
    assert (letter["name"], letter["args"], letter["attempts"]) == ("fail", [], 3)
    assert [error["message"] for error in letter["errors"]] == ["attempt 1", "attempt 2", "attempt 3"]
    assert all("in fail" in error["traceback"] for error in letter["errors"])


def test_large_dead_letters_are_told_a_few_at_a_time(peer: LineClient) -> None:
    first = enqueue(peer, "fail", "KeyError")
    ids = [enqueue(peer, "fail", "x" * 600_000) for _ in range(3)]
    assert [outcome(peer, task)["error"]["type"] for task in (first, *ids)] == ["KeyError"] * 4
    told, after = [], first
    while letters := peer.call("greentask.queue", action="dead", task=after, limit=10_000):
        assert len(letters) == 1, "whoever asks doesn't hold up the loop, nor fill the memory"
        told += letters
        after = told[-1]["task"]
    assert [letter["task"] for letter in told] == ids
    assert all(peer.call("greentask.queue", action="purge", task=task) for task in (first, *ids))


def test_some_errors_are_not_worth_another_attempt(peer: LineClient) -> None:
    assert run(peer, "fail", "KeyError")["attempts"] == 1


def test_the_enqueuer_may_say_how_often(peer: LineClient) -> None:
    assert run(peer, "fail", retries=0)["attempts"] == 1
    assert run(peer, "fail", "ValueError", 5, retries=4)["result"] == 5


def test_a_process_task_is_tried_again_as_well(peer: LineClient) -> None:
    task = enqueue(peer, "fail_in_process")
    assert (outcome(peer, task)["state"], outcome(peer, task)["attempts"]) == ("failed", 2)
    assert "in fail_in_process" in dead(peer, task)["errors"][1]["traceback"]


@pytest.mark.parametrize("where", ["", "_in_process"])
def test_a_task_asks_to_be_tried_again(peer: LineClient, where: str) -> None:
    assert run(peer, f"again{where}", 4)["result"] == 5
    assert run(peer, f"again{where}", 4, True)["result"] == 5, "by a class of its own"
    assert run(peer, f"again{where}", 4, retries=2)["error"] == {"type": "Retry", "message": "not yet"}


@pytest.mark.parametrize("where", ["", "_in_process"])
def test_one_that_ends_itself_as_if_somebody_had_failed(peer: LineClient, where: str) -> None:
    """It is not given back, or it would begin again at once, and for ever."""
    found = run(peer, f"give_up{where}")
    assert (found["state"], found["attempts"], found["error"]["type"]) == ("failed", 1, "Cancelled")


def test_one_that_is_out_of_time_failed(peer: LineClient) -> None:
    assert run(peer, "too_long")["error"]["type"] == "DeadlineExceeded"


def test_one_whose_process_dies_is_tried_again(peer: LineClient) -> None:
    assert run(peer, "die", 3)["result"] == 3


def test_poison_becomes_a_dead_letter(peer: LineClient) -> None:
    task = enqueue(peer, "die")
    assert (outcome(peer, task)["state"], outcome(peer, task)["error"]["type"]) == ("failed", "WorkerLost")
    assert len(dead(peer, task)["errors"]) == 5
    assert run(peer, "add_in_process", 1)["result"] == 2


def test_a_dead_letter_can_be_tried_again_or_purged(peer: LineClient) -> None:
    task = enqueue(peer, "fail", "KeyError")
    outcome(peer, task)
    assert peer.call("greentask.queue", action="retry", task=task) is True
    wait_until(lambda: outcome(peer, task)["state"] == "failed")
    assert peer.call("greentask.queue", action="purge", task=task) is True
    assert peer.ask({"function": "greentask.result", "args": [task]})["error"]["type"] == "QueueError"


@pytest.mark.slow
def test_what_waits_for_a_plain_call_is_given_to_a_front_that_is_idle(tmp_path: Path) -> None:
    naps = {"alone": tmp_path / "alone", "nap_in_process": tmp_path / "process"}
    options = ("--fronts", "2", "--processes", "2", "--drain-timeout", "0.1")
    with (
        serving("--queue", str(tmp_path / "tasks.db"), *options, apps=APPS) as server,
        server.connect() as busy,
    ):
        busy.send(*({"function": nap, "args": [str(file), 15], "id": nap} for nap, file in naps.items()))
        wait_until(lambda: [marks(file) for file in naps.values()] == [["began"]] * 2)
        tasks = [enqueue(busy, "alone", "/dev/null", 0), enqueue(busy, "add_in_process", 1)]
        assert [outcome(busy, task)["state"] for task in tasks] == ["done"] * 2
        assert [marks(file) for file in naps.values()] == [["began"]] * 2


@pytest.mark.slow
def test_plain_calls_of_which_there_are_always_some_do_not_hold_one_up_for_ever(tmp_path: Path) -> None:
    nap = {"function": "nap_in_process", "args": ["/dev/null", 0.2]}
    options = ("--queue", str(tmp_path / "tasks.db"), "--processes", "1", "--drain-timeout", "0.1")
    with serving(*options, apps=APPS) as server, server.connect() as busy, server.connect() as peer:
        busy.send(*({**nap, "id": number} for number in range(30)))
        task = enqueue(peer, "add_in_process", 1)
        until = time.monotonic() + 60
        while outcome(peer, task, False)["state"] != "done":
            assert time.monotonic() < until, "its turn has not come"
            reply = busy.hear()
            assert reply["result"] == "rested"
            busy.send({**nap, "id": reply["id"]})
        assert peer.call("greentask.status")["queue"]["released"] > 0


# ---- What is refused


@pytest.mark.parametrize(
    ("message", "type", "says"),
    [
        ({"function": "ad", "args": [1]}, "UnknownTask", "did you mean add"),
        ({"function": "add", "args": {"c": 1}}, "InvalidArguments", "missing a required argument"),
        ({"function": "add", "args": [1], "stream": True}, "InvalidMessage", "durable"),
        ({"function": "add", "args": [1], "enqueue": {"delay": -1}}, "InvalidMessage", "delay is seconds"),
        ({"function": "add", "args": [1], "enqueue": {"dely": 1}}, "InvalidMessage", "'dely'"),
        ({"function": "add", "args": [1], "enqueue": {"delay": 1, "at": 1}}, "InvalidMessage", "don't go together"),
        ({"function": "add", "args": [1], "enqueue": {"priority": 11}}, "InvalidMessage", "from -10 to 10"),
        ({"function": "add", "args": [1], "enqueue": {"key": ""}}, "InvalidMessage", "key is a string"),
        ({"function": "add", "args": [1], "enqueue": "now"}, "InvalidMessage", "true or an object"),
        ({"function": "greentask.result", "args": ["x"], "enqueue": False}, "QueueError", "knows no task 'x'"),
        ({"function": "greentask.result", "args": [5], "enqueue": False}, "InvalidArguments", "a string"),
        ({"function": "greentask.result", "args": ["x", "y"], "enqueue": False}, "InvalidArguments", "wait is true"),
        ({"function": "greentask.queue", "args": ["drop"], "enqueue": False}, "InvalidArguments", "action is"),
        ({"function": "greentask.ping", "args": []}, "UnknownTask", "greentask.ping"),
    ],
)
def test_what_cannot_be_enqueued_is_refused(peer: LineClient, message: dict[str, Any], type: str, says: str) -> None:
    reply = peer.ask({"id": 3, "enqueue": True, **message})
    assert reply["error"]["type"] == type, reply
    assert says in reply["error"]["message"]


def test_without_a_queue_it_is_said_how_to_get_one() -> None:
    with serving(apps=APPS) as server, server.connect() as peer:
        reply = peer.ask({"function": "add", "args": [1], "id": 1, "enqueue": True})
        assert reply["error"]["type"] == "QueueError"
        assert "--queue FILE" in reply["error"]["message"]
        assert peer.ask({"function": "greentask.queue"})["error"]["type"] == "QueueError"


def test_a_file_that_is_no_queue_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("Dear diary, " * 1000)
    ended = greentask("serve", "support.durable_tasks", "-l", "127.0.0.1:0", "--queue", str(tmp_path / "diary"))
    assert ended.returncode == 1
    assert "another kind of file" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


# ---- Coming and going


def test_what_waits_runs_after_a_restart(tmp_path: Path) -> None:
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    with serving("--queue", queue, apps=APPS) as server, server.connect() as peer:
        done = enqueue(peer, "add", 1)
        outcome(peer, done)
        later = enqueue(peer, "note", str(file), "later", delay=1.0)
        short = enqueue(peer, "nap", str(file), 0.3)
        wait_until(lambda: marks(file) == ["began"])
    assert marks(file)[:2] == ["began", "ended"], "it had time for its end"
    with serving("--queue", queue, apps=APPS) as server, server.connect() as peer:
        assert [outcome(peer, task)["state"] for task in (done, short, later)] == ["done"] * 3
    assert marks(file) == ["began", "ended", "later"]


def test_what_the_code_has_no_more_waits_and_what_does_not_fit_is_a_dead_letter(tmp_path: Path) -> None:
    path = str(tmp_path / "tasks.db")
    with QueueFile(path, make=True) as file:
        gone, changed = file.enqueue(message("gone")), file.enqueue(message("fail", "[1, 2, 3]"))
        in_process = file.enqueue(message("add_in_process", '{"a": 1, "c": 3}'))
        (behind,) = file.transact(lambda store: store.composer.compose([Step(message("add", "[null]"))], after=gone))
        with serving("--queue", path, apps=APPS) as server, server.connect() as peer:
            for task in (changed, in_process):
                found = outcome(peer, task)
                assert (found["state"], found["attempts"]) == ("failed", 1)
                assert found["error"]["type"] == "InvalidArguments"
            assert [outcome(peer, task, 0.05)["state"] for task in (gone, behind)] == ["waiting", "blocked"]
            assert file.change_all("revoke", Filter(name="gone")) == 1
            assert outcome(peer, behind)["error"]["type"] == "Cancelled"


@pytest.mark.slow
def test_what_has_no_time_for_its_end_is_run_again_at_once(tmp_path: Path) -> None:
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    with serving("--queue", queue, "--drain-timeout", "0.1", "--grace", "0.1", apps=APPS) as server:
        with server.connect() as peer:
            tasks = [enqueue(peer, name, str(file), 30 if name == "nap" else 20) for name in ("nap", "nap_in_process")]
            wait_until(lambda: len(marks(file)) == 2)
        server.process.terminate()
        assert server.wait() == 0
    with serving("--queue", queue, apps=APPS) as server, server.connect() as peer:
        wait_until(lambda: len(marks(file)) == 4, "both run again", 3.0)
        assert {outcome(peer, task, False)["state"] for task in tasks} == {"running"}
        assert {outcome(peer, task, False)["attempts"] for task in tasks} == {1}, "a stop in good order is no attempt"


@pytest.mark.slow
def test_what_is_cut_off_runs_elsewhere_when_its_process_has_ended_and_not_before(tmp_path: Path) -> None:
    """Also where processes that run nothing take leave slowly meanwhile."""
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    with serving("--queue", queue, "--drain-timeout", "0.1", "-p", "2", apps=APPS) as first:
        with first.connect() as peer:
            for task in [enqueue(peer, "beat", str(tmp_path / "warm"), 0.5) for _ in range(2)]:  # one in each
                assert outcome(peer, task)["state"] == "done"
            assert len({line.partition(":")[0] for line in marks(tmp_path / "warm")}) == 2
            task = enqueue(peer, "beat", str(file), 4)
            wait_until(lambda: len(marks(file)) > 0)
        with serving("--queue", queue, "-p", "1", apps=APPS) as second, second.connect() as peer:
            first.process.terminate()
            assert outcome(peer, task)["state"] == "done"
    times: dict[str, list[float]] = {}
    for line in marks(file):
        pid, _, moment = line.partition(":")
        times.setdefault(pid, []).append(float(moment))
    (one, other) = times.values()
    assert max(one) < min(other)


@pytest.mark.slow
def test_two_fronts_share_the_work(tmp_path: Path) -> None:
    queue = str(tmp_path / "tasks.db")
    with serving("--queue", queue, "--fronts", "2", apps=APPS) as server, ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(4)]
        tasks = [enqueue(peer, "add", number) for number in range(10) for peer in peers]
        assert [outcome(peers[number % 4], task)["state"] for number, task in enumerate(tasks)] == ["done"] * 40
        assert all(front["connections"] for front in server.status()["fronts"])
        for peer in peers:  # all at the same time
            for number in range(20):
                peer.send({"function": "one_of", "args": [number], "id": number, "enqueue": {"delay": 3600}})
        kept = [{reply["id"]: reply["result"]["task"] for reply in (peer.hear() for _ in range(20))} for peer in peers]
        assert kept == [kept[0]] * 4
        assert len(set(kept[0].values())) == 20


@pytest.mark.slow
def test_a_reload_keeps_everything(tmp_path: Path) -> None:
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    with serving("--queue", queue, apps=APPS) as server:
        with server.connect() as peer:
            long = enqueue(peer, "nap", str(file), 1.0)
            later = enqueue(peer, "note", str(file), "later", delay=0.5)
            wait_until(lambda: marks(file) == ["began"])
        front = server.pid
        server.signal(1)
        wait_until(lambda: server.fronts()[-1].pid != front)
        with Client(server.address) as client:  # which asks again where the old front says that it goes
            for task in (long, later):
                client.receipt(task).result(30)
    assert sorted(marks(file)) == ["began", "ended", "later"]


def test_nobody_is_asked_while_results_are_waited_for(server: RunningServer, peer: LineClient) -> None:
    task = enqueue(peer, "add", 1, delay=3600)
    alone = wakings(server.pid)
    for number in range(200):
        peer.send({"function": "greentask.result", "args": {"task": task, "wait": True}, "id": number})
    wait_until(lambda: server.status()["in_flight"] >= 200)
    wait_until(lambda: wakings(server.pid) < alone + 50, "nobody wakes for the 200 who wait, once all are known")
    assert peer.call("greentask.revoke", task=task)
    assert {peer.hear()["result"]["state"] for _ in range(200)} == {"revoked"}


def wakings(pid: int, seconds: float = 0.5) -> int:
    """How often its threads have gone to sleep in that time, and so were woken."""
    began = sleeps(pid)
    time.sleep(seconds)
    return sleeps(pid) - began


def sleeps(pid: int) -> int:
    told = [status.read_text() for status in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(line.split()[1]) for one in told for line in one.splitlines() if line.startswith("voluntary_"))


# ---- When


def test_a_ttl_is_the_tasks_unless_the_caller_says_one(peer: LineClient) -> None:
    assert run(peer, "at_once", delay=0.2)["state"] == "expired"
    assert run(peer, "at_once", delay=0.2, ttl=60)["state"] == "done"


def test_who_waits_for_a_task_that_is_over_hears_of_it_also_in_a_pause(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    with QueueFile(path, make=True) as file:
        file.pause(None)
    with serving("--queue", str(path), apps=APPS) as server, server.connect(8.0) as peer:
        task = enqueue(peer, "add", 1, ttl=0.3)
        found = outcome(peer, task)
    assert (found["state"], found["error"]["type"]) == ("expired", "DeadlineExceeded")


def test_a_priority_is_the_tasks_unless_the_caller_says_one(peer: LineClient) -> None:
    ids = [enqueue(peer, "urgent", delay=3600), enqueue(peer, "urgent", delay=3600, priority=0)]
    shown = [peer.call("greentask.queue", action="show", task=id) for id in ids]
    assert [one["priority"] for one in shown] == [7, 0]
    for id in ids:
        assert peer.call("greentask.revoke", task=id)


def test_of_calls_that_are_the_same_to_a_singleton_one_waits_or_runs(peer: LineClient) -> None:
    large = "x" * 100_000  # of such a line a server keeps no arguments
    tasks = [enqueue(peer, "one_of", what, delay=3600) for what in ("a", large, "a", large, "b")]
    assert (tasks[2], tasks[3], len(set(tasks))) == (tasks[0], tasks[1], 3)
    assert peer.call("greentask.revoke", task=tasks[0])
    (again,) = peer.ask({"function": "one_of", "id": 7, "batch": [["a"]], "enqueue": True})["result"]["tasks"]
    assert again not in tasks
    assert outcome(peer, again)["result"] == "a"
    assert enqueue(peer, "add", 1, singleton="mine", delay=3600) == enqueue(peer, "add", 2, singleton="mine")


def test_limits_are_flags(tmp_path: Path) -> None:
    options = ("--max-steps", "2", "--max-members", "3", "--max-taken", "50", "--max-batch", "4")
    options += ("--max-lost-processes", "2", "--queue-memory", "1", "--keep-attempts", "2")
    with serving("--queue", str(tmp_path / "tasks.db"), *options, apps=APPS) as server, server.connect() as peer:
        step = {"function": "collect"}

        def refused(**call: object) -> str:
            return str(peer.ask({"function": "add", "id": 1, **call})["error"]["message"])

        assert "more than 2 steps (max_steps)" in refused(args=[1], enqueue={"then": [step] * 3})
        assert "more than 2 steps (max_steps)" in refused(function="greentask.compose", args=[[step] * 3])
        rpc = {"function": "add", "args": [1], "then": [step] * 3}
        assert "more than 2 steps (max_steps)" in refused(function="greentask.enqueue", args=rpc)
        assert "4 are the most (max_batch)" in refused(batch=[[1]] * 5, enqueue=True)
        assert "at most 3 members (max_members)" in refused(batch=[[1]] * 4, enqueue={"then": step})
        kept = peer.ask(
            {"function": "note", "id": 1, "batch": [["/dev/null", "x" * 40]] * 3, "enqueue": {"then": step}}
        )
        assert "more than 50 bytes (max_taken)" in outcome(peer, kept["result"]["then"][0])["error"]["message"]
        kept = peer.ask({"function": "add", "id": 1, "batch": [[1]] * 3, "enqueue": {"then": [step, step]}})
        assert outcome(peer, kept["result"]["then"][1])["result"] == [2, 2, 2]
        died = outcome(peer, enqueue(peer, "die"))
        assert (died["state"], died["attempts"], died["error"]["type"]) == ("failed", 2, "WorkerLost")
        naps = [enqueue(peer, "nap", str(file := tmp_path / "marks"), 0.1) for _ in range(3)]
        assert {outcome(peer, nap)["state"] for nap in naps} == {"done"}
        assert marks(file) == ["began", "ended"] * 3, "there is room for one at a time"
        failed = enqueue(peer, "fail")
        assert outcome(peer, failed)["attempts"] == 3
        assert ["traceback" in error for error in dead(peer, failed)["errors"]] == [False, True, True]


def test_a_queue_takes_some_memory() -> None:
    told = greentask("serve", APPS[0], "--queue", "tasks.db", "--queue-memory", "0")
    assert told.returncode == 2
    assert "'0' is not above 0" in told.stderr


@pytest.mark.parametrize(("wrong", "said"), [("0", "from 1 to 512M"), ("1G", "from 1 to 512M"), ("5X", "write 4G")])
def test_how_much_is_taken_is_in_bytes_that_a_row_can_have(wrong: str, said: str) -> None:
    told = greentask("serve", APPS[0], "--queue", "tasks.db", "--max-taken", wrong)
    assert told.returncode == 2
    assert said in told.stderr


@pytest.mark.slow
def test_with_two_fronts_each_tick_comes_once_and_rates_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other, file = tmp_path / "ticks", tmp_path / "ticks-process", tmp_path / "tasks.db"
    monkeypatch.setenv("TICKS", str(path))
    apps, started = ("support.ticking_tasks", *APPS), time.time()
    with serving("--queue", str(file), "--fronts", "2", apps=apps) as server, server.connect() as peer:
        reply = peer.ask({"function": "now", "id": 7, "batch": [[]] * 8, "enqueue": True})
        began = sorted(outcome(peer, task)["result"] for task in reply["result"]["tasks"])
        shown = greentask("queue", "stats", GREENTASK_QUEUE=str(file)).stdout
        assert "runs by itself" in shown
        assert "tick_in_process" in shown
        wait_until(lambda: len(marks(path)) >= 3 and len(marks(other)) >= 2, 20)
    assert all(later - one > 0.5 for one, later in zip(began, began[5:])), began
    with QueueFile(file) as queue:
        tasks = queue.look("list", limit=1000)["tasks"]
    ticks = Counter(int(task["enqueued"] // 2) for task in tasks if task["name"] == "tick_in_process")
    assert set(ticks.values()) == {1}
    assert sum(task["name"] == "tick" for task in tasks) <= time.time() - started + 1
