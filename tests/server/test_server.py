"""A server as a whole, run as a process: its limits, its end, its task processes, and why it could not start."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from gevent.socket import create_connection

from greentask import CancelRequest, Client, InvalidArguments, InvalidMessage, Limits, Server
from support.programs import environment, greentask
from support.servers import LineClient, RunningServer, connect, is_goodbye, module_server, serving, wait_until

server = module_server()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if not is_gone(pid)]


def insist(server: RunningServer, number: int) -> None:
    """Send a signal until the server has ended: two in a row may be taken for one."""

    def has_ended() -> bool:
        server.signal(number)
        time.sleep(0.1)
        return server.process.poll() is not None

    wait_until(has_ended, "it has ended")


# ---- Greenlets and processes


def test_pings_are_answered_while_task_processes_compute(server: RunningServer) -> None:
    with server.connect() as busy, server.connect() as peer:
        busy.send(*({"id": number, "function": "spin", "args": [1.2]} for number in range(2)))
        wait_until(lambda: server.status()["processes"]["busy"] == 2, "both compute")
        began = time.monotonic()
        for _ in range(10):
            assert peer.call("greentask.ping") == "pong"
            assert peer.call("add", 1, 2) == 3
        assert time.monotonic() - began < 1.0
        assert server.status()["processes"]["busy"] == 2, "all that while they computed"
        assert {reply["id"] for reply in busy.hear_all(2)} == {0, 1}


def test_killing_a_task_process_fails_its_call_within_a_second_and_no_other(
    server: RunningServer, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    with server.connect() as victim, server.connect() as other:
        victim.send({"id": "lost", "function": "mark_in_process", "args": [str(file), 60]})
        pid = int(wait_until(lambda: file.exists() and file.read_text(), "it runs"))
        other.send(*({"id": number, "function": "nap_in_process", "args": [0.1]} for number in range(5)))
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        reply = victim.hear()
        assert time.monotonic() - killed < 1.0
        assert reply["id"] == "lost"
        assert reply["error"]["type"] == "WorkerLost"
        assert "signal 9" in reply["error"]["message"]
        assert {reply["id"]: reply["result"] for reply in other.hear_all(5)} == dict.fromkeys(range(5), 0.1)
    status = wait_until(lambda: (now := server.status())["processes"]["alive"] == 2 and now, "there is a new one")
    assert pid not in status["processes"]["pids"]


def test_the_server_killed_with_sigkill_leaves_no_process_behind() -> None:
    with serving() as server, server.connect() as peer:
        peer.send({"id": 1, "function": "fork_a_sleeper"})
        sleeper = peer.hear()["result"]
        peer.send(*({"id": number, "function": "spin", "args": [60]} for number in range(2)))
        wait_until(lambda: server.status()["processes"]["busy"] == 2, "both compute")
        pids = [process.pid for process in server.below()]
        assert len(pids) == 4, "a template, two task processes, and what one of them left running"
        assert sleeper in pids
        server.signal_all(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        wait_until(lambda: not alive(pids), "they have ended", patience=3.0)


def test_a_server_without_process_tasks_starts_no_process_and_stops_at_once() -> None:
    with serving(apps=["support.server_tasks:add"]) as server:
        assert server.below() == []
        assert "processes" not in server.status()
        assert server.call("add", 1, 2) == 3
        began = time.monotonic()
        server.signal(signal.SIGINT)
        assert server.wait() == 0, "and an idle server stops at once"
        assert time.monotonic() - began < 5, "and not after --drain-timeout"
        assert "Traceback" not in server.output()


def test_functions_that_are_not_decorated_are_served_by_name() -> None:
    apps = ["support.server_tasks:plain_add", "support.server_tasks:plain_pid", "os.path:getsize", "zlib:crc32"]
    with serving("--process", "plain_pid", apps=apps, processes=1) as server, server.connect() as peer:
        assert peer.call("plain_add", 1, 2) == 3
        assert peer.call("plain_add", a=1, b=2) == 3
        assert [peer.call("plain_pid")] == server.status()["processes"]["pids"]
        assert peer.call("getsize", __file__) == Path(__file__).stat().st_size
        assert peer.ask({"function": "crc32", "args": ["x"]})["error"]["type"] == "TypeError"
        assert peer.ask({"function": "plain_add", "args": [1]})["error"]["type"] == "InvalidArguments"


def test_it_serves_several_addresses(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen = ["127.0.0.1:0", f"unix://{path}", "[::1]:0", "0.0.0.0:0"]
    with serving("--insecure", apps=["support.server_tasks:add"], listen=listen) as server:
        assert len(server.addresses) == 4
        assert server.addresses[1] == f"unix://{path}"
        for address in server.addresses:
            with connect(address) as peer:
                assert peer.call("add", 1, 2) == 3
        assert server.status()["listen"] == server.addresses


def test_a_peer_that_never_pauses_does_not_hold_up_the_others(server: RunningServer) -> None:
    """Its next lines have always arrived already, so reading them never waits."""
    line = b'{"function":"greentask.ping"' + b" " * 4000 + b"}\\n"
    program = (
        "import socket, sys, threading\n"
        "peer = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "def read():\n"
        "    while peer.recv(1 << 20): pass\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        f"data = {line!r}.replace(b'\\\\n', b'\\n') * 200\n"
        "while True: peer.sendall(data)\n"
    )
    flood = subprocess.Popen([sys.executable, "-c", program, str(server.port)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: server.status()["connections"] == 1, "the flood has begun")
        with server.connect() as peer:
            began = time.monotonic()
            for _ in range(20):
                assert peer.call("greentask.ping") == "pong"
            assert time.monotonic() - began < 5
        assert flood.poll() is None, "it is neither cut off nor failed"
    finally:
        flood.kill()
        flood.wait()


# ---- Limits


def test_connections_past_the_limit_wait_until_another_is_closed() -> None:
    with serving("--max-connections", "2", apps=["support.server_tasks:add"]) as server:
        with server.connect() as one, server.connect() as two, server.connect(0.3) as three:
            assert one.call("greentask.ping") == two.call("greentask.ping") == "pong"
            with pytest.raises(TimeoutError):
                three.ask({"function": "greentask.ping"})
            two.close()
            three.socket.settimeout(10)
            assert three.hear() == {"result": "pong"}
        wait_until(lambda: server.status()["connections"] == 0, "they are closed")


@pytest.mark.parametrize(
    "name",
    [
        "max_line",
        "max_connections",
        "max_in_flight",
        "max_calls",
        "max_unsent",
        "max_held",
        "max_depth",
        "max_failures",
    ],
)
def test_a_limit_is_at_least_1(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        Limits(**{name: 0})


def test_a_depth_that_a_parser_would_not_survive_is_refused() -> None:
    assert Limits(max_depth=500).max_depth == 500
    with pytest.raises(ValueError, match="max_depth must be at most 500, which every parser survives, not 501"):
        Limits(max_depth=501)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [5, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (200, 500))])
def test_a_line_is_nested_no_deeper_than_max_depth(depth: int) -> None:
    """Arguments are two levels down. Who sends more than that is told in the answer to the call that was too much."""
    with serving("--max-depth", str(depth)) as server:
        for function in ("echo", "echo_in_process"):
            check_depth(server, depth, function)


def check_depth(server: RunningServer, depth: int, function: str) -> None:
    fits, too_deep = nested(depth - 2), nested(depth - 1)
    with server.connect() as peer:
        assert peer.call(function, fits) == fits
        error = {"type": "InvalidMessage", "message": f"nested deeper than {depth}"}
        assert peer.ask({"id": 7, "function": function, "args": [too_deep]}) == {"id": 7, "error": error}
        peer.send({"id": 8, "function": function, "batch": [[nested(depth - 3)]]})
        assert peer.hear_all(2)[0] == {"id": 8, "index": 0, "result": nested(depth - 3)}
    with Client(server.address) as client:
        assert client.call(function, fits) == fits
        with pytest.raises((InvalidMessage, InvalidArguments), match=f"nested deeper than {depth}"):
            client.call(function, too_deep)
        assert client.call(function, fits) == fits


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_is_above_0(seconds: float) -> None:
    with pytest.raises(ValueError, match="handshake_timeout is in seconds above 0"):
        Limits(handshake_timeout=seconds)


@pytest.mark.parametrize("name", ["grace", "start_timeout", "teardown", "max_hold"])
@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_time_of_a_server_is_from_0_on(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is in seconds from 0 on, not {seconds}"):
        Server([], **{name: seconds})  # type: ignore[arg-type]


# ---- The end


def test_sigterm_answers_what_is_in_flight_refuses_what_is_new_and_exits_with_0(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with serving() as server, server.connect() as peer, server.connect() as idle:
        assert idle.call("greentask.ping") == "pong"
        peer.send(
            {"id": "greenlet", "function": "wait_for_file", "args": [str(gate)]},
            {"id": "process", "function": "wait_for_file_in_process", "args": [str(gate)]},
            {"id": "batch", "function": "wait_for_file", "batch": [[str(gate)], [str(gate)]]},
            {"function": "wait_for_file", "args": [str(gate)]},
        )
        wait_until(lambda: server.status()["in_flight"] == 4, "all are in flight")
        server.signal(signal.SIGTERM)
        assert [is_goodbye(line) for line in idle.hear_rest()] == [True], "a connection without calls is closed"
        peer.send({"id": "new", "function": "add", "args": [1]}, {"id": "status", "function": "greentask.status"})
        refused, status = peer.hear_all(2)
        gate.touch()
        *answers, last = peer.hear_rest()
        assert is_goodbye(last)
        assert refused["id"] == "new"
        assert set(refused["error"]) == {"type", "message"}
        assert refused["error"]["type"] == "Draining"
        assert status["result"]["draining"] is True
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        assert len(answers) == 6
        assert {"id": "greenlet", "result": "there"} in answers
        assert {"id": "process", "result": "there"} in answers
        assert {"id": "batch", "result": {"done": 2, "failed": 0}} in answers
        assert {"result": "there"} in answers
        assert server.wait() == 0
        assert "Traceback" not in server.output()


def test_a_stream_goes_on_while_the_server_drains() -> None:
    with serving(apps=["support.server_tasks:count", "support.server_tasks:add"]) as server, server.connect() as peer:
        peer.send({"id": 1, "function": "count", "args": [4], "stream": 2})
        assert peer.hear_all(2) == [{"id": 1, "item": 0}, {"id": 1, "item": 1}]
        server.signal(signal.SIGTERM)
        wait_until(lambda: peer.call("greentask.status")["draining"], "it drains")
        assert peer.ask({"id": 2, "function": "add", "args": [1]})["error"]["type"] == "Draining"
        peer.send({"more": 1, "items": 5})
        *lines, last = peer.hear_rest()
        assert lines == [{"id": 1, "item": 2}, {"id": 1, "item": 3}, {"id": 1, "result": {"items": 4}}]
        assert is_goodbye(last)
        assert server.wait() == 0


def test_a_second_signal_stops_at_once() -> None:
    with serving() as server, server.connect() as peer:
        peer.send(
            {"id": 1, "function": "nap", "args": [60]},
            {"id": 2, "function": "nap_in_process", "args": [60]},
        )
        wait_until(lambda: server.status()["processes"]["busy"] == 1, "both run")
        pids = [process.pid for process in server.below()]
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        wait_until(lambda: peer.ask({"id": 3, "function": "greentask.status"})["result"]["draining"], "it drains")
        insist(server, signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < 5
        wait_until(lambda: not alive(pids), "its processes have ended", patience=2.0)


def test_the_drain_has_a_limit_after_which_tasks_are_told_to_end(tmp_path: Path) -> None:
    alone, item = tmp_path / "alone", tmp_path / "item"
    with (
        serving("--drain-timeout", "0.3", apps=["support.server_tasks:mark", "support.server_tasks:add"]) as server,
        server.connect() as peer,
    ):
        peer.send(
            {"id": 1, "function": "mark", "args": [str(alone), 60]},
            {"id": 2, "function": "mark", "batch": [[str(item), 60]]},
        )
        wait_until(lambda: all(file.exists() and file.read_text() for file in (alone, item)), "both run")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert 0.25 < time.monotonic() - began < 5
        assert "unanswered" in server.output()
    assert [file.read_text().split() for file in (alone, item)] == [["started", "CancelRequest"]] * 2


def test_ctrl_c_in_a_terminal_answers_what_is_in_flight() -> None:
    """A terminal signals the whole group, and not just the program in front."""
    with serving(new_session=True) as server, server.connect() as peer:
        peer.send({"id": 1, "function": "nap_in_process", "args": [0.4]}, {"id": 2, "function": "spin", "args": [0.4]})
        wait_until(lambda: server.status()["processes"]["busy"] == 2, "both run")
        os.killpg(server.process.pid, signal.SIGINT)
        *replies, last = peer.hear_rest()
        assert {reply["id"]: "result" in reply for reply in replies} == {1: True, 2: True}
        assert is_goodbye(last)
        assert server.wait() == 0
        assert "Traceback" not in server.output()


# ---- Calls whose connection broke


@pytest.fixture(scope="module")
def cancelling() -> Iterator[RunningServer]:
    """One that cancels what nobody waits for."""
    with serving("--cancel-abandoned") as server:
        yield server


def test_calls_of_a_broken_connection_go_on(server: RunningServer, tmp_path: Path) -> None:
    assert marks_of_a_broken_connection(server, tmp_path, 0.3) == ["ended", "ended"]


def test_calls_of_a_broken_connection_are_cancelled_where_that_is_wanted(
    cancelling: RunningServer, tmp_path: Path
) -> None:
    assert marks_of_a_broken_connection(cancelling, tmp_path, 60) == ["CancelRequest", "CancelRequest"]


def marks_of_a_broken_connection(server: RunningServer, folder: Path, seconds: float) -> list[str]:
    """How the calls of a connection that broke have ended, in a greenlet and in a process."""
    files = {name: folder / name for name in ("mark", "mark_in_process")}
    peer = server.connect()
    peer.send(*({"id": name, "function": name, "args": [str(file), seconds]} for name, file in files.items()))
    for file in files.values():
        wait_until(lambda file=file: file.exists() and file.read_text(), "it runs")  # type: ignore[misc]
    peer.reset()
    wait_until(lambda: server.status()["in_flight"] == 0, "they have ended")
    return [file.read_text().split()[-1] for file in files.values()]


def test_a_broken_connection_has_no_descriptor_while_its_calls_go_on(server: RunningServer) -> None:
    front = psutil.Process(server.pid)
    before = server.status()["in_flight"]
    peers = [server.connect() for _ in range(8)]
    for peer in peers:
        peer.send({"id": 1, "function": "nap", "args": [2]})
    wait_until(lambda: server.status()["in_flight"] == before + 8)
    descriptors = front.num_fds()
    for peer in peers:
        peer.reset()
    wait_until(lambda: front.num_fds() <= descriptors - 7)  # the status may have one of its own
    assert server.status()["in_flight"] == before + 8
    wait_until(lambda: server.status()["in_flight"] == before)


def test_cancel_abandoned_also_sees_a_peer_that_closes_after_it_has_shut_down_its_side(
    cancelling: RunningServer, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    peer = cancelling.connect()
    peer.send(
        {"id": 1, "function": "mark", "args": [str(file), 60]},
        {"id": 2, "function": "advance", "args": {"to": 1000, "pause": 0.05}, "progress": True},
    )
    wait_until(lambda: file.exists() and file.read_text(), "it runs")
    peer.end_sending()
    peer.hear()
    assert cancelling.status()["in_flight"] == 2, "until now it may only have been half-closed"
    peer.close()
    wait_until(lambda: cancelling.status()["in_flight"] == 0, "both have ended")
    assert file.read_text().split() == ["started", "CancelRequest"]


@pytest.mark.slow
def test_cancel_abandoned_sees_a_peer_that_has_closed_and_is_sent_nothing(
    cancelling: RunningServer, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    with cancelling.connect() as waits:
        waits.send({"id": 1, "function": "nap", "args": [5]})
        waits.end_sending()
        peer = cancelling.connect()
        peer.send({"id": 1, "function": "mark", "args": [str(file), 60]})
        wait_until(lambda: file.exists() and file.read_text(), "it runs")
        peer.close()
        lines = list(iter(waits.line, None))
        assert [json.loads(line) for line in lines if line.strip()] == [{"id": 1, "result": 5}], "who waits is answered"
        assert len(lines) > 1, "and was sent an empty line"
    wait_until(lambda: cancelling.status()["in_flight"] == 0, "it has ended")
    assert file.read_text().split() == ["started", "CancelRequest"]


# ---- What it says when it can't start


def failure(*arguments: str, cwd: Path | None = None) -> str:
    """The one line on stderr of a server that can't start."""
    done = greentask("serve", *arguments, cwd=cwd)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("greentask serve: ")
    return done.stderr


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("important")
    said = failure("support.server_tasks", "--listen", f"unix://{path}")
    assert str(path) in said
    assert "no socket" in said
    assert path.read_text() == "important"


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("http://127.0.0.1:1", "no scheme of ours"),
        ("unix:///nowhere/at/all/socket", "no directory /nowhere/at/all"),
    ],
)
def test_an_address_that_can_not_be_had_is_told(listen: str, told: str) -> None:
    said = failure("support.server_tasks", "--listen", listen)
    assert listen in said
    assert told in said


@pytest.mark.parametrize(
    ("app", "told"),
    [
        ("no_such_module", "there is no module 'no_such_module'"),
        ("support.programs", "has no tasks: decorate functions"),
    ],
)
def test_an_app_that_is_none_is_told(app: str, told: str) -> None:
    said = failure(app, "--listen", "127.0.0.1:0")
    assert told in said


def test_a_function_for_processes_that_is_not_served_is_told() -> None:
    said = failure("support.server_tasks:plain_add", "--process", "plain_pid", "--listen", "127.0.0.1:0")
    assert "--process plain_pid" in said


def test_two_tasks_of_one_name_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from greentask import task\n@task\ndef add(a): return a\n")
    said = failure("support.server_tasks", "mine", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert "two tasks are named 'add'" in said


def test_an_app_that_fails_to_import_shows_its_traceback_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import no_such_module\n")
    done = greentask("serve", "mine", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/mine.py", line 1, in <module>',
        "    import no_such_module",
        "ModuleNotFoundError: No module named 'no_such_module'",
        "greentask serve: mine can't be imported: see the traceback above",
    ]


def test_an_app_with_a_wrong_option_of_a_task_shows_where_that_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from greentask import task\nadd = task(proces=True)(len)\n")
    said = greentask("serve", "mine", "--listen", "127.0.0.1:0", cwd=tmp_path).stderr
    assert said.splitlines()[1] == f'  File "{tmp_path}/mine.py", line 2, in <module>'
    assert "has no option 'proces'" in said


def test_an_app_that_is_no_python_shows_where(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def add(:\n")
    said = greentask("serve", "mine", "--listen", "127.0.0.1:0", cwd=tmp_path).stderr.splitlines()
    assert said[0] == f'  File "{tmp_path}/mine.py", line 1'
    assert said[-2] == "SyntaxError: invalid syntax"


def test_an_app_that_fails_only_in_the_task_processes_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import sys\n"
        "from greentask import task\n"
        "if 'gevent' not in sys.modules: raise RuntimeError('not in a task process')\n"
        "@task(process=True)\n"
        "def add(a, b): return a + b\n"
    )
    done = greentask("serve", "mine", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert done.returncode == 1
    assert "RuntimeError: not in a task process" in done.stderr


def test_apps_are_found_in_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from greentask import task, Tasks\n"
        "tasks = Tasks()\n"
        "@tasks.task(name='sum', process=True)\n"
        "def total(*numbers): return sum(numbers)\n"
        "@task\n"
        "def hidden(): return 1\n"
    )
    with serving(apps=["mine:tasks"], cwd=tmp_path, processes=1) as server, server.connect() as peer:
        assert peer.call("sum", 1, 2, 3) == 6
        assert peer.ask({"function": "hidden"})["error"]["type"] == "UnknownTask"


# ---- The class


def test_a_server_can_be_started_and_stopped_inside_a_program() -> None:
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import gevent, signal, os\n"
        "from greentask import Server\n"
        "from support import server_tasks\n"
        "server = Server([server_tasks.add, server_tasks.spin], '127.0.0.1:0', processes=1)\n"
        "server.start()\n"
        "gevent.spawn_later(0.2, server.stop)\n"
        "assert server.addresses[0].port > 0\n"
        "assert server.status()['processes']['alive'] == 1\n"
        "server.serve_forever()\n"
        "assert server.addresses == [] and server.status()['draining']\n"
        "assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL\n"
        "server.serve_forever()\n"  # of a server that has been stopped: nothing to wait for
        "assert server.addresses == []\n"
        "print('stopped')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, env=environment()
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


def test_a_task_may_stop_its_server() -> None:
    ended: list[str] = []

    def leave() -> None:
        try:
            server.stop(0.1)
        except CancelRequest:
            ended.append("cut off like any other")

    server = Server([leave], "127.0.0.1:0")
    server.start()
    with LineClient(create_connection((server.addresses[0].host, server.addresses[0].port))) as peer:
        peer.send({"function": "leave"})
        with gevent.Timeout(10):
            server.wait_stopped()
    assert ended == ["cut off like any other"]
    assert server.status()["in_flight"] == 0


def test_a_connection_that_says_nothing_is_served_like_any_other(server: RunningServer) -> None:
    with server.connect() as silent, server.connect() as peer:
        assert peer.call("add", 1, 2) == 3
        silent.socket.shutdown(socket.SHUT_WR)
        assert silent.hear_rest() == []


def test_nothing_is_logged_about_calls_that_end_well_or_do_not_run(server: RunningServer) -> None:
    with server.connect() as peer:
        before = server.output()
        assert peer.call("add", 1, 2) == 3
        assert "error" in peer.ask({"function": "add"})
        assert "error" in peer.ask({"function": "there_is_none"})
        assert "error" in peer.ask("nonsense")
        LineClient.reset(peer)
    wait_until(lambda: server.status()["connections"] == 0, "it is gone")
    assert server.output() == before
