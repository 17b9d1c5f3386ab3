"""APP: what the command line names, found in modules that are written here."""

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greentask.errors import ConfigurationError
from greentask.tasks.loading import load_apps

Write = Callable[..., str]

numbers = itertools.count(1)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module, or a module of a package, and return its name, which no other test has."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(source: str, name: str = "", package: str = "") -> str:
        name = name or f"loaded_app_{next(numbers)}"
        folder = tmp_path / package
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(source)
        return f"{package}.{name}" if package else name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("loaded_app_"):
            del sys.modules[name]


SHOP = """
from greentask import Tasks, task

@task
def send_mail(to): return to

@task(process=True)
def report(year): return year

def plain(a): return a

registry = Tasks()

@registry.task
def inner(): return "inner"

registry.add(plain, name="only_in_it")

class Box:
    @staticmethod
    def open(): return "opened"
    tasks = Tasks([plain])

NUMBER = 5
also_send_mail = send_mail
"""


def names(*apps: str, in_processes: tuple[str, ...] = ()) -> list[str]:
    return sorted(task.name for task in load_apps(apps, in_processes=in_processes))


# ---- What is found


def test_a_module_is_all_its_tasks_and_registries(write: Write) -> None:
    assert names(write(SHOP)) == ["inner", "only_in_it", "report", "send_mail"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("registry", ["inner", "only_in_it"]),
        ("send_mail", ["send_mail"]),
        ("also_send_mail", ["send_mail"]),
        ("plain", ["plain"]),
        ("Box.open", ["open"]),
        ("Box.tasks", ["plain"]),
        ("Box", ["Box"]),
    ],
)
def test_a_part_of_a_module_is_named_behind_a_colon(write: Write, path: str, found: list[str]) -> None:
    assert names(f"{write(SHOP)}:{path}") == found


def test_a_module_in_a_package(write: Write) -> None:
    package = f"loaded_app_{next(numbers)}"
    write("", "__init__", package)
    assert names(write(SHOP, "shop", package)) == ["inner", "only_in_it", "report", "send_mail"]


def test_a_package_without_tasks_is_looked_for_its_celery_module(write: Write) -> None:
    package = f"loaded_app_{next(numbers)}"
    write("", "__init__", package)
    write(SHOP, "celery", package)
    assert names(package) == ["inner", "only_in_it", "report", "send_mail"]


def test_a_function_that_nobody_decorated_works(write: Write) -> None:
    tasks = load_apps([f"{write(SHOP)}:plain", "os.path:getsize", "zlib:crc32", "math:sqrt"])
    assert tasks.find("os.path:getsize") is tasks.find("genericpath:getsize") is tasks.get("getsize")
    assert [task.name for task in tasks] == ["plain", "getsize", "crc32", "sqrt"]
    assert tasks.get("plain")(7) == 7
    assert tasks.get("sqrt")(9.0) == 3.0
    assert not any(task.process for task in tasks)


def test_tasks_of_another_module_count_once(write: Write) -> None:
    shop = write(SHOP)
    front = write(f"from {shop} import *\nfrom {shop} import send_mail as again, registry as more\n")
    assert names(shop, front, f"{shop}:send_mail", f"{front}:again") == ["inner", "only_in_it", "report", "send_mail"]
    assert names(front) == ["inner", "only_in_it", "report", "send_mail"]


def test_tasks_of_several_apps_are_in_one_registry(write: Write) -> None:
    other = write("from greentask import task\n@task\ndef other(): ...\n")
    assert names(write(SHOP), other) == ["inner", "only_in_it", "other", "report", "send_mail"]


def test_no_app_is_no_task() -> None:
    assert len(load_apps([])) == 0


# ---- In processes


def test_undecorated_functions_run_in_processes_where_it_is_said(write: Write) -> None:
    tasks = load_apps([f"{write(SHOP)}:plain", "zlib:crc32", "os.path:getsize"], in_processes=["crc32", "plain"])
    assert {task.name: task.process for task in tasks} == {"plain": True, "crc32": True, "getsize": False}


def test_a_decorated_task_may_be_named_if_it_says_so_itself(write: Write) -> None:
    shop = write(SHOP)
    assert names(shop, in_processes=("report",)) == ["inner", "only_in_it", "report", "send_mail"]
    with pytest.raises(ConfigurationError, match="--process send_mail: no undecorated function of that name is served"):
        load_apps([shop], in_processes=["send_mail"])


def test_what_is_to_run_in_processes_has_to_be_served(write: Write) -> None:
    with pytest.raises(ConfigurationError, match="--process crc33: no undecorated function of that name is served"):
        load_apps(["zlib:crc32"], in_processes=["crc33"])


def test_what_cannot_run_in_processes_is_refused(write: Write) -> None:
    module = write("def make():\n    def double(a): return 2 * a\n    return double\nmade = make()\n")
    assert load_apps([f"{module}:made"]).get("double")(2) == 4
    with pytest.raises(ConfigurationError, match="can't run in a process"):
        load_apps([f"{module}:made"], in_processes=["double"])


def test_a_lambda_has_no_name_to_be_served_by(write: Write) -> None:
    module = write("double = lambda a: 2 * a\n")
    with pytest.raises(ConfigurationError, match="a lambda has no name"):
        load_apps([f"{module}:double"])


# ---- What is not found


@pytest.mark.parametrize("app", ["", ":", "shop-1", "./shop", "a..b", ".a", "a b", "shop/tasks:x", "1st"])
def test_what_is_no_app_is_refused_with_the_forms_there_are(app: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_apps([app])
    assert str(caught.value) == (
        f"{app!r} is not an APP: write package.module, package.module:registry or module:function"
    )


def test_a_module_that_is_not_there_is_named_with_where_it_was_looked_for(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_apps(["loaded_app_nowhere:x"])
    assert str(caught.value) == (
        "APP 'loaded_app_nowhere:x': there is no module 'loaded_app_nowhere' in sys.path, "
        f"which begins with {str(tmp_path)!r}; is it spelled right, and installed?"
    )


@pytest.mark.parametrize(("app", "module"), [("shop.py", "shop"), ("shop/tasks.py", "shop.tasks"), ("./a.py", "a")])
def test_a_file_is_answered_with_the_module_to_name(app: str, module: str) -> None:
    with pytest.raises(ConfigurationError, match=f"is a file: name the module, '{module}'"):
        load_apps([app])


def test_the_part_of_the_path_that_is_not_there_is_named(write: Write) -> None:
    with pytest.raises(ConfigurationError, match="there is no module 'loaded_app_nowhere' in"):
        load_apps(["loaded_app_nowhere.shop.tasks"])
    module = write("")
    with pytest.raises(ConfigurationError, match=f"there is no module '{module}.tasks' in"):
        load_apps([f"{module}.tasks"])


@pytest.mark.parametrize("path", ["missing", "Box.missing", "send_mail.missing", "a..b", "registry."])
def test_an_attribute_that_is_not_there_is_named(write: Write, path: str) -> None:
    module = write(SHOP)
    with pytest.raises(ConfigurationError) as caught:
        load_apps([f"{module}:{path}"])
    assert str(caught.value) == f"APP '{module}:{path}': {module} has no {path!r}"


def test_a_module_without_tasks_is_refused_with_what_would_do(write: Write) -> None:
    module = write("def plain(): ...\n")
    with pytest.raises(ConfigurationError) as caught:
        load_apps([module])
    assert str(caught.value) == (
        f"APP '{module}' has no tasks: decorate functions at its top with @task, or name them as {module}:function"
    )


@pytest.mark.parametrize(("path", "kind"), [("NUMBER", "int"), ("Box.__doc__", "NoneType"), ("__name__", "str")])
def test_what_is_neither_module_nor_registry_nor_function_is_refused(write: Write, path: str, kind: str) -> None:
    module = write(SHOP)
    with pytest.raises(ConfigurationError) as caught:
        load_apps([f"{module}:{path}"])
    assert str(caught.value) == (f"APP '{module}:{path}' is a {kind}: name a module, a Tasks registry or a function")


def test_two_tasks_with_one_name_are_refused(write: Write) -> None:
    one, two = write(SHOP), write(SHOP)
    with pytest.raises(ConfigurationError, match=f"two tasks are named '\\w+': {one}:\\w+ and {two}:\\w+; give one"):
        load_apps([one, two])


# ---- Errors of the user's own code


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("import loaded_app_missing_in_it", ModuleNotFoundError, "loaded_app_missing_in_it"),
        ("import os.missing", ModuleNotFoundError, "os.missing"),
        ("from os import missing", ImportError, "cannot import name 'missing'"),
        ("1 / 0", ZeroDivisionError, "division by zero"),
        ("def f(:", SyntaxError, "invalid syntax"),
        ("raise SystemExit('configure me first')", SystemExit, "configure me first"),
        ("def __getattr__(name): raise RuntimeError(name)", RuntimeError, "lazily"),
    ],
)
def test_they_pass_through(write: Write, source: str, error: type[BaseException], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        load_apps([f"{write(source)}:lazily"])
