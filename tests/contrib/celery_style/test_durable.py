"""Tasks in Celery's style where the server has a queue: they outlive who sends them, and the server."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from greentask import Client, ConnectionLost, InvalidArguments, QueueError, UnknownTask
from greentask.contrib.celery_style import AsyncResult, Celery, NotCarriedOver, Signature, chain, chord, group
from greentask.contrib.celery_style.durable import has_queue
from greentask.contrib.celery_style.exceptions import (
    ChordError,
    MaxRetriesExceededError,
    TaskRevokedError,
    TimeoutError,
)
from support import celery_tasks as tasks
from support.programs import run_source
from support.servers import RunningServer, serving, wait_until

SOON = 20
APPS = ["support.celery_tasks"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    file = tmp_path_factory.mktemp("durable") / "tasks.db"
    with serving("--queue", str(file), apps=APPS, processes=2) as running:
        yield running


pytestmark = pytest.mark.usefixtures("client")


def test_greentask_s_own_names_enqueue_them_too(client: Client) -> None:
    assert tasks.add.using(client, delay=0.05).enqueue(1, y=2).result(timeout=SOON) == 3
    receipt = tasks.seen.using(client).enqueue(5)
    seen = receipt.result(timeout=SOON)
    assert (seen["id"], seen["args"]) == (receipt.id, [5])
    assert tasks.at_last.using(client).enqueue().result(timeout=SOON) == 3


def test_a_task_is_enqueued_and_has_the_id_of_its_receipt(client: Client) -> None:
    result = tasks.seen.delay(1, 2)
    assert result.get(SOON)["id"] == result.id
    assert client.receipt(result.id).state == "done"
    assert (result.state, result.successful(), result.name) == ("SUCCESS", True, "support.celery_tasks.seen")
    assert tasks.echo.delay(1, 2, a=3).get(SOON) == [[1, 2], {"a": 3}]
    failed = tasks.fail.delay()
    with pytest.raises(ValueError, match="no luck"):
        failed.get(SOON)
    assert (failed.state, failed.failed()) == ("FAILURE", True)
    other = Celery("other", client=client, set_as_current=False)
    assert other.send_task("support.celery_tasks.add", (1, 5)).get(SOON) == 6


def test_a_countdown_and_an_eta_are_waited_for(tmp_path: Path) -> None:
    began = time.time()
    eta = datetime.now(timezone.utc) + timedelta(seconds=0.3)
    late, later = tasks.add.apply_async((1, 2), countdown=0.2), tasks.add.apply_async((3, 4), eta=eta)
    assert (late.state, late.ready()) == ("PENDING", False)
    with pytest.raises(TimeoutError, match=r"has no result after 0\.01 s"):
        late.get(0.01)
    assert late.get(SOON) == 3
    assert time.time() - began >= 0.2
    assert later.get(SOON) == 7
    assert time.time() >= eta.timestamp()


def test_what_has_not_begun_in_time_has_expired() -> None:
    result = tasks.add.apply_async((1, 2), countdown=0.2, expires=0.05)
    with pytest.raises(TaskRevokedError, match=r"add\[.*\] expired before its turn came"):
        result.get(SOON)
    assert result.state == "REVOKED"
    assert tasks.add.apply_async((1, 2), expires=60).get(SOON) == 3


def test_a_task_that_waits_is_revoked_and_one_that_runs_where_that_is_wanted(tmp_path: Path) -> None:
    waits = tasks.add.apply_async((1, 2), countdown=60)
    waits.revoke(terminate=True)
    assert waits.state == "REVOKED"
    with pytest.raises(TaskRevokedError, match="was revoked"):
        waits.get(SOON)
    runs = tasks.advance.delay(str(tmp_path / "file"))
    wait_until(lambda: runs.state == "HALFWAY")
    assert runs.info == {"current": 1, "total": 2}
    assert AsyncResult(runs.id).info == {"current": 1, "total": 2}
    runs.revoke()
    assert runs.state == "HALFWAY"
    runs.revoke(terminate=True)
    with pytest.raises(TaskRevokedError, match="was revoked"):
        runs.get(SOON)
    assert runs.state == "REVOKED"


def test_a_task_is_tried_again_as_often_as_it_asks(tmp_path: Path) -> None:
    result = tasks.ask_again.delay(str(tmp_path / "tried"), 2)
    assert result.get(SOON) == [2, 2]
    assert (tmp_path / "tried").read_text().split("\n")[:-1] == [f"{result.id} {number}" for number in range(3)]
    with pytest.raises(ValueError, match="no luck"):  # the error that retry(exc=) was given
        tasks.ask_again.delay(str(tmp_path / "too often"), 5).get(SOON)
    assert len((tmp_path / "too often").read_text().split("\n")) == 3 + 1
    with pytest.raises(MaxRetriesExceededError, match=r"give_up\[.*\] has been tried again 1 times"):
        tasks.give_up.delay().get(SOON)


def test_a_task_that_waits_to_be_tried_again_says_so() -> None:
    result = tasks.try_again.delay()  # in five seconds
    wait_until(lambda: result.state == "RETRY")
    result.revoke()
    assert result.state == "REVOKED"


def test_a_task_is_tried_again_by_itself_after_some_errors() -> None:
    assert tasks.by_itself.delay("OSError", 2).get(SOON) == 2
    for error, times in ((OSError, 3), (PermissionError, 1), (KeyError, 1)):
        with pytest.raises(error, match="no luck"):
            tasks.by_itself.delay(error.__name__, times).get(SOON)


def test_another_process_finds_the_result_by_its_id(server: RunningServer) -> None:
    source = (
        "from support import celery_tasks as tasks\n"
        "print(tasks.add.apply_async((20, 22), countdown=0.3).id)"  # and ends
    )
    (id,) = run_source(source, GREENTASK_URL=server.address)
    found = tasks.app.AsyncResult(id)
    assert found.get(SOON) == 42
    assert (found.state, found.name) == ("SUCCESS", "support.celery_tasks.add")


class Answers:
    """A client whose server answers everything with the same error."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def using(self, **_: Any) -> "Answers":
        return self

    def submit_args(self, *_: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        if self.error is None:
            future.set_result(None)
        else:
            future.set_exception(self.error)
        return future


def test_a_queue_that_cannot_tell_at_the_moment_is_not_taken_for_none() -> None:
    def asked(error: Exception | None) -> bool:
        return has_queue(Answers(error))  # type: ignore[arg-type]

    assert asked(None)
    assert not asked(QueueError("this server has no queue for durable tasks: start it with --queue FILE"))
    assert not asked(UnknownTask("no task is named 'greentask.queue'"))
    for error in (QueueError("the disk is broken"), ConnectionLost("gone")):
        with pytest.raises(type(error), match=str(error)):
            asked(error)


def test_an_id_that_nobody_knows_is_pending() -> None:
    unknown = AsyncResult("2f5c", app=tasks.app)
    assert (unknown.state, unknown.ready(), unknown.result) == ("PENDING", False, None)
    with pytest.raises(QueueError, match="knows no task '2f5c'"):
        unknown.get(SOON)


def test_canvases_are_kept_as_a_whole(client: Client) -> None:
    add, echo = tasks.add, tasks.echo
    assert chain(add.s(1, 1), add.s(3)).delay().get(SOON) == 5
    assert group(add.s(i, i) for i in range(3))().get(SOON) == [0, 2, 4]
    assert chord([add.s(1, 1), add.s(2, 2)])(echo.s()).get(SOON) == [[[2, 4]], {}]
    assert [child.get(SOON) for child in add.apply_async((1, 2), link=add.s(3)).children] == [6]
    result = chain(add.s(1, 1), add.s(y=3).set(countdown=0.1), add.si(4, 5))()
    assert (result.get(SOON), result.parent.get(), result.parent.parent.get()) == (9, 5, 2)
    assert client.receipt(result.id).result() == 9
    assert chain(add.s(1), group(add.s(2), add.s(3) | add.s(y=4)), echo.s(5)).apply_async((10,)).get(SOON) == [
        [[13, 18], 5],
        {},
    ]
    assert add.chunks(zip(range(4), range(4), strict=True), 2)().get(SOON) == [[0, 2], [4, 6]]
    assert group()().get(SOON) == []
    assert chord([])(echo.s(1)).get(SOON) == [[[], 1], {}]
    assert chain(group(add.s(1, 1), tasks.by_itself.s("OSError", 2)), echo.s())().get(SOON) == [[[2, 2]], {}]


def test_what_follows_on_a_failure_fails_and_behind_a_group_it_is_a_chord_error() -> None:
    result = chain(tasks.fail.s(), tasks.add.s(1))()
    with pytest.raises(ValueError, match="no luck"):
        result.get(SOON)
    result = chord([tasks.add.s(1, 1), tasks.fail.s()])(tasks.echo.s())
    with pytest.raises(ChordError, match="a task before it failed: ValueError: no luck"):
        result.get(SOON)
    assert result.failed()
    with pytest.raises(ValueError, match="no luck"):  # the body's own
        chord([tasks.add.s(1, 1)])(tasks.fail.s()).get(SOON)


def test_what_a_canvas_in_a_queue_has_not_is_refused() -> None:
    eta = datetime.now(timezone.utc)
    for options in ({"eta": eta}, {"task_id": "mine"}, {"link": tasks.add.s(1)}):
        with pytest.raises(NotCarriedOver, match=rf"{next(iter(options))}= in a call of .* part of a chain"):
            chain(tasks.add.s(1, 1), tasks.add.s(3).set(**options))()
    assert chain(tasks.add.s(1, 1).set(eta=eta), tasks.add.s(3))().get(SOON) == 5


def test_a_task_is_known_by_an_id_of_one_s_own(tmp_path: Path) -> None:
    result = tasks.advance.apply_async((str(tmp_path / "file"),), task_id="mine")
    assert result.id == "mine"
    found = AsyncResult("mine", app=tasks.app)
    wait_until(lambda: found.state == "HALFWAY")
    assert tasks.advance.apply_async(("another",), task_id="mine").state == "HALFWAY", "it is sent once"
    (tmp_path / "file").touch()
    assert AsyncResult("mine", app=tasks.app).get(SOON) == found.get(SOON) == result.get(SOON) == "there"
    assert tasks.seen.apply_async(task_id="yours").get(SOON)["id"] == "yours"
    waits = tasks.add.apply_async((1, 2), task_id="hers", countdown=60)
    AsyncResult("hers", app=tasks.app).revoke()
    assert waits.state == "REVOKED"


def test_a_result_is_asked_for_by_a_key(client: Client) -> None:
    receipt = client.using(key="order 5").enqueue("support.celery_tasks.add", 1, 2)
    told = client.call("greentask.result", key="order 5", wait=True)
    assert (told["task"], told["result"]) == (receipt.id, 3)
    with pytest.raises(QueueError, match="knows no task with the key 'order 6'"):
        client.call("greentask.result", key="order 6")
    for wrong in ({}, {"task": receipt.id, "key": "order 5"}, {"key": 5}):
        with pytest.raises(InvalidArguments, match=r"greentask\.result: .* by its key"):
            client.call("greentask.result", **wrong)


@pytest.mark.slow
def test_a_chord_and_a_chain_go_on_whatever_is_killed_in_their_midst(tmp_path: Path) -> None:
    """Part of each is done and part of it runs when a task process, a front, and then everything is killed."""
    file, gate, listen = str(tmp_path / "ran"), str(tmp_path / "gate"), [f"unix://{tmp_path}/socket"]
    queue = ("--queue", str(tmp_path / "tasks.db"))
    waiting = ["header2", "header3", "second"]  # they run, and wait for the gate

    def ran(name: str) -> list[list[str]]:
        lines = Path(file).read_text().splitlines() if Path(file).exists() else []
        return [line.split()[1:] for line in lines if line.split()[0] == name]

    def all_run(times: int) -> bool:
        return all(len(ran(name)) >= times for name in waiting)

    with serving(*queue, apps=APPS, processes=3, listen=listen) as server, Client(listen[0]) as client:
        own = Celery("own", client=client, set_as_current=False)

        def held(name: str, *value: Any) -> Signature:
            gated = (gate,) if name in waiting else ()
            return own.signature("support.celery_tasks.held", (*value, name, file, *gated))

        whole = chord([held(f"header{number}", number) for number in range(4)])(held("body"))
        last = chain(held("first", "a"), held("second"), held("third"))()
        wait_until(lambda: all_run(1), "all that waits for the gate to run")
        wait_until(lambda: sum(result.ready() for result in whole.parent) == 2, "the others to be done")
        os.kill(int(ran("header2")[0][1]), signal.SIGKILL)
        wait_until(lambda: len(ran("header2")) == 2)
        for front in server.fronts():
            front.kill()
        wait_until(lambda: all_run(2), "another front to have them run")
        server.signal_all(signal.SIGKILL)
    assert not ran("body")
    assert not ran("third")
    Path(gate).touch()
    with serving(*queue, apps=APPS, processes=3, listen=listen), Client(listen[0]) as client:
        own = Celery("own", client=client, set_as_current=False)
        assert own.AsyncResult(whole.id).get(SOON) == [0, 1, 2, 3]
        assert own.AsyncResult(last.id).get(SOON) == "a"
        for result in (*whole.parent.results, last.parent, last.parent.parent):
            assert own.AsyncResult(result.id).state == "SUCCESS"
        left = client.call("greentask.queue", action="stats")
        assert (left["waiting"], left["running"], left["blocked"], left["failed"]) == (0, 0, 0, 0)
    for name in ("body", "third", "first", "header0", "header1"):
        assert len(ran(name)) == 1, f"{name} ran {len(ran(name))} times"


@pytest.mark.slow
def test_what_was_sent_survives_that_everything_is_killed(tmp_path: Path) -> None:
    queue, listen = ("--queue", str(tmp_path / "tasks.db")), [f"unix://{tmp_path}/socket"]
    appended, tried = tmp_path / "appended", tmp_path / "tried"
    with serving(*queue, apps=APPS, processes=1, listen=listen) as server, Client(listen[0]) as client:
        own = Celery("own", client=client, set_as_current=False)
        for number in range(20):
            own.send_task("support.celery_tasks.append", (str(appended), str(number)), countdown=1)
        last = own.send_task("support.celery_tasks.ask_again", (str(tried), 1), countdown=1)
        add = own.signature("support.celery_tasks.add", (1,), countdown=1)
        whole = chord([add.clone((n,)) for n in range(5)])(own.signature("support.celery_tasks.echo", (7,)))
        server.signal_all(signal.SIGKILL)
    with serving(*queue, apps=APPS, processes=1, listen=listen), Client(listen[0]) as client:
        found = Celery("own", client=client, set_as_current=False).AsyncResult(last.id)
        assert found.get(SOON) == [1, 2]
        found = Celery("own", client=client, set_as_current=False).AsyncResult(whole.id)
        assert found.get(SOON) == [[[1, 2, 3, 4, 5], 7], {}]
        wait_until(lambda: appended.exists() and len(appended.read_text().split()) >= 20)
    assert {int(line) for line in appended.read_text().split()} == set(range(20))
