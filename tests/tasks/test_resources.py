"""Resources: loaded once, by whoever asks first, and torn down in the reverse order; here and in a server."""

import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest

from greentask import Resource, Server, Task, Tasks, WorkerLost, resource
from greentask.client import Client
from greentask.errors import ConfigurationError, PoolBroken
from greentask.tasks.processes import setup_for
from greentask.tasks.resources import close_resources
from support import resource_tasks
from support.forking import run_in_child
from support.pools import processes
from support.resource_tasks import LOG
from support.servers import serving, wait_until


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    close_resources()


def test_it_is_loaded_once_by_many_who_ask_at_once() -> None:
    loaded: list[int] = []

    @resource
    def slow() -> object:
        time.sleep(0.05)
        loaded.append(1)
        return object()

    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(slow())) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    assert got == [slow()] * 10
    assert isinstance(slow, Resource)
    assert slow.is_loaded


def test_none_is_a_thing_as_well() -> None:
    loaded = []
    thing = Resource(lambda: loaded.append(1))
    assert thing() is None
    assert thing() is None
    assert loaded == [1]


def test_a_failure_is_raised_and_the_next_call_tries_again() -> None:
    tries: list[int] = []

    @resource
    def moody() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return "well"

    for _ in range(2):
        with pytest.raises(OSError, match="not yet"):
            moody()
    assert moody() == "well"


def test_what_was_loaded_last_is_torn_down_first_and_may_come_again() -> None:
    told: list[str] = []

    @resource
    def lower() -> Iterator[int]:
        told.append("lower loaded")
        yield 1
        told.append("lower closed")

    @resource
    def upper() -> Iterator[int]:
        value = lower() + 1
        told.append("upper loaded")
        yield value
        told.append("upper closed")
        raise ValueError("which is logged")

    assert upper() == 2
    close_resources()
    assert told == ["lower loaded", "upper loaded", "upper closed", "lower closed"]
    assert upper() == 2
    assert told.count("lower loaded") == 2


def test_one_that_needs_itself_says_so() -> None:
    thing: Resource[object] = Resource(lambda: thing())
    with pytest.raises(ConfigurationError, match="needs itself"):
        thing()


def test_one_whose_generator_ends_at_once_says_so() -> None:
    @resource
    def nothing() -> Iterator[int]:
        yield from ()

    with pytest.raises(ConfigurationError, match="nothing yields nothing"):
        nothing()


def test_a_teardown_that_exits_keeps_no_other_from_it(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    @resource
    def lower() -> Iterator[None]:
        yield
        told.append("lower closed")

    @resource
    def upper() -> Iterator[None]:
        yield
        sys.exit("which is logged")

    lower()
    upper()
    close_resources()
    assert told == ["lower closed"]
    assert "tearing down the resource" in caplog.text


def test_some_are_torn_down_and_the_others_stay() -> None:
    told: list[int] = []

    def numbered(number: int) -> Resource[int]:
        @resource
        def one() -> Iterator[int]:
            yield number
            told.append(number)

        one()
        return one

    ones = [numbered(number) for number in range(4)]
    close_resources([ones[0], ones[2]])
    assert told == [2, 0]
    close_resources()
    assert told == [2, 0, 3, 1]


async def waits() -> int:
    return 1


async def streams() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("load", [waits, streams])
def test_a_coroutine_loads_nothing(load: Any) -> None:
    with pytest.raises(ConfigurationError, match="is loaded by a coroutine"):
        resource(load)


@pytest.mark.parametrize("wrong", [3, "table", Resource(dict)])
def test_what_is_no_loader_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="a resource is made from a function"):
        Resource(wrong)  # type: ignore[arg-type]


def test_a_task_needs_resources_only() -> None:
    with pytest.raises(ConfigurationError, match="which is no @resource"):
        Task(dict, name="x", needs=[dict])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match=r"'x': needs are several: needs=\(…,\), not "):
        Task(dict, name="x", needs=resource(lambda: 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(("preload", "loads"), [(False, 2), (True, 1)])
def test_a_forked_process_loads_its_own_unless_it_was_preloaded(tmp_path: Path, preload: bool, loads: int) -> None:
    log = tmp_path / "log"

    @resource(preload=preload)
    def connection() -> Iterator[int]:
        with log.open("a") as file:
            file.write("loaded\n")
        yield os.getpid()
        with log.open("a") as file:
            file.write("closed\n")

    mine = connection()

    def look() -> None:
        theirs = connection()
        close_resources()
        assert (theirs == mine) == preload

    assert run_in_child(look) == 0
    assert connection() == mine
    told = log.read_text().split()
    assert told.count("loaded") == loads
    assert told.count("closed") == loads - 1, "the parent's is the parent's"


# ---- In a server


def test_each_process_loads_what_its_tasks_need_and_shares_what_is_preloaded(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def told() -> list[list[str]]:
        return [line.rsplit(" ", 1) for line in log.read_text().splitlines()]

    apps = ["support.resource_tasks:ask", "support.resource_tasks:ask_here"]
    with serving(apps=apps, **{LOG: str(log)}) as server:
        with Client(server.address) as client:
            assert client.call("ask_here") == "connection with 1000 bytes"
            answers = {tuple(future.result(20)) for future in [client.submit("ask", "connection") for _ in range(20)]}
        assert {answer for answer, _ in answers} == {"connection with 1000 bytes"}
        pids = {str(process.pid) for process in server.below()[1:]}
        template = str(server.below()[0].pid)
        loaded = [what for what in told() if what[0].endswith("loaded")]
        assert sorted(what for what, _ in loaded) == [
            "cache loaded", "cache loaded", "connection loaded", "connection loaded", "connection loaded",
            "table loaded", "table loaded",
        ]  # fmt: skip
        assert {pid for what, pid in loaded if what == "cache loaded"} == pids
        assert {pid for what, pid in loaded if what == "table loaded"} == {template, str(server.pid)}
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    closed = [what for what, _ in told() if what.endswith("closed")]
    assert sorted(closed) == ["cache closed"] * 2 + ["connection closed"] * 3
    for pid in pids:
        assert [what for what, one in told() if one == pid][-2:] == ["cache closed", "connection closed"]


def test_what_can_not_be_loaded_is_its_callers_error_when_no_process_has_it(tmp_path: Path) -> None:
    sign = tmp_path / "broken"
    variables = {"GREENTASK_TEST_BROKEN": str(sign)}
    with (
        serving("--group", "shaky=2", apps=["support.resource_tasks:shaky"], **variables) as server,
        Client(server.address) as client,
    ):
        assert client.call("shaky") == "well"
        sign.touch()
        _, *others = server.below()
        os.kill(others[0].pid, signal.SIGKILL)

        def tries() -> int:
            return server.output().count("made ready: OSError: the disk is not there")

        wait_until(lambda: tries() > 0, "its end was noticed: a call that is sent before is lost with it")

        def calls_until(number: int) -> None:
            while tries() < number:
                assert client.call("shaky") == "well", "the other one has what it needs"
                time.sleep(0.01)

        calls_until(2)
        began = time.monotonic()
        calls_until(4)
        assert time.monotonic() - began > 0.5, "the pause grows, though the other one works"
        for process in server.below()[1:]:
            with suppress(ProcessLookupError):  # one that can't load ends by itself
                os.kill(process.pid, signal.SIGKILL)
        error = wait_until(lambda: client.submit("shaky").exception(20), "it can't be loaded")
        assert isinstance(error, WorkerLost)
        told = wait_until(
            lambda: (seen := str(client.submit("shaky").exception(20))) and "the disk is not there" in seen and seen
        )
        assert "OSError: the disk is not there" in told
        sign.unlink()
        wait_until(lambda: client.submit("shaky").exception(20) is None, "it is there again")


def test_a_server_tears_its_own_down_in_the_reverse_order_and_waits_only_so_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []

    @resource
    def lower() -> Iterator[None]:
        yield
        told.append("lower closed")

    @resource
    def hanging() -> Iterator[None]:
        yield
        told.append("hanging begins")
        gevent.sleep(60)

    @resource
    def upper() -> Iterator[None]:
        yield
        told.append("upper closed")

    tasks = Tasks()
    tasks.add(len, needs=[lower, upper])
    server = Server(tasks, "127.0.0.1:0")
    server.start()
    server.stop()
    assert told == ["upper closed", "lower closed"]

    tasks.add(max, needs=[hanging])
    server = Server(tasks, "127.0.0.1:0", teardown=0.05)
    server.start()
    server.stop()
    assert told[2:] == ["hanging begins"]
    assert "given up after 0.05 s" in caplog.text


def test_a_server_that_can_not_start_tears_down_what_it_has_loaded(tmp_path: Path) -> None:
    told: list[str] = []

    @resource
    def lower() -> Iterator[None]:
        yield
        told.append("lower closed")

    @resource
    def broken() -> None:
        raise OSError("the disk is not there")

    tasks = Tasks()
    tasks.add(len, needs=[lower])
    tasks.add(max, needs=[broken])
    with pytest.raises(ConfigurationError, match="the disk is not there"):
        Server(tasks, "127.0.0.1:0").start()
    assert told == ["lower closed"]


def test_what_a_plain_function_needs_is_loaded_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    tasks = Tasks()
    tasks.add(resource_tasks.what_is_loaded, process=True, needs=[resource_tasks.table, resource_tasks.connection])
    server = Server(tasks, "127.0.0.1:0", processes=1)
    server.start()
    try:
        told = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
        assert [what for what, *_ in told] == ["table", "connection"]
        assert [int(pid) == server.status()["processes"]["pids"][0] for *_, pid in told] == [False, True]
    finally:
        server.stop()


def test_what_no_process_can_find_is_an_error_at_once() -> None:
    @resource
    def local() -> int:
        return 1

    tasks = Tasks()
    tasks.add(resource_tasks.what_is_loaded, process=True, needs=[local])
    with pytest.raises(ConfigurationError, match="decorate a function at the top of a module"):
        Server(tasks, "127.0.0.1:0")


def test_a_process_that_can_not_load_one_tears_down_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    monkeypatch.setenv("GREENTASK_TEST_BROKEN", str(tmp_path))
    needs = [resource_tasks.connection, resource_tasks.broken]
    setup = setup_for([Task(resource_tasks.what_is_loaded, process=True, needs=needs)])
    with pytest.raises(PoolBroken, match="the disk is not there"), processes(1, setup=setup):
        pass
    told = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [what for *what, _ in told] == [["connection", "loaded"], ["table", "loaded"], ["connection", "closed"]]
    assert len({pid for *_, pid in told}) == 1


@pytest.mark.slow
def test_a_process_that_loads_for_ever_is_replaced(tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    (tmp_path / "slowly.py").write_text(
        "import os, time\n"
        "from greentask import resource, task\n"
        "@resource\n"
        "def table():\n"
        "    while os.path.exists('hang'): time.sleep(0.01)\n"
        "@task(process=True, needs=[table])\n"
        "def me(): return os.getpid()\n"
    )
    with serving("--start-timeout", "5", apps=["slowly"], cwd=tmp_path, processes=1) as server:
        hang.touch()
        os.kill(server.call("me"), signal.SIGKILL)
        wait_until(lambda: "in table" in server.output(), "its stack is told")
        with Client(server.address, timeout=30) as client:
            with pytest.raises(
                WorkerLost, match=r"tasks need, took longer than 5 s \(start_timeout=, --start-timeout\)"
            ):
                client.call("me")
            hang.unlink()

            def answers() -> bool:
                with suppress(WorkerLost):  # until another one is ready
                    return bool(client.call("me"))
                return False

            wait_until(answers, "another process")


@pytest.mark.slow
def test_a_front_has_its_time_for_tearing_down(tmp_path: Path) -> None:
    (tmp_path / "leisurely.py").write_text(
        "import time\n"
        "from greentask import resource, task\n"
        "@resource\n"
        "def slow():\n"
        "    yield\n"
        "    time.sleep(4)\n"
        "    open('closed', 'w').close()\n"
        "@task(needs=[slow])\n"
        "def nothing(): ...\n"
    )
    options = ("--drain-timeout", "0", "--teardown-timeout", "30")
    with serving(*options, apps=["leisurely"], cwd=tmp_path) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert (tmp_path / "closed").exists()
