"""The names that a server offers."""

import functools
import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

from greentask.errors import ConfigurationError, UnknownTask
from greentask.tasks.registry import Tasks
from greentask.tasks.task import Task, task


@task
def send_mail(to: str) -> str:
    """Send a mail.

    Only one.
    """
    return to


@task(process=True, timeout=60)
def report(year: int) -> int:
    return year


def plain(a: int = 1) -> int:
    return a


def test_tasks_and_functions_go_in_and_come_out_by_name() -> None:
    tasks = Tasks([send_mail, plain])
    assert tasks.get("send_mail") is send_mail
    assert tasks.get("plain").function is plain
    assert tasks.add(report) is report
    assert [one.name for one in tasks] == ["send_mail", "plain", "report"]
    assert len(tasks) == 3
    assert "report" in tasks
    assert "nothing" not in tasks
    assert 5 not in tasks


def test_a_function_gets_the_options_that_it_is_added_with() -> None:
    tasks = Tasks()
    added = tasks.add(plain, name="other", process=True, timeout=3)
    assert (added.name, added.process, added.timeout) == ("other", True, 3)
    assert tasks.get("other") is added
    assert "plain" not in tasks


def test_a_registry_decorates() -> None:
    tasks = Tasks()

    @tasks.task
    def one() -> int:
        return 1

    @tasks.task(name="second", timeout=2)
    def two() -> int:
        return 2

    assert (one(), two()) == (1, 2)
    assert tasks.get("one") is one
    assert tasks.get("second") is two
    assert two.timeout == 2
    with pytest.raises(ConfigurationError, match="'one' is a task already"):
        tasks.task(one)


@pytest.mark.parametrize(
    "options", [{"name": "other"}, {"process": True}, {"timeout": 5}, {"max_running": 1}, {"max_waiting": 0}]
)
def test_a_task_keeps_its_own_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="'send_mail' is a task already, with a name and options of its own"):
        Tasks().add(send_mail, **options)


# ---- One name, one task


def test_two_tasks_with_one_name_are_refused() -> None:
    tasks = Tasks([send_mail])
    with pytest.raises(ConfigurationError, match="two tasks are named 'send_mail': ") as caught:
        tasks.add(plain, name="send_mail")
    assert f"{__name__}:send_mail and {__name__}:plain; give one another name=…" in str(caught.value)
    assert tasks.get("send_mail") is send_mail


def test_the_same_task_may_come_twice() -> None:
    tasks = Tasks([send_mail, plain, send_mail, plain])
    tasks.add(send_mail.function)
    assert len(tasks) == 2


def local(value: int) -> Callable[[], int]:
    def give() -> int:
        return value

    return give


@pytest.mark.parametrize(
    "pair",
    [
        (local(1), local(2)),
        (lambda: 1, lambda: 2),
        (functools.partial(plain, 1), functools.partial(plain, 2)),
    ],
    ids=["local", "lambda", "partial"],
)
def test_two_that_only_look_alike_are_refused_too(pair: tuple[Callable[[], int], Callable[[], int]]) -> None:
    tasks = Tasks()
    tasks.add(pair[0], name="give")
    tasks.add(pair[0], name="give")
    with pytest.raises(ConfigurationError, match="two tasks are named 'give'"):
        tasks.add(pair[1], name="give")
    assert tasks.get("give")() == 1


def test_a_function_that_is_defined_anew_takes_its_own_place() -> None:
    """As it does when its module is loaded again."""
    source = "def again(): return {}"
    tasks, first, second = Tasks(), {"__name__": "loaded"}, {"__name__": "loaded"}
    exec(source.format(1), first)
    exec(source.format(2), second)
    tasks.add(first["again"])  # type: ignore[arg-type]
    tasks.add(second["again"])  # type: ignore[arg-type]
    assert tasks.get("again")() == 2


# ---- Names that aren't there


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("send_mial", "no task is named 'send_mial'; did you mean send_mail?"),
        ("reprot", "no task is named 'reprot'; did you mean report?"),
        ("zzz", "no task is named 'zzz'; greentask.tasks lists what there is"),
        ("", "no task is named ''; greentask.tasks lists what there is"),
        ("x" * 10_000, f"no task is named '{'x' * 80}…'; greentask.tasks lists what there is"),
        ("a\n\x1b[31m", "no task is named 'a\\n\\x1b[31m'; greentask.tasks lists what there is"),
    ],
)
def test_an_unknown_name_is_answered_with_close_ones(name: str, says: str) -> None:
    with pytest.raises(UnknownTask) as caught:
        Tasks([send_mail, report]).get(name)
    assert str(caught.value) == says


# ---- What there is


def test_tasks_are_described_in_the_order_of_their_names() -> None:
    def rows() -> Any:
        yield 1

    described = Tasks([send_mail, report, Task(rows), Task(min, name="least")]).describe()
    assert [one["name"] for one in described] == ["least", "report", "rows", "send_mail"]
    assert described[1] == {
        "name": "report",
        "signature": report.binder.text,
        "doc": "",
        "process": True,
        "timeout": 60,
        "max_running": None,
        "stream": False,
    }
    assert described[0]["signature"] == "least(…)"
    assert described[2]["stream"] is True
    assert described[3]["doc"] == "Send a mail."
    assert described[3]["signature"].startswith("send_mail(to: ")


def test_names_that_are_none_take_little_time_however_close_they_are_to_many() -> None:
    tasks = Tasks()
    for number in range(1000):
        tasks.add(len, name=f"shop.tasks.do_something_{number:04d}")
    said = []
    began = time.process_time()
    for number in range(1000):
        with pytest.raises(UnknownTask) as unknown:
            tasks.get(f"shop.tasks.do_something_x{number}")
        said.append("did you mean" in str(unknown.value))
    assert time.process_time() - began < 1.5, "and not ten seconds"
    assert said[0]
    assert not all(said)


def test_a_task_is_found_by_where_its_function_is_defined() -> None:
    tasks = Tasks([textwrap.dedent])
    renamed = tasks.add(textwrap.indent, name="shift")
    assert tasks.find("dedent") is tasks.find("textwrap:dedent") is tasks.get("dedent")
    assert tasks.find("textwrap:indent") is renamed
    tasks.also_as("somewhere:else", renamed)
    assert tasks.find("somewhere:else") is renamed
    named = tasks.add(len, name="textwrap:dedent")
    assert tasks.find("textwrap:dedent") is named  # a name comes first
    with pytest.raises(UnknownTask, match=r"'textwrap:fill': serve it .*, greentask serve textwrap:fill"):
        tasks.find("textwrap:fill")
    with pytest.raises(UnknownTask, match="did you mean dedent"):
        tasks.find("deden")
