"""The demo, as its user runs it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from support.programs import environment, greentask

pytestmark = pytest.mark.once

#: Of what was raised in a destructor, or in a callback of C's. It is raised again.
LOST = re.compile(r"^Exception ignored in.*?^(SystemExit: 143|KeyboardInterrupt:? *)$\n?", re.DOTALL | re.MULTILINE)
OURS = re.compile(r'greentask/cli/__init__\.py", line \d+, in main\n')
FREE = ("--listen", "127.0.0.1:0", "--web", "127.0.0.1:0")


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "greentask", "demo", *FREE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


@pytest.mark.slow
def test_every_mail_is_accepted_once_and_the_closing_message_comes() -> None:
    done = greentask("demo", "--mails", "40", *FREE)
    assert done.returncode == 0, done.stderr
    assert "The service tells the client: tâche terminée" in done.stdout
    assert re.search(r"accepted +40 of 40, none twice", done.stdout)
    assert re.search(r"one after another, it would take +4\.0 s", done.stdout)
    assert len(re.findall(r"p50 [\d.]+ ms, p99 [\d.]+ ms", done.stdout)) == 2


@pytest.mark.slow
def test_a_thousand_mails_take_a_fraction_of_the_time() -> None:
    done = greentask("demo", *FREE)
    assert done.returncode == 0, done.stderr
    assert re.search(r"accepted +1000 of 1000, none twice", done.stdout)
    took = re.search(r"time for the mails and both reports +([\d.]+) s", done.stdout)
    assert took is not None
    assert float(took[1]) < 26, "half of what one after another takes, on the busiest machine"


@pytest.mark.parametrize("option", ["--listen", "--web", "--smtp"])
def test_an_address_that_is_taken_is_named(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = greentask("demo", *FREE, option, address)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1, done.stderr
    assert address in done.stderr
    assert option in done.stderr


def test_an_address_that_is_none_is_named() -> None:
    for address in ("8080", "0.0.0.0:8080"):
        done = greentask("demo", "--web", address)
        assert done.returncode == 2
        assert address in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        (0.4, signal.SIGTERM),
        *(
            pytest.param(seconds, number, marks=pytest.mark.slow)
            for number, moments in ((signal.SIGINT, (0.1, 0.6, 1.5, 3.0)), (signal.SIGTERM, (1.0, 2.5, 4.0)))
            for seconds in moments
        ),
    ],
)
def test_whenever_it_is_interrupted_nothing_is_left(seconds: float, number: signal.Signals) -> None:
    demo = start("--keep")
    # A moment of its life, and no condition: the point is that any will do.
    time.sleep(seconds)
    children = psutil.Process(demo.pid).children(recursive=True)
    demo.send_signal(number)
    out, err = demo.communicate(timeout=15)
    assert demo.returncode != 0
    complaints = LOST.sub("", err)
    is_starting = not OURS.search(complaints) and not out  # modules are imported, before anything of ours runs
    assert "Traceback" not in complaints or is_starting, f"{out}\n{err}"
    assert_gone(children)


def test_a_sigterm_is_heeded_where_what_it_raises_is_lost() -> None:
    program = """
import signal, time
from greentask.demo.story import heed_sigterm
class Slow:
    def __del__(self):
        print("in it", flush=True)
        time.sleep(30)
heed_sigterm()
try:
    Slow()
    print("left", flush=True)
    time.sleep(30)
finally:  # as the demo does
    signal.setitimer(signal.ITIMER_REAL, 0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "in it\n"
        one.terminate()
        out, err = one.communicate(timeout=20)
    assert (out, one.returncode) == ("left\n", 143)
    assert "Exception ignored" in err


@pytest.mark.slow
def test_it_takes_what_it_started_along_when_it_is_killed() -> None:
    demo = start("--keep")
    assert demo.stdout is not None
    while "WebSocket service" not in (line := demo.stdout.readline()):
        assert line, demo.communicate()
    children = psutil.Process(demo.pid).children(recursive=True)
    assert len(children) >= 5  # SMTP, server, template, two processes, service
    demo.kill()
    demo.communicate(timeout=15)
    assert_gone(children)


def assert_gone(children: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(children, timeout=5)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.slow
def test_keep_leaves_it_up_and_prints_the_address() -> None:
    demo = start("--keep", "--mails", "20")
    assert demo.stdout is not None
    lines = [demo.stdout.readline()]
    while lines[-1] and "Still up" not in lines[-1]:
        lines.append(demo.stdout.readline())
    address = re.search(r"http://127\.0\.0\.1:(\d+)/", lines[-1])
    assert address is not None, lines
    socket.create_connection(("127.0.0.1", int(address[1])), timeout=5).close()
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=15)
    assert demo.returncode == 130


def test_the_page_is_part_of_the_package() -> None:
    import greentask.demo

    assert (Path(os.path.dirname(greentask.demo.__file__)) / "page.html").exists()
