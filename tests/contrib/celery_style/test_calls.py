"""Tasks in Celery's style on a real server: what the programs don't show."""

import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from contextlib import ExitStack
from datetime import date, datetime, timedelta, timezone
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from greentask import Client, ConnectionLost, DeadlineExceeded, InvalidArguments
from greentask.contrib.celery_style import AsyncResult, Celery, NeedsQueue, chain, group, transport
from greentask.contrib.celery_style.exceptions import ChordError, TaskRevokedError, TimeoutError
from support import celery_tasks as tasks
from support.programs import environment, run_source
from support.servers import RunningServer, serving, wait_until

pytestmark = pytest.mark.usefixtures("client")

SOON = 20


def release(file: Path) -> None:
    file.touch()


# ---- What a task sees


def test_a_task_sees_its_request() -> None:
    result = tasks.seen.apply_async((1, [2]), task_id="mine")
    assert result.get(SOON) == {
        "id": "mine",
        "task": "support.celery_tasks.seen",
        "args": [1, [2]],
        "kwargs": {},
        "retries": 0,
        "called_directly": False,
        "add": 3,
        "afterwards": "mine",
    }


def test_outside_of_a_task_the_request_is_that_of_a_direct_call() -> None:
    assert tasks.seen.request.called_directly
    assert tasks.seen(5)["called_directly"]


def test_arguments_by_position_and_by_name_may_be_mixed() -> None:
    """The wire doesn't mix them, and `echo` has no names for the former."""
    assert tasks.echo.delay(1, 2, a=3).get(SOON) == [[1, 2], {"a": 3}]


def test_others_call_it_as_any_task(client: Client) -> None:
    assert client.call("support.celery_tasks.add", 1, 2) == 3
    assert client.call("support.celery_tasks.add", x=1, y=3) == 4
    assert tasks.add.call(2, y=3) == 5
    assert client.call("support.celery_tasks.seen", 7)["args"] == [7]


def test_it_calls_any_task_by_its_name(client: Client) -> None:
    app = Celery("other", client=client, set_as_current=False)
    assert app.send_task("greentask.ping").get(SOON) == "pong"
    assert app.send_task("support.celery_tasks.left").get(SOON) is None


@pytest.mark.parametrize(
    "request_",
    [None, [], {"id": 1, "args": []}, {"id": "a", "args": {}}, {"id": "a", "args": [], "expires": "soon"}],
)
def test_a_forged_request_is_refused(client: Client, request_: Any) -> None:
    with pytest.raises(InvalidArguments, match="celery:request"):
        client.call("support.celery_tasks.echo", **{"celery:request": request_})


def test_arguments_that_do_not_fit_are_refused_there_too(client: Client) -> None:
    with pytest.raises(InvalidArguments, match=r"add\(x: .*missing a required argument"):
        client.call("support.celery_tasks.add", **{"celery:request": {"id": "a", "args": []}})


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        (datetime(2026, 1, 1, tzinfo=timezone.utc), r"datetime.fromisoformat\(\)"),
        (date(2026, 1, 1), r"date.fromisoformat\(\)"),
        (time_of_day(12), r"time.fromisoformat\(\)"),
        (Decimal("1.10"), r"str\(value\)"),
        (uuid4(), r"str\(value\)"),
        (b"a", "b64encode"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_celery_s_json_has_beyond_json_is_refused_with_what_to_send(
    client: Client, value: object, instead: str
) -> None:
    with pytest.raises(InvalidArguments, match=rf"echo: args\[0\] is a {type(value).__name__}, .*{instead}"):
        tasks.echo.delay(value)
    with pytest.raises(InvalidArguments, match=rf"echo: value is a {type(value).__name__}, .*{instead}"):
        tasks.echo.delay(value=value)


# ---- Results


def test_a_task_tells_its_state(tmp_path: Path) -> None:
    result = tasks.advance.delay(str(tmp_path / "file"))
    assert result.state in ("PENDING", "HALFWAY")
    wait_until(lambda: result.state == "HALFWAY")
    assert result.info == {"current": 1, "total": 2}
    assert not result.ready()
    release(tmp_path / "file")
    assert result.get(SOON) == "there"
    assert (result.state, result.info) == ("SUCCESS", "there")


def test_for_others_a_state_is_a_progress_report(client: Client, tmp_path: Path) -> None:
    reports: list[dict[str, Any]] = []
    release(tmp_path / "file")
    client.using(progress=reports.append).call("support.celery_tasks.advance", str(tmp_path / "file"))
    assert reports == [{"done": 1, "total": 2, "state": "HALFWAY", "meta": {"current": 1, "total": 2}}]


def test_a_plain_progress_report_is_a_state(tmp_path: Path) -> None:
    result = tasks.report_plainly.delay(str(tmp_path / "file"))
    wait_until(lambda: result.state == "PROGRESS")
    assert result.info == {"done": 3, "total": 4}
    release(tmp_path / "file")
    assert result.get(SOON) is None


def test_a_task_tells_that_it_has_started(tmp_path: Path) -> None:
    result = tasks.started.delay(str(tmp_path / "file"))
    wait_until(lambda: result.state == "STARTED")
    pid = result.info["pid"]
    release(tmp_path / "file")
    assert result.get(SOON) == pid


def test_a_result_that_is_late_raises_and_the_task_goes_on(tmp_path: Path) -> None:
    result = tasks.started.delay(str(tmp_path / "file"))
    with pytest.raises(TimeoutError, match=r"started\[.*\] has no result after 0.01 s"):
        result.get(timeout=0.01)
    release(tmp_path / "file")
    assert result.get(SOON)


def test_a_result_is_found_by_its_id_while_somebody_holds_it(tmp_path: Path) -> None:
    result = tasks.started.delay(str(tmp_path / "file"))
    found = tasks.app.AsyncResult(result.id)
    assert found == result
    assert AsyncResult(result.id, app=tasks.app).state == found.state
    release(tmp_path / "file")
    assert found.get(SOON) == result.get()
    result.forget()
    with pytest.raises(NeedsQueue, match="AsyncResult"):
        AsyncResult(result.id)


def test_a_result_of_another_process_is_refused_by_name() -> None:
    with pytest.raises(NeedsQueue, match=r"AsyncResult\('2f5c'\).* needs a durable queue.*or keep the AsyncResult"):
        AsyncResult("2f5c")


def test_nothing_is_kept_of_a_result_that_nobody_holds() -> None:
    result = tasks.add.delay(1, 2)
    assert result.get(SOON) == 3
    sent = weakref.ref(result._sent)
    gc.disable()
    try:
        del result
        wait_until(lambda: sent() is None)  # for the thread of the I/O may just be leaving it
    finally:
        gc.enable()
    wait_until(lambda: not transport._in_flight)


def test_a_task_that_is_revoked_does_not_run(tmp_path: Path) -> None:
    first, second = (tasks.one_at_a_time.delay(str(tmp_path / "file")) for _ in range(2))
    second.revoke()
    assert second.state == "REVOKED"
    with pytest.raises(TaskRevokedError, match=rf"one_at_a_time\[{second.id}\] was revoked"):
        second.get(SOON)
    first.revoke(terminate=True)
    assert isinstance(first.result, TaskRevokedError)


def test_a_group_is_revoked_as_a_whole(tmp_path: Path) -> None:
    results = group(tasks.one_at_a_time.s(str(tmp_path / "never")) for _ in range(3))()
    assert results.waiting()
    results.revoke()
    assert [result.state for result in results] == ["REVOKED"] * 3
    assert (results.ready(), results.failed(), results.completed_count()) == (True, False, 0)
    with pytest.raises(TaskRevokedError):
        results.join(SOON)
    results.forget()
    with pytest.raises(NeedsQueue):
        AsyncResult(results[0].id)


def test_a_group_has_one_timeout_for_all(tmp_path: Path) -> None:
    results = group(tasks.one_at_a_time.s(str(tmp_path / "file")) for _ in range(3))()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        results.get(timeout=0.1, propagate=False)
    assert time.monotonic() - began < 5
    release(tmp_path / "file")
    assert results.get(SOON) == [None] * 3


def test_an_error_has_its_traceback_where_the_server_sends_it() -> None:
    with serving("--debug", apps=["support.celery_tasks"], processes=1) as server, Client(server.address) as client:
        app = Celery("other", client=client, set_as_current=False)
        failed = app.send_task("support.celery_tasks.fail")
        assert isinstance(failed.get(SOON, propagate=False), ValueError)
        assert failed.traceback is not None
        assert 'raise ValueError("no luck")' in failed.traceback
    failed = tasks.fail.delay()
    failed.get(SOON, propagate=False)
    assert failed.traceback is None


def test_a_task_is_out_of_time() -> None:
    result = tasks.endless.delay()
    with pytest.raises(DeadlineExceeded):
        result.get(SOON)
    assert result.state == "FAILURE"
    nowhere = Celery("nowhere", broker="unix:///nowhere/at/all", set_as_current=False)
    with pytest.raises(ConnectionLost):  # whether there is a queue isn't known
        nowhere.send_task("support.celery_tasks.left")


def test_a_time_limit_is_not_handed_on_to_what_a_task_starts(server: RunningServer) -> None:
    """What it starts goes on without it."""
    assert tasks.start_another.delay(server.address, 1).get(SOON) is None


@pytest.mark.parametrize("expires", [-1, datetime.now(timezone.utc) - timedelta(seconds=1)])
def test_what_has_expired_does_not_run(expires: Any) -> None:
    result = tasks.add.apply_async((1, 2), expires=expires)
    with pytest.raises(TaskRevokedError, match=r"add\[.*\] expired before its turn came"):
        result.get(SOON)
    assert result.state == "REVOKED"
    assert tasks.add.apply_async((1, 2), expires=60).get(SOON) == 3


def test_retry_is_refused_by_name_in_the_task() -> None:
    with pytest.raises(NeedsQueue, match=r"retry\(\) of task '.*try_again', .* needs a durable queue.*--queue FILE"):
        tasks.try_again.delay().get(SOON)


# ---- What follows on another


def test_a_long_chain_ends_and_so_does_one_that_fails_early() -> None:
    """Neither is a recursion that gets deeper with each step."""
    steps = 300
    assert chain(tasks.echo.si(0), *(tasks.echo.si(step) for step in range(steps)))().get(SOON) == [[steps - 1], {}]
    failed = chain(tasks.fail.s(), *(tasks.echo.s() for _ in range(steps)))()
    with pytest.raises(ValueError, match="no luck"):
        failed.get(SOON)
    assert failed.parent is not None
    assert failed.parent.state == "FAILURE"


def test_what_cannot_be_sent_fails_in_its_turn() -> None:
    result = chain(tasks.add.s(1, 1), tasks.echo.s(object()), tasks.add.s(1))()
    assert result.parent is not None
    with pytest.raises(Exception, match="object"):
        result.get(SOON)
    with pytest.raises(TypeError):
        chain(tasks.add.s(1, 1), tasks.add.s(2, 3, 4))().get(SOON)


def test_a_chain_that_is_revoked_stops(tmp_path: Path) -> None:
    file = tmp_path / "file"
    result = chain(tasks.started.s(str(file)), tasks.echo.s(), tasks.echo.s())()
    result.parent.revoke()
    release(file)
    assert result.parent.parent.get(SOON)
    with pytest.raises(TaskRevokedError):
        result.get(SOON)


def test_a_running_step_is_revoked_on_the_server(client: Client, tmp_path: Path) -> None:
    result = chain(tasks.echo.s(1), tasks.one_at_a_time.si(str(tmp_path / "never")))()
    result.parent.get(SOON)
    wait_until(lambda: client.call("greentask.status")["in_flight"] == 2, "it runs")
    result.revoke()
    assert result.state == "REVOKED"
    other = tasks.one_at_a_time.delay(str(tmp_path / "file"))  # which could not run while the first one does
    release(tmp_path / "file")
    other.get(SOON)


def test_a_chord_tells_which_error_stopped_it() -> None:
    result = chain(group(tasks.echo.s(1), tasks.fail.s()), tasks.echo.s())()
    with pytest.raises(ChordError, match="ValueError: no luck"):
        result.get(SOON)


def test_an_empty_group_is_ready_and_its_chord_goes_on() -> None:
    assert group()().get() == []
    assert (group() | tasks.echo.s()).delay().get(SOON) == [[[]], {}]


def test_links_of_a_task_that_fails_fail_too() -> None:
    result = tasks.fail.apply_async(link=tasks.echo.s())
    with pytest.raises(ValueError, match="no luck"):
        result.children[0].get(SOON)


def test_many_threads_send_and_ask_at_once() -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for turn in range(20):
            got = chain(tasks.echo.s(number), tasks.echo.s(turn))().get(SOON)
            if got != [[[[number], {}], turn], {}]:
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


# ---- What ends with the program

LEAVES = """
import sys
from greentask import configure
from support.celery_tasks import add, nap
configure(sys.argv[1])
assert add.delay(1, 2).get(20) == 3
nap.delay(5)
"""


def test_a_program_that_does_not_wait_says_what_ends_with_it(server: RunningServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, server.address], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert "support.celery_tasks.nap[" in done.stderr
    assert "need a durable queue" in done.stderr
    assert "add[" not in done.stderr


GREENLETS = """
import sys
import gevent
from greentask import configure
from greentask.contrib.celery_style import chain, group
from support.celery_tasks import add, nap
configure(sys.argv[1])
ticks = []
def tick():
    while True:
        gevent.sleep(0.01)
        ticks.append(1)
gevent.spawn(tick)
assert chain(nap.s(0.2), add.s(1))().get(20) == 1.2
assert group(nap.s(0.2), nap.s(0.2))().get(20) == [0.2, 0.2]
assert nap.delay(0.2).get(20) == 0.2
assert len(ticks) > 10, len(ticks)
"""


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_other_greenlets_go_on_while_one_waits(server: RunningServer, patched: bool) -> None:
    assert run_source(GREENLETS, server.address, patched=patched) == []


FORKS = """
import os, sys
from greentask import configure
from support.celery_tasks import add, nap
configure(sys.argv[1])
slow = nap.delay(0.5)
child = os.fork()
if child == 0:
    assert add.delay(1, 2).get(20) == 3
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert slow.get(20) == 0.5
"""


def test_a_forked_child_sends_its_own(server: RunningServer) -> None:
    assert run_source(FORKS, server.address) == []


def test_what_did_not_run_is_logged_for_nobody_may_ask(caplog: pytest.LogCaptureFixture) -> None:
    with serving(apps=["support.celery_tasks"]) as server, ExitStack() as stack:
        address = server.address
        assert Celery("one", broker=address, set_as_current=False).send_task("greentask.ping").get(SOON) == "pong"
        app = Celery("other", client=stack.enter_context(Client(address, gone_after=0.2)), set_as_current=False)
        assert app.send_task("greentask.ping").get(SOON) == "pong"
        client = stack.pop_all()
    with client, caplog.at_level(logging.ERROR, transport.logger.name):
        result = app.send_task("support.celery_tasks.left")
        wait_until(result.ready)
        wait_until(lambda: caplog.records)
    assert f"support.celery_tasks.left[{result.id}] did not run: ConnectionLost" in caplog.text
    assert result.state == "FAILURE"
    nowhere = Celery("nowhere", broker="unix:///nowhere/at/all", set_as_current=False)
    with pytest.raises(ConnectionLost):  # whether there is a queue isn't known
        nowhere.send_task("support.celery_tasks.left")
