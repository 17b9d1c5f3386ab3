"""@task: a function that stays what it was, and can be called somewhere else as well."""

import asyncio
import copy
import functools
import inspect
import math
import pickle
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from greentask import task
from greentask.errors import ConfigurationError, from_wire
from greentask.tasks.context import RunningTask, current
from greentask.tasks.enqueueing import with_options
from greentask.tasks.execution import execute
from greentask.tasks.importing import find_target
from greentask.tasks.options import TaskOptions
from greentask.tasks.registry import Tasks
from greentask.tasks.remote import Caller, ProgressCallback
from greentask.tasks.steps import Fan, Step
from greentask.tasks.task import DEFAULT_WINDOW, Task, each_arguments, merge_arguments
from greentask.wire.enqueue import Enqueue
from greentask.wire.json import dumps, loads
from support.values import alike


@task
def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    And nothing else.
    """
    return a + b


@task(name="mail.send", timeout=5)
def send(from_: str, /, to: str = "you", **more: Any) -> list[Any]:
    return [from_, to, more]


@task(process=True)
def compute(n: int) -> int:
    return n * n


@task(process=True)
async def fetch(url: str) -> str:
    return url


@task
def count(to: int) -> Iterator[int]:
    yield from range(to)


@task
def watch(steps: int) -> dict[str, Any]:
    for done in range(steps):
        current().progress(done, steps)
    return {"name": current().name, "remaining": current().remaining()}


class Shop:
    @task
    def sell(self, what: str) -> str:
        return what

    @staticmethod
    @task
    def price(what: str) -> int:
        return len(what)


def plain(a: int) -> int:
    return a


# ---- It stays the function that it was


def test_a_task_is_called_as_before() -> None:
    assert add(1) == 3
    assert add(1, b=5) == 6
    assert send("me", subject="hi") == ["me", "you", {"subject": "hi"}]
    assert list(count(3)) == [0, 1, 2]
    assert asyncio.run(fetch("x")) == "x"  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        add()  # type: ignore[call-arg]


def test_a_task_keeps_its_name_and_documentation() -> None:
    assert add.__name__ == "add"  # type: ignore[attr-defined]
    assert add.__qualname__ == "add"  # type: ignore[attr-defined]
    assert add.__module__ == __name__
    assert inspect.getdoc(add) == "Add two numbers.\n\nAnd nothing else."
    assert inspect.signature(add) == inspect.signature(add.function)
    assert inspect.unwrap(add) is add.function  # type: ignore[arg-type]
    assert (add.name, add.process, add.timeout, add.streams) == ("add", False, None, False)


def test_a_task_has_the_options_that_it_was_given() -> None:
    assert (send.name, send.process, send.timeout) == ("mail.send", False, 5)
    assert send.__name__ == "send"  # type: ignore[attr-defined]
    assert compute.process is True
    assert count.streams is True
    assert fetch.streams is False


def test_a_task_shows_what_it_is() -> None:
    assert repr(add).startswith("<task add(a")
    assert repr(compute).endswith(" in a process>")


def test_a_task_is_where_it_was_defined() -> None:
    assert add.target == f"{__name__}:add"
    assert send.target == f"{__name__}:send"
    assert Shop.price.target == f"{__name__}:Shop.price"
    assert find_target(Shop.price.target) is Shop.price


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("original", [add, send, compute, fetch, Shop.price], ids=repr)
def test_a_task_is_pickled_by_its_name(original: Task[..., Any], protocol: int) -> None:
    data = pickle.dumps({"task": original}, protocol)
    assert pickle.loads(data)["task"] is original
    assert len(data) < 200


def test_a_task_is_copied_as_a_function_is() -> None:
    assert copy.deepcopy([add])[0] is add


# ---- What can be a task


def local(a: int) -> Callable[[], int]:
    def inside() -> int:
        return a

    return inside


class Greeter:
    def __call__(self, name: str) -> str:
        return f"hello {name}"


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda a: a, "identity"),
        (functools.partial(plain, 1), "one"),
        (Greeter(), "greet"),
        (local(1), None),
        (zlib.crc32, None),
        (print, None),
        (dict, None),
        (int, "number"),
    ],
)
def test_what_can_be_called_can_be_a_task(function: Callable[..., Any], name: str | None) -> None:
    assert Task(function, name=name).name == (name or function.__name__)


@pytest.mark.parametrize("name", ["greentask.ping", "greentask.", "greentask.x.y"])
def test_names_that_begin_with_greentask_are_the_servers_own(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not beginning with greentask"):
        Task(plain, name=name)


@pytest.mark.parametrize("name", ["greentask", "greentasks.x", "my.greentask.x", "\xe9t\xe9", "a b"])
def test_other_names_are_free(name: str) -> None:
    assert Task(plain, name=name).name == name


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match="a lambda has no name that a caller could say: give name="):
        Task(lambda: 1)
    assert Task(lambda: 1, name="one").name == "one"


@pytest.mark.parametrize("function", [functools.partial(plain, 1), Greeter()])
def test_a_name_is_needed_where_the_function_has_none(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="'' can't be a task's name: give name="):
        Task(function)


@pytest.mark.parametrize("timeout", [0, -1, -0.5, math.inf, math.nan])
def test_a_timeout_is_in_seconds_above_zero(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="task 'plain': timeout is in seconds above 0, not"):
        Task(plain, timeout=timeout)


def test_what_cannot_be_called_is_no_task() -> None:
    with pytest.raises(ConfigurationError, match="a task is a function, not 5"):
        Task(5)  # type: ignore[arg-type]


def test_a_task_is_not_made_a_task_again() -> None:
    with pytest.raises(ConfigurationError, match="'add' is a task already"):
        task(add)
    with pytest.raises(ConfigurationError, match=r"'mail\.send' is a task already"):
        task(process=True)(send)


def test_a_coroutine_needs_a_process() -> None:
    async def fetch_here() -> None: ...

    with pytest.raises(ConfigurationError, match="'fetch_here' is a coroutine function: declare it process=True"):
        task(fetch_here)
    with pytest.raises(ConfigurationError, match="is a coroutine function"):
        Task(functools.partial(fetch_here), name="part")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": "3"}, "task 'add': timeout is in seconds above 0, not '3'"),
        ({"timeout": True}, "task 'add': timeout is in seconds above 0, not True"),
        ({"timeout": 10**400}, "task 'add': timeout is in seconds above 0, not 1000"),
        ({"max_running": 1.5}, "task 'add': max_running must be a whole number, not 1.5"),
        ({"name": 5}, "a task's name is a string, not 5"),
        ({"process": 5}, "task 'add': process is True, or a group's name, not 5"),
    ],
)
def test_an_option_that_can_not_be_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Task(add.function, **options)


@pytest.mark.parametrize("process", [False, True])
def test_an_async_generator_is_refused(process: bool) -> None:
    async def pages() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="'pages' is an async generator; a plain generator can stream"):
        Task(pages, process=process)


@pytest.mark.parametrize(
    ("function", "target"),
    [
        (lambda: 1, f"{__name__}:<lambda>"),
        (local(1), f"{__name__}:local.<locals>.inside"),
        (functools.partial(plain, 1), "functools:<nameless>"),
        (Greeter(), f"{__name__}:<nameless>"),
        ("".join, "None:str.join"),
    ],
)
def test_what_another_process_cannot_import_cannot_run_there(function: Callable[..., Any], target: str) -> None:
    with pytest.raises(ConfigurationError, match="so it must be a function at the top of a module") as caught:
        Task(function, name="odd", process=True)
    assert f"task 'odd' ({target}) can't run in a process" in str(caught.value)
    assert Task(function, name="odd").target == target


@pytest.mark.parametrize("function", [plain, zlib.crc32, print])
def test_what_another_process_can_import_can_run_there(function: Callable[..., Any]) -> None:
    assert Task(function, process=True).process


def test_a_method_is_refused_where_it_is_used() -> None:
    with pytest.raises(ConfigurationError, match="'sell' is a method: tasks are functions, an object can't be sent"):
        _ = Shop().sell
    assert isinstance(Shop.sell, Task)
    assert Shop().price("tea") == Shop.price("tea") == 3


# ---- Calling it somewhere else


class Here:
    """A caller whose other end is here; what it is given goes through JSON, as on a wire."""

    def __init__(self, *tasks: Task[..., Any]) -> None:
        self.tasks = Tasks(tasks)
        self.maps: list[dict[str, Any]] = []
        self.args: list[Any] = []

    def submit_args(
        self,
        function: str,
        args: dict[str, Any] | list[Any],
        *,
        timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> Future[Any]:
        self.args.append(args)
        deadline = None if timeout is None else time.monotonic() + timeout
        running = RunningTask(name=function, deadline=deadline, report=progress)
        ended_well, body = execute(self.tasks.get(function), loads(dumps(args)), running)
        future: Future[Any] = Future()
        if ended_well:
            future.set_result(loads(body))
        else:
            future.set_exception(from_wire(loads(body)))
        return future

    def call_args(
        self,
        function: str,
        args: dict[str, Any] | list[Any],
        *,
        timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> Any:
        return self.submit_args(function, args, timeout=timeout, progress=progress).result()

    def map_args(
        self,
        function: str,
        items: Iterable[dict[str, Any] | list[Any]],
        *,
        timeout: float | None = None,
        unordered: bool = False,
        window: int = DEFAULT_WINDOW,
        return_exceptions: bool = False,
        progress: ProgressCallback | None = None,
        total: int | None = None,
    ) -> Iterator[Any]:
        self.maps.append({"timeout": timeout, "unordered": unordered, "window": window})
        return (self.call_args(function, item, timeout=timeout) for item in items)


@pytest.fixture
def here() -> Here:
    caller: Caller = Here(add, send, count, watch)
    assert isinstance(caller, Here)
    return caller


def test_it_can_be_called_on_a_client(here: Here) -> None:
    assert add.using(here).call(1) == 3
    assert add.using(here).call(1, b=5) == 6
    assert add.using(here).submit(b=1, a=1).result() == 2
    assert here.args == [[1], {"a": 1, "b": 5}, {"a": 1, "b": 1}]
    with pytest.raises(TypeError, match="can only concatenate str"):
        add.using(here).call("x")  # type: ignore[arg-type]


def test_it_is_called_by_the_name_that_it_was_given(here: Here) -> None:
    assert send.using(here).call("me") == ["me", "you", {}]


def test_a_timeout_and_progress_go_with_the_call(here: Here) -> None:
    reports: list[dict[str, Any]] = []
    watched = watch.using(here, timeout=100, progress=reports.append).call(2)
    assert watched["name"] == "watch"
    assert 90 < watched["remaining"] <= 100
    assert reports == [{"done": 0, "total": 2}, {"done": 1, "total": 2}]
    assert watch.using(here).call(0)["remaining"] is None
    assert watch.using(here, timeout=100).submit(0).result()["remaining"] is not None


def test_it_maps_as_map_does(here: Here) -> None:
    assert list(add.using(here).map([1, 2, 3])) == [3, 4, 5]
    assert list(add.using(here).map([1, 2, 3], iter([10, 20]))) == [11, 22]
    assert list(add.using(here, timeout=3).map([], unordered=True, window=7)) == []
    assert here.maps == [
        {"timeout": None, "unordered": False, "window": 100},
        {"timeout": None, "unordered": False, "window": 100},
        {"timeout": 3, "unordered": True, "window": 7},
    ]


def test_it_starmaps_over_dicts_and_sequences(here: Here) -> None:
    assert list(add.using(here).starmap([{"a": 1}, [1, 1], (2, 5)])) == [3, 2, 7]
    assert here.args == [{"a": 1}, [1, 1], [2, 5]]


def test_what_is_mapped_is_taken_one_by_one(here: Here) -> None:
    taken = []

    def numbers() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    results = add.using(here).map(numbers())
    assert taken == []
    assert next(results) == 2
    assert taken == [0]


def test_an_option_that_there_is_not_is_told_at_once() -> None:
    with pytest.raises(TypeError, match=r"using\(\) has no option 'timout'; did you mean timeout\?"):
        add.using(timout=5)  # type: ignore[call-arg]


def test_the_options_are_on_a_copy(here: Here) -> None:
    limited = watch.using(here, timeout=1)
    assert limited.client is here
    assert watch.using(here).call(0)["remaining"] is None
    assert limited.call(0)["remaining"] is not None


# ---- Arguments by position and by name, on a wire that has either


@pytest.mark.parametrize(
    ("args", "kwargs", "merged"),
    [
        ((), {}, {}),
        ((1, 2), {}, [1, 2]),
        ((), {"a": 1}, {"a": 1}),
        ((1,), {"b": 2}, {"a": 1, "b": 2}),
    ],
)
def test_arguments_are_merged(args: tuple[Any, ...], kwargs: dict[str, Any], merged: Any) -> None:
    assert alike(merge_arguments(args, kwargs, add.binder), merged)


def test_arguments_that_cannot_be_merged_are_refused() -> None:
    with pytest.raises(TypeError, match="'a' is given by position and by name"):
        merge_arguments((1,), {"a": 2}, add.binder)
    with pytest.raises(TypeError, match="either by position or by name: the wire does not mix them"):
        merge_arguments((1,), {"b": 2})
    with pytest.raises(TypeError, match="either by position or by name: the wire does not mix them"):
        merge_arguments((1,), {"to": 2}, send.binder)


def test_whoever_hands_options_on_knows_them_all() -> None:
    parameters = inspect.signature(Task.__init__).parameters.values()
    assert [*TaskOptions.__annotations__] == [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]


# ---- What is said of options that there are not, and of what can't be


def nothing(number: int = 0) -> int:
    return number


@pytest.mark.parametrize("declare", [task, Tasks().task])
def test_an_option_that_a_task_has_not_is_named_with_a_close_one(declare: Any) -> None:
    with pytest.raises(TypeError, match=r"task\(\) has no option 'retrys'; did you mean retries or"):
        declare(retrys=5)
    with pytest.raises(TypeError, match=r"task\(\) has no option 'colour'; there are backoff, catch_up, every"):
        declare(colour="red")(nothing)


@pytest.mark.parametrize("kinds", ["ValueError", 5, [5]])
def test_what_is_no_class_of_errors_is_named(kinds: Any) -> None:
    shown = kinds[0] if isinstance(kinds, list) else kinds
    with pytest.raises(ConfigurationError, match=f"retry_on has exception classes, not {shown!r}"):
        task(retries=5, retry_on=kinds)(nothing)


def test_each_of_many_calls_has_its_arguments() -> None:
    assert list(each_arguments([(1, 2), [3], {"a": 4}, range(2), []])) == [[1, 2], [3], {"a": 4}, [0, 1], []]
    for wrong in ("ab", {"to": "ann"}):
        with pytest.raises(TypeError, match="many calls are a list of each one's arguments, not "):
            each_arguments(wrong)
    for item in ("ann", b"ann", 5):
        with pytest.raises(TypeError, match=r"an item has one call's arguments, .*: \[.*\], say, for one argument"):
            list(each_arguments([item]))


def test_what_follows_must_be_steps() -> None:
    some = task(nothing)
    for wrong in (some, [some], "nothing", 5):
        with pytest.raises(TypeError, match=r"what follows is a Step or a Fan, not .*: write Step\(task, arguments\)"):
            Fan(wrong)
        with pytest.raises(TypeError, match="what follows is a Step or a Fan, not "):
            with_options(None, {"then": wrong})
    with pytest.raises(
        TypeError, match="a step is a @task or the name of one, with its arguments, not <function nothing"
    ):
        Step(nothing)  # type: ignore[arg-type]


def test_options_of_what_is_enqueued_are_those_that_python_has() -> None:
    at = datetime(2030, 1, 1, tzinfo=timezone.utc)
    options = with_options(Enqueue(priority=5), {"at": at, "ttl": timedelta(minutes=1)})
    assert options == Enqueue(priority=5, at=at.timestamp(), ttl=60.0)
    keyed = with_options(with_options(None, {"key": "k"}), {"key_ttl": timedelta(days=1)})
    assert keyed == Enqueue(key="k", key_ttl=86400.0)
    with pytest.raises(ValueError, match="key_ttl=86400 is for how long a key holds: it goes with key="):
        with_options(None, {"key_ttl": timedelta(days=1)})
    assert with_options(None, {"delay": timedelta(seconds=1.5)}) == Enqueue(delay=1.5)
    with pytest.raises(ValueError, match=r"at=2030-01-01 00:00:00 has no timezone: give datetime.now\(timezone.utc\)"):
        with_options(None, {"at": at.replace(tzinfo=None)})
    with pytest.raises(TypeError, match=r"using\(\) has no option 'dely'; did you mean delay\?"):
        with_options(None, {"dely": 5})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match=r"using\(\) has no option 'timeot'; did you mean timeout\?"):
        with_options(None, {"timeot": 5}, ["timeout"])  # type: ignore[typeddict-unknown-key]
