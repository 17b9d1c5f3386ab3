"""`greentask serve` as its operator has it: fronts that come and go, signals, files, and what systemd is told."""

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from greentask import Client, ConnectionLost
from greentask.master.admin import AdminServer, socket_name
from greentask.master.fronts import PATCH
from support.certificates import Authority, flags
from support.parts import require
from support.programs import environment, greentask, run_source
from support.reloaded import write_module
from support.servers import LineClient, RunningServer, connect, is_goodbye, serving, wait_until

pytestmark = pytest.mark.once


def reload(server: RunningServer) -> "subprocess.CompletedProcess[str]":
    return greentask("reload", "--server", server.address)


# ---- Fronts


@pytest.mark.slow
def test_connections_are_spread_over_the_fronts_however_idle_they_are() -> None:
    with serving("--fronts", "2", apps=["support.server_tasks:add"]) as server, ExitStack() as stack:
        for _ in range(30):
            peer = stack.enter_context(server.connect())
            assert peer.call("greentask.ping") == "pong"
        counts = [front["connections"] for front in server.status()["fronts"]]
        assert min(counts) >= 10, counts  # it was 30 and 0
        for front in server.fronts():
            front.suspend()  # one of them has as few as the other, or fewer
            try:
                for _ in range(4):
                    peer = stack.enter_context(server.connect())
                    assert peer.call("greentask.ping") == "pong"
            finally:
                front.resume()


def test_fronts_share_the_address_and_the_task_processes() -> None:
    with serving("--fronts", "2", processes=3) as server:
        status = server.status()
        assert [front["front"] for front in status["fronts"]] == [0, 1]
        assert sorted(front["processes"]["size"] for front in status["fronts"]) == [1, 2]
        assert status["processes"]["size"] == 3
        assert status["master"]["pid"] == server.process.pid
        assert {front["pid"] for front in status["fronts"]} == {front.pid for front in server.fronts()}
        assert "2 fronts, 3 task processes" in server.output()


def test_a_front_that_dies_is_replaced_and_the_others_go_on(tmp_path: Path) -> None:
    write_module(tmp_path, 1)
    with serving("--fronts", "2", apps=["mine"], cwd=tmp_path) as server:
        first, second = (front.pid for front in server.fronts())
        with wait_until(lambda: is_on(server, second), "a connection to the second") as peer:
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: len(server.status()["fronts"]) == 2, "there is a new one")
            assert peer.call("front") == second
        assert first not in [front.pid for front in server.fronts()]
        assert server.status()["master"]["deaths"] == 1
        assert f"(process {first}) was killed by signal 9 (SIGKILL)" in server.output()


def test_a_front_heeds_gevents_plugins(tmp_path: Path) -> None:
    installed = tmp_path / "plug-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[gevent.plugins.monkey.will_patch_module]\none = plug:leave_select\n"
        "[gevent.plugins.monkey.did_patch_all]\ntwo = plug:tell\n"
    )
    (tmp_path / "plug.py").write_text(
        "from gevent.events import DoNotPatch\n\ndef tell(event):\n    print('told')\n\ndef leave_select(event):\n"
        "    if event.module_name == 'select':\n        raise DoNotPatch\n"
    )
    asked = (
        "print(monkey.is_module_patched('socket'), monkey.is_module_patched('select'), metadata.entry_points is look)"
    )
    assert run_source(PATCH + asked, PYTHONPATH=str(tmp_path)) == ["told", "True", "False", "True"]


def is_on(server: RunningServer, pid: int) -> LineClient | None:
    peer = server.connect()
    if peer.call("front") == pid:
        return peer
    peer.close()
    return None


@pytest.mark.slow
def test_who_connects_while_there_is_no_front_waits_for_the_next_one(server: RunningServer) -> None:
    front = server.pid
    os.kill(front, signal.SIGKILL)
    with server.connect() as peer:
        assert peer.call("front") != front


@pytest.mark.slow
def test_one_that_dies_young_again_and_again_is_started_after_longer_and_longer_pauses(tmp_path: Path) -> None:
    with serving(apps=["mine"], cwd=write_module(tmp_path, 1).parent) as server:
        front = server.pid
        (tmp_path / "mine.py").write_text("raise RuntimeError('not today')")
        os.kill(front, signal.SIGKILL)
        wait_until(lambda: server.output().count("can't start again") >= 3, "three tries")
        assert "not today" in server.output()
        write_module(tmp_path, 2)
        assert server.call("version") == 2


def test_when_the_master_dies_the_fronts_answer_what_is_in_flight_and_end(
    server: RunningServer, tmp_path: Path
) -> None:
    front, gate = psutil.Process(server.pid), tmp_path / "gate"
    below = front.children(recursive=True)
    with server.connect() as peer, server.connect() as idle:
        peer.send({"id": 1, "function": "version_at_last", "args": [str(gate)]})
        wait_until(lambda: server.status()["in_flight"] == 1, "it is in flight")
        idle.call("version")
        server.signal(signal.SIGKILL)
        assert is_goodbye(idle.hear())
        gate.touch()
        assert peer.hear() == {"id": 1, "result": 1}
        assert [is_goodbye(message) for message in peer.hear_rest()] == [True]
    assert psutil.wait_procs([front, *below], 10)[1] == []


# ---- New code


def test_a_reload_brings_new_code_while_the_old_one_ends_what_it_has_begun(
    server: RunningServer, tmp_path: Path
) -> None:
    old, gate = server.pid, tmp_path / "gate"
    with server.connect() as busy, server.connect() as idle, server.connect() as fresh:
        busy.send({"id": 1, "function": "version_at_last", "args": [str(gate)]})
        assert idle.call("front") == old
        wait_until(lambda: server.status()["in_flight"] == 1, "it is in flight")
        write_module(tmp_path, 2)
        done = reload(server)
        assert (done.returncode, done.stdout) == (0, "reloaded: 1 front with the new code\n")
        assert server.call("version") == 2
        assert fresh.call("version") == 1, "it had come to the old one, and asked for nothing yet"
        assert is_goodbye(idle.hear())
        assert idle.line() is None
        busy.send({"id": 2, "function": "version"})
        assert busy.hear()["error"]["type"] == "Draining"
        gate.touch()
        answer, last = busy.hear_rest()
        assert answer == {"id": 1, "result": 1}
        assert is_goodbye(last)
    wait_until(lambda: len(server.fronts()) == 1, "the old one has ended")
    assert server.pid != old
    assert server.status()["master"]["reloads"] == 1


def test_code_that_does_not_import_leaves_the_old_one_serving(server: RunningServer, tmp_path: Path) -> None:
    front = server.pid
    (tmp_path / "mine.py").write_text("import no_such_module\n")
    done = reload(server)
    assert done.returncode == 1
    assert "greentask: the old code goes on, for mine can't be imported" in done.stderr
    assert "No module named 'no_such_module'" in done.stderr
    assert server.call("version") == 1
    assert server.pid == front
    write_module(tmp_path, 3)
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.call("version") == 3, "the signal reloads as well")
    assert "No module named 'no_such_module'" in server.output()
    server.process.send_signal(signal.SIGKILL)  # the traceback that is in its output is wanted
    server.process.wait()
    Path(server._output).write_text("")


@pytest.mark.slow
def test_clients_notice_nothing_of_reloads(server: RunningServer, tmp_path: Path) -> None:
    reload_under_calls(server, tmp_path, reloads=2, threads=2)


@pytest.mark.load
def test_clients_notice_nothing_of_fifty_reloads(server: RunningServer, tmp_path: Path) -> None:
    reload_under_calls(server, tmp_path, reloads=50, threads=200)


def reload_under_calls(server: RunningServer, folder: Path, reloads: int, threads: int) -> None:
    """No call fails, and none runs twice: each leaves its mark in a file of its own."""
    marks = folder / "marks"
    marks.mkdir()
    wrong: list[object] = []
    made: list[int] = []
    over = threading.Event()

    def call(thread: int) -> None:
        count = 0
        with Client(server.address) as client:
            while not over.is_set():
                try:
                    client.call("mark" if count % 2 else "mark_in_process", str(marks / f"{thread}-{count}"))
                except Exception as error:
                    wrong.append(error)
                count += 1
                over.wait(0.002)  # the machine is to reload, and not only to answer
        made.append(count)

    running = [threading.Thread(target=call, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        for number in range(reloads):
            write_module(folder, number)
            done = reload(server)
            assert done.returncode == 0, done.stderr
    finally:
        over.set()
        for thread in running:
            thread.join(30)
    assert wrong == []
    found = list(marks.iterdir())
    assert len(found) == sum(made)
    assert [path for path in found if path.stat().st_size != 1] == []


@pytest.mark.slow
def test_source_files_that_change_bring_a_reload(tmp_path: Path) -> None:
    write_module(tmp_path, 1)
    with serving("--reload", apps=["mine"], cwd=tmp_path) as server:
        assert server.call("version") == 1
        write_module(tmp_path, 2)
        wait_until(lambda: server.call("version") == 2, "the new code serves")
        assert "mine.py changed" in server.output()


# ---- Stopping


def test_stop_answers_what_is_in_flight_and_returns_when_it_has_ended(server: RunningServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with server.connect() as peer, ThreadPoolExecutor() as executor:
        peer.send({"id": 1, "function": "version_at_last", "args": [str(gate)]})
        wait_until(lambda: server.status()["in_flight"] == 1, "it is in flight")
        stopping = executor.submit(greentask, "stop", "--pid", str(server.process.pid))
        wait_until(lambda: "draining: 1 call has" in server.output(), "it drains")
        assert not stopping.done()
        gate.touch()
        done = stopping.result()
        assert (done.returncode, done.stdout) == (0, "stopped\n")
        assert server.process.poll() == 0, "it had ended when the command returned"
        assert peer.hear() == {"id": 1, "result": 1}


@pytest.mark.slow
def test_stop_with_a_drain_timeout_waits_no_longer(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send({"id": 1, "function": "version", "args": [60]})
        wait_until(lambda: server.status()["in_flight"] == 1, "it is in flight")
        done = greentask("stop", "--server", server.address, "--drain-timeout", "0.1", timeout=15)
        assert (done.returncode, done.stdout) == (0, "stopped\n")
        assert server.wait() == 0


def test_what_is_no_server_here_can_not_be_told_anything(tmp_path: Path) -> None:
    for command in ("reload", "stop"):
        done = greentask(command, "--pid", str(os.getpid()))
        assert done.returncode == 1
        assert done.stderr == f"greentask: process {os.getpid()} is no greentask server on this machine\n"
    (tmp_path / "pid").write_text("nonsense")
    assert greentask("stop", "--pid-file", str(tmp_path / "pid")).returncode == 2


def test_other_users_can_not_tell_it_anything(server: RunningServer) -> None:
    require(os.getuid() == 0, "only root can become somebody else")
    program = (
        "import os, socket; sock = socket.socket(socket.AF_UNIX)\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"sock.connect({socket_name(server.process.pid)!r})\n"
        """sock.sendall(b'{"what":"stop","args":{},"id":1}\\n'); print(sock.recv(100))"""
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert done.stdout == "b''\n" or "BrokenPipeError" in done.stderr or "ConnectionReset" in done.stderr, done.stderr
    wait_until(lambda: "of user 65534 wanted to tell this server what to do" in server.output(), "it is logged")
    assert server.call("version") == 1


# ---- Signals and files


@pytest.mark.slow
def test_sigttin_and_sigttou_make_one_task_process_more_and_one_fewer(server: RunningServer) -> None:
    def sizes() -> tuple[int, int]:
        processes = server.status()["processes"]
        return processes["size"], processes["alive"]

    assert sizes() == (2, 2)
    server.signal(signal.SIGTTIN)
    wait_until(lambda: sizes() == (3, 3), "one more")
    for size in (2, 1, 1):
        server.signal(signal.SIGTTOU)
        wait_until(lambda size=size: sizes() == (size, size), f"{size} of them")
    assert reload(server).returncode == 0
    wait_until(lambda: len(server.fronts()) == 1, "the old one has ended")
    assert sizes() == (1, 1), "and so it stays when the code is loaded anew"


@pytest.mark.slow
def test_sigusr1_opens_the_log_file_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_module(tmp_path, 1)
    with serving("--log-file", str(log), apps=["mine"], cwd=tmp_path) as server:
        assert reload(server).returncode == 0
        wait_until(lambda: "reloaded" in log.read_text(), "it logs")
        log.rename(tmp_path / "log.1")
        server.signal(signal.SIGUSR1)
        wait_until(log.exists, "there is a new one")
        assert reload(server).returncode == 0
        wait_until(lambda: "reloaded" in log.read_text(), "it logs there")


def test_the_pid_file_and_the_ready_file_are_there_while_it_serves(tmp_path: Path) -> None:
    pid, ready = tmp_path / "pid", tmp_path / "ready"
    with serving("--pid-file", str(pid), "--ready-file", str(ready), apps=["support.server_tasks:add"]) as server:
        assert pid.read_text() == f"{server.process.pid}\n"
        assert ready.read_text() == f"{server.address}\n"
        done = greentask("stop", "--pid-file", str(pid))
        assert done.returncode == 0
        server.wait()
        assert not pid.exists()
        assert not ready.exists()


@pytest.mark.slow
def test_a_file_that_can_not_be_written_is_an_error_at_start(tmp_path: Path) -> None:
    for flag in ("--pid-file", "--ready-file", "--log-file"):
        path = str(tmp_path / "no" / "such" / "folder")
        done = greentask("serve", "support.server_tasks:add", "--listen", "127.0.0.1:0", flag, path)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"greentask serve: {flag}: can't write {path}")


def test_a_unix_socket_has_its_mode_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving("--socket-mode", "600", apps=["support.server_tasks:add"], listen=[f"unix://{path}"]) as server:
        assert path.stat().st_mode & 0o777 == 0o600
        assert reload(server).returncode == 0
        assert path.exists()
        assert server.call("add", 1, 2) == 3
        server.signal(signal.SIGTERM)
        server.wait()
        assert not path.exists()


# ---- systemd


def test_systemd_is_told_when_it_serves_reloads_and_stops(tmp_path: Path) -> None:
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(10)
        write_module(tmp_path, 1)
        with serving(apps=["mine"], cwd=tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as server:
            ready = told.recv(4096).decode()
            assert "READY=1" in ready.splitlines()
            assert f"MAINPID={server.process.pid}" in ready.splitlines()
            assert server.address in ready
            assert reload(server).returncode == 0
            reloading = told.recv(4096).decode()
            assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert "READY=1" in told.recv(4096).decode()
            server.signal(signal.SIGTERM)
            assert "STOPPING=1" in told.recv(4096).decode()
            server.wait()


def test_sockets_that_systemd_passes_on_are_served(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as passed, socket.create_server(("127.0.0.1", 0)) as secured:
        port, other = (one.getsockname()[1] for one in (passed, secured))
        serve = [sys.executable, "-m", "greentask", "serve", "support.server_tasks:add", *flags(ours)]
        program = (
            "import fcntl, os, sys\n"
            f"high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in ({passed.fileno()}, {secured.fileno()})]\n"
            "os.dup2(high[0], 3); os.dup2(high[1], 4)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='greentask.socket:tls')\n"
            f"os.execv(sys.executable, {serve!r})"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=[passed.fileno(), secured.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as started:
            try:
                assert started.stdout is not None
                assert f"on tcp://127.0.0.1:{port}, tls://127.0.0.1:{other} " in started.stdout.readline()
                with connect(f"tcp://127.0.0.1:{port}") as peer:
                    assert peer.call("add", 1, 2) == 3
                with Client(f"tls://127.0.0.1:{other}", tls_ca=ours.ca) as client:
                    assert client.call("add", 1, 2) == 3
            finally:
                started.send_signal(signal.SIGTERM)
                started.wait(10)
        assert started.returncode == 0


def test_what_is_no_listening_socket_is_an_error(tmp_path: Path) -> None:
    command = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -m greentask serve support.server_tasks:add 3</dev/null'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], capture_output=True, text=True, timeout=20, env=environment()
    )
    assert done.returncode == 1
    assert "LISTEN_FDS: descriptor 3 is no listening stream socket" in done.stderr


def test_processes_have_names(server: RunningServer) -> None:
    titles = [title(process) for process in (psutil.Process(server.process.pid), *server.fronts())]
    assert titles == ["greentask: master, mine", "greentask: front, mine"]
    names = {title(process) for process in server.below()}
    assert names == {"greentask: template of task processes", "greentask: task process"}


def title(process: psutil.Process) -> str:
    return " ".join(process.cmdline()).rstrip()


# ---- What a client makes of a server that goes away


def test_a_call_that_a_server_refuses_for_good_ends_with_its_refusal_or_without_connection(
    server: RunningServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with Client(server.address, gone_after=0.5) as client:
        assert client.call("version") == 1
        long = client.submit("version_at_last", str(gate))
        wait_until(lambda: server.status()["in_flight"] == 1, "it is in flight")
        server.signal(signal.SIGTERM)
        wait_until(lambda: not can_connect(server), "it accepts nobody")
        with pytest.raises(Exception, match=r"going away|can't connect"):
            client.call("version")
        gate.touch()
        assert long.result(10) == 1
        server.wait()
        with pytest.raises(ConnectionLost):
            client.call("version")


def can_connect(server: RunningServer) -> bool:
    try:
        server.connect().close()
    except OSError:
        return False
    return True


# ---- The admin socket


def test_a_name_that_somebody_has_taken_leaves_the_signals(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(socket_name(os.getpid()))
        server = AdminServer({})
        server.start()
        server.close()
    assert "greentask reload and stop can't reach this server, but signals do: Address already in use" in caplog.text
