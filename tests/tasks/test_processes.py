"""What a task process runs: the tasks of a module, in a pool of one process."""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from greentask.errors import ConfigurationError, InvalidArguments, TaskError
from greentask.pool.processes import Processes
from greentask.tasks.loading import load_apps
from greentask.tasks.processes import make_handler, setup_for
from greentask.tasks.registry import Tasks
from greentask.tasks.task import Task, task
from support.listener import Listener
from support.pools import processes

MODULE = "tasks_for_one_process"
SOURCE = """
import os
import sys
from greentask import current, task

@task(process=True)
def add(a, b=2):
    return a + b

@task(process=True, name="mail.send")
def send(from_, **more):
    return [from_, more, os.getpid()]

def plain(n):
    return n * n

@task
def in_greenlets():
    return "in a process all the same"

@task(process=True)
def rows(count):
    yield from range(count)

@task(process=True)
def me():
    current().progress(1, 2, "half")
    return [current().id, current().name, current().deadline, __name__]

@task(process=True)
async def fetch(url):
    return url

@task(process=True)
def fail():
    raise KeyError("customer")

@task(process=True)
def read_less(digits):
    sys.set_int_max_str_digits(digits)

class Box:
    @staticmethod
    @task(process=True, name="box.open")
    def open():
        return "opened"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tasks]:
    """All that the module has, its undecorated function too."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / f"{MODULE}.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    try:
        tasks = load_apps([MODULE, f"{MODULE}:plain", f"{MODULE}:Box.open"], in_processes=["plain"])
        tasks.add(tasks.get("add").function, name="add.under.another.name", process=True)
        yield tasks
    finally:
        sys.path.remove(str(folder))
        del sys.modules[MODULE]


@pytest.fixture(scope="module")
def pool(served: Tasks) -> Iterator[Processes]:
    with processes(1, setup=setup_for(served)) as pool:
        yield pool


def ask(pool: Processes, name: str, *, deadline: float | None = None, **message: Any) -> Listener:
    """Submit a line as a client writes it; who hears of the call."""
    listener = Listener()
    line = json.dumps({"function": name, **message}).encode()
    pool.submit(
        name,
        line,
        listener,
        deadline=deadline,
        window=message.get("stream", 0),
        progress=message.get("progress", False),
    )
    return listener


# ---- In the process


@pytest.mark.parametrize(
    ("name", "args", "result"),
    [
        ("add", {"a": 1}, 3),
        ("add", [1, 5], 6),
        ("plain", [7], 49),
        ("fetch", {"url": "x"}, "x"),
        ("box.open", None, "opened"),
        ("rows", [3], [0, 1, 2]),
        ("in_greenlets", [], "in a process all the same"),
        ("add.under.another.name", [1, 5], 6),
    ],
)
def test_a_call_is_run(pool: Processes, name: str, args: Any, result: Any) -> None:
    assert ask(pool, name, args=args).result() == result


def test_it_is_run_there(pool: Processes) -> None:
    from_, more, pid = ask(pool, "mail.send", args={"from": "me", "class": 1}).result()
    assert (from_, more) == ("me", {"class": 1})
    assert pid in pool.pids()
    assert pid != os.getpid()


def test_a_call_without_args_has_none(pool: Processes) -> None:
    assert ask(pool, "box.open").result() == "opened"
    assert isinstance(ask(pool, "add").error(), InvalidArguments)


def test_the_context_is_the_calls(pool: Processes) -> None:
    """``__name__`` shows that the module was imported as itself, and not run again as a program."""
    assert ask(pool, "me", id="a").result() == ["a", "me", None, MODULE]
    deadline = time.monotonic() + 1_000
    assert ask(pool, "me", id=7, deadline=deadline).result() == [7, "me", deadline, MODULE]
    assert ask(pool, "me").result() == [None, "me", None, MODULE]


def test_progress_is_reported_where_it_is_wanted(pool: Processes) -> None:
    wanted, unwanted = ask(pool, "me", id=7, progress=True), ask(pool, "me", id=8)
    assert (wanted.result()[0], unwanted.result()[0]) == (7, 8)
    assert wanted.reports == [{"done": 1, "total": 2, "note": "half"}]
    assert unwanted.reports == []


def test_items_are_sent_one_by_one_where_it_is_wanted(pool: Processes) -> None:
    rows = ask(pool, "rows", args=[2], stream=5)
    assert rows.result() == {"items": 2}
    assert rows.items == [0, 1]
    assert isinstance(ask(pool, "add", args=[1], stream=5).error(), InvalidArguments)


def test_an_error_is_told_and_the_process_goes_on(pool: Processes) -> None:
    before = pool.pids()
    error = ask(pool, "fail").error()
    assert type(error) is KeyError
    assert error.args == ("customer",)
    assert error.__cause__ is None
    assert ask(pool, "add", args=[1]).result() == 3
    assert pool.pids() == before


if hasattr(sys, "set_int_max_str_digits"):  # since Python 3.10.7

    def test_what_a_process_reads_no_more_is_an_error_and_it_goes_on(pool: Processes) -> None:
        before = pool.pids()
        assert ask(pool, "read_less", args=[640]).result() is None
        error = ask(pool, "add", args=[10**1_000]).error()
        assert isinstance(error, InvalidArguments)
        assert "this process can't read the arguments: Exceeds the limit (640" in str(error)
        assert ask(pool, "read_less", args=[4_300]).result() is None
        assert ask(pool, "add", args=[10**1_000, 0]).result() == 10**1_000
        assert pool.pids() == before


def test_errors_have_tracebacks_in_debugging(served: Tasks) -> None:
    with processes(1, setup=setup_for([served.get("fail")], debug=True)) as pool:
        error = ask(pool, "fail").error()
    assert isinstance(error.__cause__, TaskError)
    assert f"{MODULE}.py" in str(error.__cause__)


# ---- Before there is one


def test_the_setup_names_each_task_and_where_it_is(served: Tasks) -> None:
    setup = setup_for([served.get("mail.send"), served.get("plain")], debug=True)
    assert setup.factory == "greentask.tasks.processes:make_handler"
    targets = (("mail.send", f"{MODULE}:send", ()), ("plain", f"{MODULE}:plain", ()))
    assert setup.args == (targets, True, "default", (), 300.0, 5.0)
    assert setup.farewell == 5.0


def test_a_task_of_the_program_that_was_started_is_refused() -> None:
    program: dict[str, Any] = {"__name__": "__main__"}
    exec("def compute(): ...", program)
    with pytest.raises(ConfigurationError, match="task 'compute' is defined in the program that was started"):
        setup_for([Task(program["compute"], process=True)])


def test_a_task_that_cannot_be_imported_is_refused() -> None:
    @task
    def local() -> None: ...

    with pytest.raises(ConfigurationError, match=r"task 'local' .* can't run in a process"):
        setup_for([local])


@pytest.mark.parametrize(
    ("target", "error"),
    [("no_such_module_here:f", ModuleNotFoundError), ("os:no_such_function", AttributeError)],
)
def test_a_task_that_is_not_there_fails_at_once(target: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        make_handler((("f", target, ()),), False)
