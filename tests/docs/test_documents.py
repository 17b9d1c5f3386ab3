"""What the documents say: their code runs, their JSON is JSON, their links lead somewhere."""

import dataclasses
import doctest
import importlib
import json
import os
import pkgutil
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

import greentask as package
from greentask import Limits
from greentask.cli import _group
from support.documents import blocks
from support.parts import require
from support.programs import ROOT, environment, greentask, program
from support.proofs import OTHER, SECRET, secret_file
from support.servers import LineClient, connect, free_port

pytestmark = pytest.mark.once

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])


def shell(script: str, folder: Path, port: int) -> "subprocess.CompletedProcess[str]":
    """Run what a reader pastes, with the port replaced; what it left in the background is ended."""
    script = script.replace("12345", str(port)).replace("12346", str(free_port()))
    (folder / "script.sh").write_text(script + "\nkill $(jobs -p) 2>/dev/null; wait\n", encoding="utf-8")
    bin = Path(sys.executable).parent
    variables = environment(
        PATH=f"{bin}{os.pathsep}{os.environ['PATH']}", GREENTASK_URL=f"127.0.0.1:{port}", PYTHONPATH=str(folder)
    )
    return subprocess.run(["bash", "script.sh"], cwd=folder, env=variables, capture_output=True, text=True, timeout=60)


# ---- README


def test_the_readme_example_works_when_pasted(tmp_path: Path) -> None:
    example = blocks("README.md", "sh")[0]
    done = shell(example, tmp_path, free_port())
    expected = sum(n * n for n in range(2026 * 1000))
    assert f"\n{expected} sent to you@x.org\n" in "\n" + done.stdout, done.stdout + done.stderr
    assert len(example.splitlines()) <= 16


def test_the_readme_serves_what_nobody_decorated(tmp_path: Path) -> None:
    port = free_port()
    serve = blocks("README.md", "sh")[1].replace("12346", str(port)).rstrip().rstrip("&")
    assert serve.startswith("greentask ")
    with program("-m", *serve.split(), cwd=tmp_path) as (line, _):
        assert "serves 2 tasks" in line
        server = f"127.0.0.1:{port}"
        assert greentask("call", "median", "data=[3, 1, 2]", "--server", server).stdout == "2\n"
        listed = json.loads(greentask("tasks", "--json", "--server", server).stdout)
        assert {task["name"]: task["process"] for task in listed} == {"getsize": False, "median": True}


@pytest.mark.interop
def test_the_readme_calls_from_a_shell(tmp_path: Path) -> None:
    require(shutil.which("nc"), "no netcat here (on Debian: apt-get install netcat-openbsd)")
    first, _, third = blocks("README.md", "sh")[:3]
    start = "\n".join(line for line in first.splitlines() if not line.startswith("python3"))
    done = shell(start + "\n" + third, tmp_path, free_port())
    assert "send_mail(from_, to, contents)" in done.stdout, done.stderr
    assert '"sent to you@x.org"' in done.stdout
    assert f'{{"result":{sum(n * n for n in range(2026 * 1000))}}}' in done.stdout


def test_the_readme_has_two_commands_and_run_py_knows_them() -> None:
    commands = re.findall(r"^    (python3 run\.py \w+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == ["python3 run.py demo", "python3 run.py test"]
    helped = subprocess.run([sys.executable, str(ROOT / "run.py"), "--help"], capture_output=True, text=True)
    assert all(command in helped.stdout for command in commands)


# ---- docs/tasks.md


def test_the_tasks_document_runs(tmp_path: Path) -> None:
    declared, called, several = blocks("docs/tasks.md", "python")[:3]
    executor = next(block for block in blocks("docs/tasks.md", "python") if ".executor()" in block)
    more = """
        @task
        def add(a, b):
            return a + b

        @task
        def length(text):
            return len(text)

        @task
        def nap(seconds):
            time.sleep(seconds)
            return seconds

        @task
        def echo(value):
            return value

        @task
        def slow():
            current().progress(1, 2)
            return "at last"
    """
    (tmp_path / "documented.py").write_text("import time\n" + declared + textwrap.dedent(more), encoding="utf-8")
    serve = ["-m", "greentask", "serve", "documented", "os.path:getsize", "-l", "127.0.0.1:0"]
    with program(*serve, cwd=tmp_path) as (line, _):
        server = next(word for word in line.split() if word.startswith("tcp://"))
        called = (called + executor).replace("127.0.0.1:12345", server)
        ends = """
            assert future.result() == 3
            assert result == 1998
            assert sizes == list(map(os.path.getsize, paths))
            assert item == 2
            assert client.call("send_mails", ["a", "b"]) == 2
            assert client.call("yearly_report", 4) == {"year": 4, "total": 6}
            assert client.call("fetch", "x") == "x"
        """
        more_ends = """
            assert (total, size) == (3, 3)
            assert not not_done
        """
        asynchronous = next(block for block in blocks("docs/tasks.md", "python") if "wrap_future" in block)
        source = called + textwrap.dedent(ends) + several + textwrap.dedent(more_ends) + asynchronous
        done = subprocess.run(
            [sys.executable, "-c", source],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "{'done': 1, 'total': 2}\n0.1\n0.2\n"


@pytest.mark.parametrize(("name", "index"), [("docs/pool.md", 0), ("docs/resources.md", 0)])
def test_a_program_of_the_documents_runs(tmp_path: Path, name: str, index: int) -> None:
    (tmp_path / "program.py").write_text(blocks(name, "python")[index], encoding="utf-8")
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_queues_document_runs(tmp_path: Path) -> None:
    (serve,) = blocks("docs/queue.md", "sh")
    package = tmp_path / "app"
    package.mkdir()
    tasks = "".join(blocks("docs/queue.md", "python")[number] for number in (0, 2))
    (package / "tasks.py").write_text(tasks + PICTURES, encoding="utf-8")
    with program("-m", *serve.split(), "-l", "127.0.0.1:0", cwd=tmp_path) as (line, _):
        server = next(word for word in line.split() if word.startswith("tcp://"))
        peer = connect(server)
        kept = peer.ask({"function": "send_mail", "args": ["b@y"], "enqueue": True})["result"]["task"]
        assert peer.call("greentask.result", kept, True)["result"] == "b@y"
        waits = peer.ask({"function": "wait_for_payment", "args": [1001], "enqueue": True})["result"]["task"]
        assert peer.call("greentask.result", waits, 0.3)["state"] in ("running", "scheduled")
        peer.close()
        enqueues = blocks("docs/queue.md", "python")[1].replace("127.0.0.1:12345", server)
        done = subprocess.run(
            [sys.executable, "-c", enqueues], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.stdout.split(), done.stderr) == (["b@example.org", "done", "True", "1000", "paid"], "")
        follows = next(block for block in blocks("docs/queue.md", "python") if "Fan" in block)
        done = subprocess.run(
            [sys.executable, "-c", follows.replace("127.0.0.1:12345", server)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        told = ["ready-cat.png@640", "cats: 2", "{'total': 100, 'done': 100, 'failed': 0}", "numbers: 100"]
        assert (done.stdout.splitlines(), done.stderr) == (told, "")


PICTURES = """

@task
def prepare(name: str) -> str:
    return f"ready-{name}"


@task
def resize(name: str, width: int) -> str:
    return f"{name}@{width}"


@task
def publish(names: list, title: str) -> str:
    return f"{title}: {len(names)}"
"""


@pytest.mark.slow
def test_the_outbox_document_runs(tmp_path: Path) -> None:
    package = tmp_path / "app"
    package.mkdir()
    (package / "tasks.py").write_text(blocks("docs/queue.md", "python")[0], encoding="utf-8")
    enqueues, relays = (block for block in blocks("docs/outbox.md", "python") if "shop.db" in block)
    (command,) = blocks("docs/outbox.md", "sh")

    def run(source: str) -> str:
        done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    run(enqueues)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        assert db.execute("SELECT count(*) FROM greentask_outbox").fetchone() == (102,)
        for statement in blocks("docs/outbox.md", "sql")[0].split(";"):
            db.execute(statement)
    serve = ["-m", "greentask", "serve", "app.tasks", "--queue", "tasks.db", "-l", "127.0.0.1:0"]
    with program(*serve, cwd=tmp_path) as (line, _):
        server = next(word for word in line.split() if word.startswith("tcp://"))
        assert run(relays.replace("127.0.0.1:12345", server)) == "102 tasks enqueued\n"
        run(enqueues)
        words = command.replace("127.0.0.1:12345", server).split()
        done = greentask(*words[1:], "--once", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("102 tasks enqueued\n")


@pytest.mark.slow
def test_the_outbox_document_runs_in_django(tmp_path: Path) -> None:
    apps, transaction = (block for block in blocks("docs/outbox.md", "python") if "shop.db" not in block)
    project = """
        import types, django
        from django.conf import settings
        from django.core.management import call_command
        from support.durable_tasks import task
        databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.db"}}
        settings.configure(INSTALLED_APPS=[app for app in INSTALLED_APPS if app is not ...], DATABASES=databases)
        django.setup()
        call_command("migrate", verbosity=0)
        send_mail = task(lambda to: to, name="send_mail")
        order = types.SimpleNamespace(customer=types.SimpleNamespace(email="b@example.org"))
        Order = types.SimpleNamespace(objects=types.SimpleNamespace(create=lambda number: order))
    """
    source = apps + textwrap.dedent(project) + transaction
    subprocess.run([sys.executable, "-c", source], cwd=tmp_path, check=True, timeout=60, env=environment())
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        assert db.execute("SELECT task, args FROM greentask_outbox").fetchall() == [
            ("send_mail", '{"to": "b@example.org"}')
        ]


@pytest.mark.slow
def test_the_testing_document_runs(tmp_path: Path) -> None:
    shop, tests, _, plain, faults = blocks("docs/testing.md", "python")
    (tmp_path / "shop.py").write_text(shop, encoding="utf-8")
    (tmp_path / "test_shop.py").write_text(tests + faults, encoding="utf-8")
    (tmp_path / "plain.py").write_text(plain, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugin = [] if entry_points(group="pytest11", name="greentask") else ["-p", "greentask.contrib.pytest_plugin"]
    for arguments in (["-m", "pytest", "-q", *plugin, "-p", "no:randomly"], ["plain.py"]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "5 passed" in done.stdout or done.stdout.startswith("tcp://127.0.0.1:")


def test_a_server_of_one_s_own_runs(tmp_path: Path) -> None:
    source = next(block for block in blocks("docs/tasks.md", "python") if "serve_forever" in block)
    port = free_port()
    (tmp_path / "own.py").write_text(source.replace("12345", str(port)), encoding="utf-8")
    with subprocess.Popen([sys.executable, "own.py"], cwd=tmp_path) as own:
        while greentask("call", "nap", "seconds=0.01", "--server", f"127.0.0.1:{port}").stdout != "0.01\n":
            assert own.poll() is None
        own.terminate()
        assert own.wait(20) == 0


def test_the_error_tree_of_the_document_is_the_tree() -> None:
    for name in re.findall(r"── (\w+)", (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")):
        assert issubclass(getattr(package, name), package.GreentaskError), name


# ---- docs/textserver.md


def dialog(source: str, tmp_path: Path, *spoken: str) -> list[str]:
    """Run a server's program; what it says to a peer that says this and hangs up."""
    assert source.count("5678") == 1
    port = free_port()
    (tmp_path / "lines.py").write_text(source.replace("5678", str(port)), encoding="utf-8")
    with subprocess.Popen([sys.executable, "lines.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        while True:
            try:
                peer = LineClient(socket.create_connection(("127.0.0.1", port)))
                break
            except ConnectionRefusedError:
                assert server.poll() is None, server.stderr and server.stderr.read()
                time.sleep(0.01)
        with peer:
            peer.send_bytes("".join(line + "\n" for line in spoken).encode())
            peer.end_sending()
            heard = []
            while (line := peer.line()) is not None:
                heard.append(line.decode())
        server.terminate()
        assert (server.wait(20), server.stderr and server.stderr.read()) == (0, "")
    return heard


def test_the_first_text_server_of_the_document_runs(tmp_path: Path) -> None:
    assert dialog(blocks("docs/textserver.md", "python")[0], tmp_path, "world") == ["hello world"]


def test_a_loop_that_sends_much_runs(tmp_path: Path) -> None:
    first, loop = blocks("docs/textserver.md", "python")[:2]
    source = re.sub(r"def on_message.*?\n\n\n", lambda _: loop + "\n\n", first, flags=re.DOTALL)
    (tmp_path / "catalogue").write_text("x" * 99 + "\n" + "y" * 99, encoding="utf-8")
    assert dialog(source, tmp_path, "much") == ["x" * 99, "y" * 99]


def test_a_timer_that_repeats_runs() -> None:
    timer = blocks("docs/textserver.md", "python")[2].replace("10,", "0.01,").replace("timer.kill()", "")
    wait = "while len(said) < 3: gevent.sleep(0.01)\ntimer.kill()"
    source = f"import gevent\nclass server: broadcast = lambda line: said.append(line)\nsaid = []\n{timer}\n{wait}"
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


def test_the_worker_that_has_moved_to_python_runs(tmp_path: Path) -> None:
    moved = blocks("docs/textserver.md", "python")[3]
    assert dialog(moved, tmp_path, "Ann", "is anybody here?", "quit") == ["your name?", "hello Ann", "bye"]


def test_the_names_of_the_tables_are_those_of_a_text_server() -> None:
    text = (ROOT / "docs" / "textserver.md").read_text(encoding="utf-8")
    tables = dict(re.findall(r"^## Side by side: (.*?)\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL))
    server = package.TextServer("127.0.0.1:0", print)
    for title, thing in (("the server", dir(server)), ("a connection", dir(package.TextConnection))):
        ours = "\n".join(line.rsplit(" | ", 1)[-1] for line in tables[title].splitlines())
        unnamed = [name for name in thing if not name.startswith("_") and not re.search(rf"\b{name}\b", ours)]
        assert unnamed == [], title


# ---- docs/protocol.md, docs/operations.md


@pytest.mark.parametrize("name", ["docs/protocol.md"])
def test_every_json_line_is_json(name: str) -> None:
    for block in blocks(name, "json"):
        for line in block.splitlines():
            json.loads(line)


@pytest.mark.interop
def test_the_protocol_document_talks_to_a_server_with_netcat(tmp_path: Path) -> None:
    require(shutil.which("nc"), "no netcat here (on Debian: apt-get install netcat-openbsd)")
    port = free_port()
    with program("-m", "greentask", "serve", "support.shop", "-l", f"127.0.0.1:{port}"):
        done = shell(blocks("docs/protocol.md", "sh")[1], tmp_path, port)
    assert done.stdout == '{"result":"pong"}\n'


def test_the_protocol_document_proves_a_secret_with_a_shell(tmp_path: Path) -> None:
    require(shutil.which("openssl"), "no openssl here (on Debian: apt-get install openssl)")
    script, port = blocks("docs/protocol.md", "sh")[0], free_port()
    file = secret_file(tmp_path, OTHER, SECRET)
    with program("-m", "greentask", "serve", "support.shop", "-l", f"127.0.0.1:{port}", "--secret-file", str(file)):
        done = shell(f"SECRET='{SECRET}'\n{script}", tmp_path, port)
        assert (done.stdout, done.stderr) == ('{"result":"pong"}\n', "")
        assert shell(f"SECRET='of nobody, but long enough'\n{script}", tmp_path, port).stdout == ""


def test_the_operations_document_has_the_defaults_of_all_limits() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(Limits):
        found = re.search(rf"^\| `--{field.name.replace('_', '-')}` \| ([^|]+) \|", text, re.MULTILINE)
        assert found, f"{field.name} has no line in the table of limits"
        assert _limit(found[1]) == field.default, field.name


def _limit(text: str) -> float:
    """The number that a default in the table means."""
    units = {"MiB": 1 << 20, "GiB": 1 << 30, "s": 1, "h": 3600}
    number, _, unit = re.split(r"[:;]|, at", text)[0].partition(" ")
    return float(number.replace(",", "")) * units.get(unit, 1)


def test_the_operations_document_has_every_flag_of_serve() -> None:
    named = flags_in(ROOT / "docs" / "operations.md")
    assert sorted(flag for flag, commands in FLAGS.items() if "serve" in commands and flag not in named) == []


def test_the_documents_have_every_flag_and_no_other() -> None:
    documents = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    named = set().union(*map(flags_in, documents))
    assert sorted(FLAGS.keys() - named) == []
    assert sorted(named - FLAGS.keys() - OTHERS_FLAGS) == []


def flags_in(document: Path) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", document.read_text(encoding="utf-8")))


def _flags_of(command: click.Command, path: str = "") -> Iterator[tuple[str, str]]:
    """Each flag of a command and of those below it, and whose it is."""
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _flags_of(below, f"{path} {name}".strip())
    for parameter in command.get_params(context):
        for flag in (*parameter.opts, *parameter.secondary_opts):
            if flag.startswith("--"):
                yield flag, path


FLAGS: dict[str, set[str]] = {}
for _flag, _command in _flags_of(_group):
    FLAGS.setdefault(_flag, set()).add(_command)
del FLAGS["--help"], FLAGS["--version"]  # as everywhere
OTHERS_FLAGS = {
    *("--graceful-timeout", "--max-requests", "--preload", "--threads"),  # gunicorn's
    *("--concurrency", "--watch", "--enable-threads", "--signal"),  # Celery's, Dramatiq's, uWSGI's, systemctl's
    *("--database", "--seconds", "--seed"),  # those of manage.py and of the benchmarks
}


# ---- All of them


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), target


MODULES = {module.name for module in pkgutil.walk_packages(package.__path__, "greentask.")}
REFUSED = {  # at import, with a remedy
    f"greentask.contrib.celery_style.{name}"
    for name in ("beat", "bootsteps", "contrib", "schedules", "signals", "worker")
}


@pytest.mark.parametrize("name", sorted(MODULES - REFUSED))
def test_the_examples_in_docstrings_run(name: str) -> None:
    if name in ("greentask.__main__", "greentask.cli.serve", "greentask.demo.service"):
        return  # programs: importing them patches the standard library
    if name.startswith("greentask.contrib.django."):
        return  # which a Django project imports; it has tests of its own
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
