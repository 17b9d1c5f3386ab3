"""`greentask queue`, run as a script or a person would: beside a server, through one, and on a file alone."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greentask.queue.byhand import QueueFile
from greentask.queue.interface import Ending, Step, Want
from greentask.queue.schema import VERSION
from greentask.queue.sqlite import SQLiteQueue
from greentask.tasks.schedules import Interval
from support.durable_tasks import marks
from support.namespaces import ALONE, can_unshare
from support.parts import require
from support.programs import environment, greentask
from support.queue_calls import enqueue, outcome
from support.queues import make_older, message, version_of
from support.servers import LineClient, RunningServer, serving, wait_until

pytestmark = pytest.mark.once

APPS = ("support.durable_tasks",)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("queue") / "tasks.db"


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[RunningServer]:
    with serving("--queue", str(file), "--fronts", "2", apps=APPS) as server:
        yield server


@pytest.fixture
def peer(server: RunningServer) -> Iterator[LineClient]:
    with server.connect() as peer:
        yield peer


def running(**where: str) -> Run:
    def run(*arguments: str, code: int = 0, **variables: str) -> "subprocess.CompletedProcess[str]":
        done = greentask("queue", *arguments, **where, **variables)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback (most" not in done.stderr
        return done

    return run


@pytest.fixture
def queue(server: RunningServer, file: Path) -> Run:
    """`greentask queue` with the file's name: half the work of asking its server for it."""
    return running(GREENTASK_QUEUE=str(file))


@pytest.fixture
def found(server: RunningServer) -> Run:
    """`greentask queue` with the server's address, by which it finds the file."""
    return running(GREENTASK_URL=server.address)


def lines(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def dead(peer: LineClient, kind: str = "ValueError") -> str:
    """A dead letter."""
    task = enqueue(peer, "fail", kind, retries=1)
    assert outcome(peer, task)["state"] == "failed"
    return task


# ---- Beside a server


def test_tasks_are_listed_by_what_is_asked_for(queue: Run, peer: LineClient) -> None:
    value, key, later = dead(peer), dead(peer, "KeyError"), enqueue(peer, "add", 1, delay=3600)
    listed = {task["task"]: task for task in lines(queue("list", "--json", "--limit", "0"))}
    assert {listed[task]["state"] for task in (value, key)} == {"failed"}
    assert listed[value]["error"] == {"type": "ValueError", "message": "attempt 2"}
    assert (listed[value]["attempts"], listed[key]["attempts"]) == (2, 1)
    assert listed[later]["state"] == "scheduled"

    def ids(*arguments: str) -> set[str]:
        return {task["task"] for task in lines(queue("list", "--json", *arguments))}

    assert ids("--error", "KeyError") >= {key}
    assert value not in ids("--error", "KeyError")
    assert ids("--state", "scheduled", "--task", "add") >= {later}
    assert not ids("--state", "failed", "--task", "add")
    assert not ids("--older", "1h")
    assert {value, later} <= ids("--younger", "1h")
    assert not ids("--task", "nobody")
    assert len(ids("--limit", "1")) == 1


def test_a_dead_letter_is_shown_with_every_attempts_error(found: Run, peer: LineClient) -> None:
    task = dead(peer)
    letter = json.loads(found("show", task, "--json").stdout)
    assert letter["args"] == ["ValueError"]
    assert [error["message"] for error in letter["errors"]] == ["attempt 1", "attempt 2"]
    assert all("durable_tasks.py" in error["traceback"] for error in letter["errors"])
    shown = found("show", task, COLUMNS="80").stdout
    assert "attempt 2" in shown
    assert "raise" in shown


def test_of_many_attempts_the_last_ones_are_shown(tmp_path: Path) -> None:
    path, error = tmp_path / "tasks.db", b'{"type":"Retry","message":"not yet"}'
    with QueueFile(path, make=True) as file:
        task = file.enqueue(message("pay"))
        for _ in range(25):
            taken = file.transact(lambda store: store.take([Want(frozenset({"pay"}), 1)], 7))
            file.transact(lambda store: store.settle([(taken[0], Ending("retry", error))]))  # noqa: B023
    shown = greentask("queue", "show", task, "--queue", str(path)).stdout
    assert "5 earlier attempts are left out: --json has them" in shown
    assert [int(line.split()[1].rstrip(",")) for line in shown.splitlines() if line.startswith("attempt ")] == [
        *range(6, 26)
    ]
    told = greentask("queue", "show", task, "--json", "--queue", str(path)).stdout
    assert len(json.loads(told)["errors"]) == 25
    with QueueFile(path) as file:
        file.transact(lambda store: store.take([Want(frozenset({"pay"}), 1)], 7))
    assert "is running: revoke is for" in (left := greentask("queue", "revoke", task, "--queue", str(path))).stderr
    assert left.stderr.endswith("; --running ends it\n")


def test_long_names_and_errors_leave_room_for_the_rest(tmp_path: Path) -> None:
    name, path = "app.tasks.mailing.send_newsletter_to_all_customers", tmp_path / "tasks.db"
    error = b'{"type":"app.errors.ProviderUnavailable","message":"come again %b"}' % (b"later " * 50)
    with QueueFile(path, make=True) as file:
        file.enqueue(message(name))
        taken = file.transact(lambda store: store.take([Want(frozenset({name}), 1)], 7))
        file.transact(lambda store: store.settle([(taken[0], Ending("failed", error))]))
    told = greentask("queue", "list", "--queue", str(path), COLUMNS="80").stdout.splitlines()
    assert max(map(len, told)) <= 80
    assert told[1].split()[0] == taken[0].id
    for part in ("failed", " s ", " 1  ", "app.errors.Pro"):
        assert part in told[1]
    assert name in "".join(line[15:].split("  ")[0].strip() for line in told[1:])


@pytest.mark.slow
def test_tables_fit_80_columns_and_obey_no_name(queue: Run, peer: LineClient) -> None:
    task = enqueue(peer, "note", "/dev/null", "\x1b[31mred\x1b[0m" + "x" * 200)
    assert outcome(peer, task)["state"] == "done"
    dead(peer)
    for arguments in (("list",), ("stats",), ("list", "--state", "failed")):
        told = queue(*arguments, COLUMNS="80").stdout
        assert max(map(len, told.splitlines())) <= 80
    told = queue("list", COLUMNS="80").stdout
    assert task in told, "an id is never cut"
    assert "\x1b" not in queue("show", task, COLUMNS="80").stdout


def test_dead_letters_are_tried_again_or_purged_one_or_by_filter(queue: Run, peer: LineClient) -> None:
    one, other = dead(peer), dead(peer, "KeyError")
    queue("retry", one)
    assert outcome(peer, one)["state"] == "failed", "again"
    queue("retry", "0000000000000", code=1)
    assert json.loads(queue("purge", "--state", "failed", "--error", "KeyError", "--json").stdout)["changed"] >= 1
    queue("show", other, code=1)
    queue("show", one)
    queue("purge", one)
    queue("show", one, code=1)


def test_what_has_not_begun_is_revoked_by_filter(found: Run, peer: LineClient) -> None:
    tasks = [enqueue(peer, "me", delay=3600) for _ in range(3)]
    peer.send({"function": "greentask.result", "args": [tasks[0], True], "id": "waits"})
    assert json.loads(found("revoke", "--task", "me", "--json").stdout) == {"changed": 3}
    assert peer.hear()["result"]["state"] == "revoked", "who waits for it hears of that"
    found("revoke", *tasks, code=1)


def test_a_paused_task_waits_on_all_fronts_and_others_go_on(queue: Run, peer: LineClient, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    queue("pause", "note")
    queue("pause", "note", code=1)
    tasks = [enqueue(peer, "note", str(file), number) for number in range(5)]
    assert outcome(peer, enqueue(peer, "add", 1))["result"] == 2
    assert {outcome(peer, task, False)["state"] for task in tasks} == {"waiting"}
    assert json.loads(queue("stats", "--json").stdout)["paused_tasks"] == ["note"]
    queue("resume", "note")
    assert {outcome(peer, task)["state"] for task in tasks} == {"done"}
    assert sorted(marks(file)) == ["0", "1", "2", "3", "4"]
    queue("resume", "note", code=1)


def test_a_paused_queue_waits_over_a_restart_of_its_servers(found: Run, server: RunningServer) -> None:
    found("pause")
    with server.connect() as peer:
        task = enqueue(peer, "add", 1)
    assert greentask("reload", GREENTASK_URL=server.address).returncode == 0
    with server.connect() as peer:
        assert outcome(peer, task, 0.3)["state"] == "waiting"
        found("resume")
        assert outcome(peer, task)["result"] == 2


def test_a_paused_queue_costs_nothing(queue: Run, server: RunningServer, peer: LineClient) -> None:
    queue("pause")
    task = enqueue(peer, "add", 1)
    wait_until(lambda: outcome(peer, task, False)["state"] == "waiting")
    before = peer.call("greentask.queue")["server"]["commits"]
    outcome(peer, task, 0.5)
    assert peer.call("greentask.queue")["server"]["commits"] - before < 5, "nobody looks again and again"
    queue("resume")
    outcome(peer, task)


# ---- Asking a server elsewhere


@pytest.mark.slow
def test_a_server_that_is_not_here_is_asked(server: RunningServer, peer: LineClient) -> None:
    """From a container, say, where the process id of the server's master means nothing."""
    require(can_unshare(), "no namespaces may be made here")
    one, other, later = dead(peer), dead(peer), enqueue(peer, "add", 1, delay=3600)

    def queue(*arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        command = [*ALONE, sys.executable, "-m", "greentask", "queue", *arguments, "--server", server.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
        assert done.returncode == code, done.stdout + done.stderr
        return done

    assert {one, other} <= {
        task["task"] for task in lines(queue("list", "--state", "failed", "--limit", "0", "--json"))
    }
    assert "attempt 2" in queue("show", one).stdout
    queue("show", "0000000000000", code=1)
    assert "waiting" in queue("stats").stdout
    queue("purge", one)
    queue("purge", one, code=1)
    queue("revoke", later)
    assert "needs the queue's file" in queue("purge", "--all", code=4).stderr
    assert "needs the queue's file" in queue("pause", code=4).stderr


@pytest.mark.parametrize(
    "wrong", [{"action": "list", "states": ["odd"]}, {"action": "list", "older": "1"}, {"action": "pause"}]
)
def test_what_the_wire_does_not_do_is_refused(peer: LineClient, wrong: dict[str, Any]) -> None:
    reply = peer.ask({"function": "greentask.queue", "args": wrong, "id": 1})
    assert reply["error"]["type"] == "InvalidArguments"


def test_arguments_are_hidden_where_the_server_hides_them(tmp_path: Path) -> None:
    options = ("--queue", str(tmp_path / "tasks.db"), "--hide-arguments")
    with serving(*options, apps=APPS, processes=1) as server, server.connect() as peer:
        task = dead(peer)
        assert "args" not in peer.call("greentask.queue", action="show", task=task)
        assert all("args" not in letter for letter in peer.call("greentask.queue", action="dead"))


# ---- What is said of mistakes


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("lst",), 2, "No such command 'lst'; did you mean list?"),
        (("retry",), 2, "say which tasks"),
        (("retry", "X", "--all"), 2, "say which tasks"),
        (("list", "--older", "soon"), 2, "no time such as"),
        (("list", "--state", "odd"), 2, "odd"),
        (("list", "--server", "127.0.0.1:1"), 3, "127.0.0.1:1"),
        (("list", "--server", "127.0.0.1:1"), 3, "or name the queue's file: --queue FILE"),
        (
            ("list", "--queue", "/tmp/none.db", "--server", "127.0.0.1:1"),
            2,
            "--server the server that has one: give one",
        ),
        (("list", "--queue", "/tmp/none.db", "--pid", "1"), 2, "--pid the server that has one"),
        (("pause", ""), 2, "a task's name is not ''; without a NAME it is the whole queue"),
        (("list", "--pid", str(2**22)), 3, "no greentask server on this machine"),
        (("list", "--queue", "/nowhere/tasks.db"), 7, "there is no queue '/nowhere/tasks.db'"),
        (("list", "--queue", __file__), 7, "another kind of file"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = greentask("queue", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if code != 2:
        assert done.stderr.count("\n") == 1


def test_retrying_what_has_not_failed_makes_no_sense(queue: Run) -> None:
    assert "retry is for tasks that are failed, not done" in queue("retry", "--state", "done", code=2).stderr


def test_a_server_that_is_named_goes_before_the_file_of_the_environment() -> None:
    done = greentask("queue", "list", "--server", "127.0.0.1:1", GREENTASK_QUEUE="/nowhere/tasks.db")
    assert (done.returncode, "127.0.0.1:1" in done.stderr) == (3, True)


def test_a_name_that_nobody_has_heard_of_is_told_with_close_ones(queue: Run, peer: LineClient) -> None:
    enqueue(peer, "add", 1)
    said = "greentask: no task 'ad' has been enqueued here yet; did you mean add"
    for command, code in (("list", 0), ("purge", 1), ("export", 0)):
        assert said in queue(command, "--task", "ad", code=code).stderr
    assert queue("list", "--task", "add", "--state", "expired").stderr == ""


def test_what_could_not_be_changed_is_told_with_its_state(queue: Run, peer: LineClient) -> None:
    failed, later = dead(peer), enqueue(peer, "add", 1, delay=3600)
    done = queue("retry", failed, later, "nobody", code=1)
    assert done.stdout == "1 task waits again\n"
    assert done.stderr.splitlines() == [
        f"greentask: {later} (add) is scheduled: retry is for tasks that are failed",
        "greentask: the queue knows no task 'nobody', or not any more",
    ]
    assert outcome(peer, failed)["state"] == "failed"
    done = queue("purge", later, code=1)
    assert done.stdout == "no task is changed\n"
    assert "is scheduled: purge is for tasks that are done, expired, failed, revoked" in done.stderr
    assert queue("revoke", later).stdout == "1 task will not run\n"
    done = queue("revoke", later, "--running", code=1)
    assert "is revoked: revoke is for tasks that are blocked, running, scheduled, waiting" in done.stderr


def test_what_failed_with_another_is_retried_by_that(queue: Run, peer: LineClient) -> None:
    told = peer.call(
        "greentask.compose", chain=[{"function": "fail", "args": ["KeyError"]}, {"function": "me", "takes": False}]
    )
    first, second = told["tasks"]
    assert outcome(peer, second)["state"] == "failed"
    done = queue("retry", second, code=1)
    assert (
        done.stderr
        == f"greentask: {second} (me) is left as it is: it failed with {first}, which is failed: retry that one\n"
    )
    assert f"failed with  {first}" in queue("show", second).stdout


def test_why_one_is_not_retried_that_never_ran_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    made = SQLiteQueue(path, max_taken=1)
    made.open()
    first, body = made.compose([Step(message("a"), False), Step(message("b", "[null]"), errors=True)]).result(10.0)
    made.close()
    with QueueFile(path) as file:
        file.change("revoke", [first])
    done = greentask("queue", "retry", body, "--queue", str(path))
    assert done.returncode == 1
    assert f"{body} (b) is left as it is: it has not run: QueueError: what came of those before it" in done.stderr


def test_a_batch_is_shown_with_how_far_it_is(queue: Run, peer: LineClient) -> None:
    call = {"function": "odd", "batch": [[1], [2], [3]], "id": 1, "enqueue": {"group": True, "open": True}}
    kept = peer.ask(call)["result"]
    for task in kept["tasks"]:
        outcome(peer, task)
    shown = queue("show", kept["group"]).stdout
    assert ("progress  3 of 3 have ended, 1 failed" in shown, "args" in shown) == (True, False)
    queue("revoke", kept["group"])


def test_a_reader_that_has_seen_enough_ends_it_quietly(file: Path, server: RunningServer) -> None:
    command = f"{sys.executable} -m greentask queue export --queue {file} | head -c 1"
    with server.connect() as peer:
        for _ in range(3):  # more than a pipe holds
            assert outcome(peer, enqueue(peer, "note", os.devnull, "x" * 100_000))["state"] == "done"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, env=environment())
    assert (done.stdout, done.stderr) == ("{", "")


def test_a_server_without_a_queue_says_so() -> None:
    with serving(apps=(*APPS, "support.ticking_tasks"), processes=1) as server:
        assert (
            "tick, tick_in_process won't run by themselves, for this server has no queue: start it with --queue FILE"
            in server.output()
        )
        done = greentask("queue", "list", "--server", server.address)
    assert (done.returncode, done.stderr) == (
        4,
        "greentask: this server has no queue for durable tasks: start it with --queue FILE\n",
    )


# ---- On a file alone


@pytest.mark.slow
def test_a_file_that_no_server_has_is_seen_and_changed(tmp_path: Path) -> None:
    file = str(tmp_path / "tasks.db")
    with serving("--queue", file, apps=APPS, processes=1) as server, server.connect() as peer:
        one = dead(peer)
        later = enqueue(peer, "add", 1, delay=3600)

    def queue(*arguments: str) -> "subprocess.CompletedProcess[str]":
        done = greentask("queue", *arguments, GREENTASK_QUEUE=file)
        assert done.returncode == 0, done.stderr
        return done

    assert [task["task"] for task in lines(queue("list", "--json"))] == [one, later]
    queue("retry", "--all")
    queue("revoke", later)
    assert [task["state"] for task in lines(queue("list", "--json"))] == ["waiting", "revoked"]
    stats = json.loads(queue("stats", "--json").stdout)
    assert (stats["waiting"], stats["failed"], stats["served"]) == (1, 0, False)
    with serving("--queue", file, apps=APPS, processes=1) as server, server.connect() as peer:
        assert outcome(peer, one)["attempts"] == 2, "it was begun anew"


def test_a_schedule_that_no_server_runs_any_more_is_told_as_that(tmp_path: Path) -> None:
    path, schedule = tmp_path / "tasks.db", Interval(60.0)
    with QueueFile(path, make=True) as file:
        for name, late in (("gone", 7200.0), ("there", -30.0)):
            file.transact(
                lambda store, name=name, late=late: store.db.execute(
                    "INSERT INTO schedule VALUES (?, ?, ?, 0)",
                    (store.lane(name), schedule.spec, store.time.now() - late),
                )
            )
    shown = greentask("queue", "stats", "--queue", str(path)).stdout
    assert re.search(r"^gone +not run for 2\.0 h$", shown, re.M), shown
    assert re.search(r"^there +(30\.0|[12]\d\.\d) s$", shown, re.M), shown


# ---- greentask enqueue


def test_a_task_is_enqueued_and_its_id_printed(server: RunningServer, peer: LineClient) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        done = greentask("enqueue", *arguments, GREENTASK_URL=server.address)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout.strip() or done.stderr

    assert outcome(peer, run("add", "a=1", "b=2"))["result"] == 3
    assert outcome(peer, run("add", "--json", "[4]", "--priority", "3", "--ttl", "1m"))["result"] == 5
    later = run("add", "a=1", "--delay", "1h", "--key", "only once")
    assert outcome(peer, later, False)["state"] == "scheduled"
    assert run("add", "a=2", "--key", "only once", "--key-ttl", "1d") == later
    alone = run("add", "a=1", "--delay", "1h", "--singleton", "mine")
    assert run("add", "a=2", "--singleton", "mine") == alone
    assert "no task is named" in run("ad", "a=1", code=4)
    assert "InvalidArguments" in run("add", "c=1", code=4)
    at = run("add", "a=1", "--at", "2100-01-01T00:00+01:00")
    assert peer.call("greentask.queue", action="show", task=at)["due_in"] == pytest.approx(
        4102441200 - time.time(), abs=60
    )
    assert "don't go together" in run("add", "a=1", "--delay", "1h", "--at", "1800000000", code=2)
    assert "give one of them" in run("add", "--queue", "/tmp/none.db", "--server", server.address, code=2)
    assert "it goes with --key" in run("add", "a=1", "--key-ttl", "1h", code=2)
    assert "ttl is seconds above 0" in run("add", "a=1", "--ttl", "0s", code=2)


def test_a_task_is_put_straight_into_a_file(file: Path, peer: LineClient) -> None:
    done = greentask("enqueue", "add", "a=1", "--queue", str(file))
    assert outcome(peer, done.stdout.strip())["result"] == 2, "the servers were told"
    assert done.stderr == ""
    mistyped = greentask("enqueue", "addd", "a=1", "--queue", str(file))
    assert mistyped.stderr == "greentask: mind that no task 'addd' has been enqueued here yet; did you mean add?\n"
    assert greentask("queue", "revoke", mistyped.stdout.strip(), "--queue", str(file)).returncode == 0
    gone = greentask("enqueue", "add", "a=1", "--queue", str(file) + ".gone")
    assert (gone.returncode, "there is no queue" in gone.stderr) == (7, True)


# ---- Moving and copying


@pytest.mark.slow
def test_a_queue_moves_to_another_machine(queue: Run, peer: LineClient, tmp_path: Path) -> None:
    later, failed = enqueue(peer, "add", 5, delay=3600), dead(peer)
    exported = queue("export", "--task", "add", "--state", "scheduled").stdout
    letters = queue("export", "--state", "failed").stdout
    new = str(tmp_path / "new.db")
    for text in (exported, letters, letters):
        done = greentask("queue", "import", "--queue", new, "--json", input=text)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new"] == 0
    assert greentask("queue", "show", later, "--queue", new).returncode == 0
    assert greentask("queue", "retry", failed, "--queue", new).returncode == 0
    with serving("--queue", new, apps=APPS, processes=1) as server, server.connect() as other:
        assert outcome(other, failed)["state"] == "failed", "it has run there"


def test_where_an_export_has_no_room_it_is_said_in_one_line(file: Path, server: RunningServer, tmp_path: Path) -> None:
    for output, named in (("/dev/full", "/dev/full"), ("-", "stdout")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "greentask", "queue", "export", output, "--queue", str(file)],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
        assert (done.returncode, done.stderr) == (7, f"greentask: {named}: No space left on device\n")
    folder = greentask("queue", "export", str(tmp_path), "--queue", str(file))
    assert (folder.returncode, folder.stderr) == (7, f"greentask: {tmp_path}: Is a directory\n")


@pytest.mark.slow
def test_no_queue_is_made_for_what_is_no_export(tmp_path: Path) -> None:
    done = greentask("queue", "import", "--queue", str(tmp_path / "new.db"), input="hello\n")
    assert (done.returncode, done.stderr.count("\n")) == (7, 1)
    assert "line 1 is no task of a queue" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_looking_at_a_queue_of_an_older_version_leaves_it_as_it_is(tmp_path: Path) -> None:
    path, copy = tmp_path / "tasks.db", tmp_path / "copy.db"
    make_older(path)
    queue = running(GREENTASK_QUEUE=str(path))
    for looking in (["stats"], ["list"], ["show", "1M89JMZ1P2QDY"], ["export"]):
        assert "is of an older greentask (" in queue(*looking, code=7).stderr, looking
    assert "is as it should be" in queue("check").stdout
    assert "verified" in queue("backup", str(copy)).stdout
    assert version_of(path) == version_of(copy) == VERSION - 1
    assert queue("pause").stdout == "the queue is paused\n"
    assert version_of(path) == VERSION
    assert "the whole queue" in queue("stats").stdout


def test_a_backup_of_a_queue_that_is_served(queue: Run, peer: LineClient, tmp_path: Path) -> None:
    task, copy = enqueue(peer, "add", 5, delay=3600), str(tmp_path / "copy.db")
    assert "verified" in queue("backup", copy).stdout
    assert "is there already" in queue("backup", copy, code=7).stderr
    assert "is a folder: name a file in it" in queue("backup", str(tmp_path), "--force", code=7).stderr
    queue("backup", copy, "--force")
    assert "as it should be" in queue("check").stdout
    assert json.loads(greentask("queue", "show", task, "--queue", copy, "--json").stdout)["state"] == "scheduled"


@pytest.mark.slow
def test_a_damaged_file_is_refused_and_what_can_be_read_is_saved(tmp_path: Path) -> None:
    """All the way that a message at the start points out."""
    old, new = tmp_path / "tasks.db", str(tmp_path / "new.db")
    with QueueFile(old, make=True) as file:
        for number in range(100):
            file.transact(lambda store: store.enqueue([message("add", f"[1, {number}]")]))  # noqa: B023
        tasks = [task["task"] for task in file.look("list")["tasks"]]
    with old.open("r+b") as data:
        data.seek(-4096, os.SEEK_END)
        data.write(os.urandom(4096))
    options = ("--listen", "127.0.0.1:0", "--queue", str(old))
    refused = greentask("serve", *APPS, *options)
    assert refused.returncode == 1
    assert "is damaged" in refused.stderr
    assert f"greentask queue recover {old} NEWFILE" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    done = greentask("queue", "recover", str(old), new)
    assert done.returncode == 0, done.stderr
    assert "1 damaged page" in done.stdout
    with serving("--queue", new, apps=APPS, processes=1) as server, server.connect() as peer:
        saved = [task for task in tasks if "result" in peer.ask({"function": "greentask.result", "args": [task, True]})]
    assert len(saved) >= 50
