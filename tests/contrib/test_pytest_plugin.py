"""The pytest plugin, in real runs of pytest in a project of its own."""

import configparser
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import ROOT, environment

SHOP = """
import os
from greentask import task

@task
def send_mail(to, text="hi"):
    return f"sent to {to}"

@task(process=True)
def report(year):
    return year * 2

@task
def pid():
    return os.getpid()

def order(to):
    try:
        return send_mail.using(timeout=10).call(to=to)
    except Exception as error:
        return type(error).__name__
"""
MODULE = "greentask.contrib.pytest_plugin"
#: pytest loads it by itself where it is installed as it is now.
IS_INSTALLED = any(one.value == MODULE for one in importlib.metadata.entry_points(group="pytest11"))


def run_pytest(folder: Path, *arguments: str, **files: str) -> str:
    """What pytest says of these files; ``conftest="…"`` is conftest.py."""
    (folder / "pytest.ini").write_text(files.pop("ini", "[pytest]\n"))
    (folder / "shop.py").write_text(SHOP)
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source)
    plugins = [] if IS_INSTALLED else ["-p", MODULE]
    for name in ("randomly", "xdist", "cacheprovider", "hypothesispytest", "rerunfailures"):
        plugins += ["-p", f"no:{name}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-rA", *plugins, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        env={name: value for name, value in environment().items() if name != "GREENTASK_URL"},
    )
    return done.stdout


def test_pytest_finds_it_by_the_entry_point() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.entry_points"]["pytest11"].strip() == f"greentask = {MODULE}"


def test_eager_mode_and_calls(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        test_shop="""
import pytest
import shop
from greentask import UnknownTask, WorkerLost, task

@task
def other():
    return "other"

def test_calls(greentask_eager):
    assert shop.order("a@x.org") == "sent to a@x.org"
    [call] = greentask_eager.calls_to(shop.send_mail)
    assert call.arguments == {"to": "a@x.org"}
    assert shop.report.call(2) == 4 and other.call() == "other"

def test_faults(greentask_eager):
    assert greentask_eager.calls == []
    greentask_eager.lose_worker(shop.send_mail)
    assert [shop.order("b"), shop.order("b")] == ["WorkerLost", "sent to b"]

@pytest.mark.greentask("shop")
def test_marked(greentask_eager):
    assert shop.order("b") == "sent to b"
    with pytest.raises(UnknownTask):
        other.call()

def test_looked_at(greentask_calls):
    greentask_calls.answer("elsewhere", 1)
    import greentask
    assert greentask.default_client().call("elsewhere") == 1
""",
    )
    assert "4 passed" in said, said


@pytest.mark.slow
def test_a_server_is_kept_for_the_tests_that_want_the_same(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        ini="[pytest]\ngreentask_apps = shop\n",
        test_shop="""
import os
import pytest
import shop
from greentask import ConnectionLost, default_client

pids = []

@pytest.mark.parametrize("n", range(2))
def test_calls(greentask_server, n):
    assert shop.order("a") == "sent to a"
    assert shop.report.call(1) == 2
    assert len(greentask_server.calls) == 2
    assert os.environ["GREENTASK_URL"] == greentask_server.server.address
    pids.append(shop.pid.call())
    assert len(set(pids)) == 1 and pids[0] != os.getpid()

def test_faults(greentask_server):
    greentask_server.refuse(shop.send_mail)
    assert [shop.order("b"), shop.order("b")] == ["Overloaded", "sent to b"]

@pytest.mark.greentask("shop", fresh=True)
def test_a_fresh_one(greentask_server):
    assert shop.pid.call() not in pids

def test_it_is_over():
    assert "GREENTASK_URL" not in os.environ
    with pytest.raises(ConnectionLost):
        from greentask import Client
        shop.pid.using(Client("127.0.0.1:1")).call()

def test_a_server_that_died_is_replaced_by_the_next_test(greentask_server):
    greentask_server.server.stop()

def test_the_next_one(greentask_server):
    assert shop.order("c") == "sent to c"
""",
    )
    assert "7 passed" in said, said


def test_a_fixture_may_name_the_tasks_and_nothing_named_is_told(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef greentask_apps():\n    return ['shop:send_mail']\n"
    )
    (tmp_path / "below" / "test_below.py").write_text(
        "import shop\ndef test_it(greentask_server):\n    assert shop.order('x') == 'sent to x'\n"
    )
    said = run_pytest(tmp_path, test_above="def test_nothing(greentask_server): pass\n")
    assert "1 passed" in said, said
    assert "test_above.py::test_nothing uses greentask_server: which tasks? Say @pytest.mark.greentask(" in said


def test_a_mark_s_option_that_is_none_is_named_with_a_close_one(tmp_path: Path) -> None:
    test = "import pytest\n@pytest.mark.greentask('shop', proceses=2)\ndef test_it(greentask_server): pass\n"
    said = run_pytest(tmp_path, test_wrong=test)
    assert "test_wrong.py::test_it: @pytest.mark.greentask has no option 'proceses'; did you mean processes?" in said, (
        said
    )


def test_a_pytest_that_uses_nothing_of_it_imports_little() -> None:
    program = (
        "import sys, pytest\n"
        f"import {MODULE}\n"
        "print([one for one in ('gevent', 'greentask.client', 'greentask.testing', 'ujson') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment())
    assert done.stdout == "[]\n", done.stderr
