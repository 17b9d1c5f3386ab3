"""`greentask serve` where something goes wrong, or two things come at once."""

import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import gevent
import psutil
import pytest

from greentask.master import master as master_module
from greentask.master.admin import connect as connect_to_master
from greentask.master.config import ServeConfig
from greentask.master.master import Master
from greentask.master.watch import watch_sources
from support.programs import environment, greentask
from support.reloaded import write_module
from support.servers import LineClient, RunningServer, connect, serving, wait_until
from support.waiting import wait_until as wait_in_hub

pytestmark = [pytest.mark.once, pytest.mark.slow]  # each has a server of its own, and most reload it


def hold_imports(folder: Path, version: int) -> Path:
    """Write a module whose import waits until the file that this returns is gone. It notes each import."""
    held = folder / "held"
    held.touch()
    path = write_module(folder, version)
    head = f"""
    import os, time
    open({str(folder / "imports")!r}, "a").write("x")
    while os.path.exists({str(held)!r}):
        time.sleep(0.01)
    """
    path.write_text(textwrap.dedent(head) + path.read_text())
    return held


@contextmanager
def reloading(server: RunningServer, folder: Path, version: int = 2) -> Iterator[None]:
    """While inside, a reload waits for its new front, which imports; afterwards it goes on."""
    before = len(server.fronts())
    held = hold_imports(folder, version)
    server.signal(signal.SIGHUP)
    try:
        wait_until(lambda: len(server.fronts()) > before and (folder / "imports").exists(), "the new front imports")
        yield
    finally:
        held.unlink()


# ---- Fronts that end


def test_a_front_that_a_nameless_signal_has_killed_is_replaced(server: RunningServer) -> None:
    front = server.pid
    os.kill(front, signal.SIGRTMIN + 6)
    with server.connect() as peer:
        assert peer.call("front") != front
    assert f"(process {front}) was killed by signal {signal.SIGRTMIN + 6}\n" in server.output()


def test_a_front_that_is_killed_while_it_drains_is_told_of(server: RunningServer, tmp_path: Path) -> None:
    old = server.pid
    with server.connect() as peer:
        peer.send({"id": 1, "function": "version", "args": [60]})
        wait_until(lambda: server.status()["in_flight"] == 1, "it is in flight")
        assert greentask("reload", "--server", server.address).returncode == 0
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: f"(process {old}), which drained, was killed by signal 9" in server.output(), "it is told")
    assert server.status()["master"]["deaths"] == 0, "it was not to be replaced"


def test_a_front_that_takes_its_time_to_die_for_starting_too_slowly_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system may have much memory to take back from it: here it lives on after a pause of no length."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(master_module, "_FIRST_PAUSE", 0.0)
    write_module(tmp_path, 1)
    config = ServeConfig(("mine",), listen=("127.0.0.1:0",), processes=1)
    master = Master(config, [], say=lambda _: None)
    master._sockets.listen(config)
    try:
        master._begin()
        held = hold_imports(tmp_path, 2)
        master._config = replace(master._config, start_timeout=0.5)
        os.kill(master._fronts[0].pid, signal.SIGKILL)
        wait_in_hub(lambda: "front 0 can't start again" in caplog.text, what="the first one is given up")
        master._config = replace(master._config, start_timeout=config.start_timeout)
        held.unlink()
        wait_in_hub(lambda: master._fronts[0].is_ready, what="another one serves")
    finally:
        master._stopping = True
        for front in master._all():
            front.kill()
        wait_in_hub(lambda: not master._all(), what="they have ended")
        master._sockets.close()


# ---- Signals


def test_signals_that_come_to_every_process_are_the_masters(server: RunningServer) -> None:
    """A terminal that is closed, and `systemctl kill`, tell all of them."""
    below = {process.pid for process in server.below()}
    front = server.pid
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP):
        for pid in (front, *below):
            os.kill(pid, number)
    server.signal(signal.SIGUSR2)  # which other servers' operators send to a master
    for _ in range(4):
        assert server.call("process") in below
    assert {process.pid for process in server.below()} == below
    assert server.pid == front


def test_one_process_more_is_one_more_of_the_default_group_whatever_others_there_are(tmp_path: Path) -> None:
    path = write_module(tmp_path, 1)
    path.write_text(path.read_text() + "\n@task(process='ml')\ndef learn():\n    return 1\n")
    with serving("--group", "ml=3", apps=["mine"], cwd=tmp_path, processes=None) as server:
        before = server.status()["groups"]["default"]["size"]
        server.signal(signal.SIGTTIN)
        wait_until(lambda: server.status()["groups"]["default"]["size"] != before, "there are others")
        sizes = {name: group["size"] for name, group in server.status()["groups"].items()}
        assert sizes == {"default": before + 1, "ml": 3}


def test_a_signal_that_nothing_can_be_made_of_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("from greentask import task\n@task\ndef one():\n    return 1\n")
    with serving(apps=["plain"], cwd=tmp_path) as server:
        server.signal(signal.SIGTTIN)
        wait_until(lambda: "no task here runs in processes of the group default" in server.output(), "it is told")
        assert server.call("one") == 1


def test_a_sighup_that_comes_while_it_starts_reloads_when_it_serves(tmp_path: Path) -> None:
    path = write_module(tmp_path, 1)
    once = f"import os, signal\ntry:\n    os.mkdir({str(tmp_path / 'once')!r})\nexcept OSError:\n    pass\nelse:\n"
    path.write_text(once + "    os.kill(os.getppid(), signal.SIGHUP)\n" + path.read_text())
    with serving(apps=["mine"], cwd=tmp_path) as server:
        wait_until(lambda: server.status()["master"]["reloads"] == 1, "it is reloaded")


def test_a_signal_ends_a_stop_that_the_command_began(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send({"id": 1, "function": "version", "args": [60]})
        wait_until(lambda: server.status()["in_flight"] == 1, "it is in flight")
        master = connect_to_master(server.process.pid)
        master.ask("stop")
        wait_until(lambda: "draining: 1 call has" in server.output(), "it drains")
        gevent.sleep(0.6)  # in the first half second it is the same wish
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    master.close()


def test_the_pid_file_of_a_server_that_runs_is_not_taken_from_it(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("1\n")  # nobody's any more, of greentask
    with serving("--pid-file", str(path)) as server:
        assert path.read_text() == f"{server.process.pid}\n"
        done = greentask("serve", "support.server_tasks", "--listen", "127.0.0.1:0", "--pid-file", str(path))
        assert done.returncode == 1
        assert f"--pid-file: {path} has the id of a server that runs (process {server.process.pid})" in done.stderr
        assert path.read_text() == f"{server.process.pid}\n"


# ---- While it reloads


def test_as_many_processes_as_were_asked_for_while_it_reloads(server: RunningServer, tmp_path: Path) -> None:
    def sizes() -> list[int]:
        return [front["processes"]["size"] for front in server.status()["fronts"] if not front["draining"]]

    with reloading(server, tmp_path):
        server.signal(signal.SIGTTIN)
        wait_until(lambda: sizes() == [3], "the old front has one more")
    wait_until(lambda: server.status()["master"]["reloads"] == 1, "it is reloaded")
    wait_until(lambda: sizes() == [3], "and so has the new one")


def test_reloads_that_are_wanted_while_it_reloads_are_one(server: RunningServer, tmp_path: Path) -> None:
    master = connect_to_master(server.process.pid)
    with reloading(server, tmp_path):
        callers = [gevent.spawn(master.ask, "reload") for _ in range(3)]
        for _ in range(3):
            server.signal(signal.SIGHUP)
        gevent.sleep(0)  # now they ask
        master.ask("status")  # and when this has its answer, the master knows of them
    assert [caller.get(timeout=20) for caller in callers] == [{"fronts": 1, "reloads": 2}] * 3
    master.close()
    wait_until(lambda: len(server.fronts()) == 1, "the old ones have ended")
    assert (tmp_path / "imports").read_text() == "xx" * 2, "front and template, for the one and for the next one"
    assert server.status()["master"]["reloads"] == 2


def test_a_stop_ends_a_reload_that_has_begun(tmp_path: Path) -> None:
    write_module(tmp_path, 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        with serving(apps=["mine"], cwd=tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as server:
            with reloading(server, tmp_path):
                server.signal(signal.SIGTERM)
                assert server.wait() == 0
            assert "the reload failed" not in server.output()
            assert "the old code goes on" not in server.output()
        heard = [told.recv(4096).decode().splitlines()[0] for _ in range(3)]
        told.setblocking(False)
        assert heard == ["READY=1", "RELOADING=1", "STOPPING=1"]
        with pytest.raises(BlockingIOError):
            told.recv(4096)


def test_new_code_that_never_ends_its_import_is_given_up(tmp_path: Path) -> None:
    write_module(tmp_path, 1)
    with serving("--start-timeout", "12", apps=["mine"], cwd=tmp_path) as server:
        hold_imports(tmp_path, 2)
        done = greentask("reload", "--server", server.address)
        assert done.returncode == 1
        assert "did not serve within 12 s (--start-timeout)" in done.stderr
        assert server.call("version") == 1
        wait_until(lambda: len(server.fronts()) == 1, "the new front is gone")


def test_the_traceback_of_a_failed_reload_is_told_once(server: RunningServer, tmp_path: Path) -> None:
    """Both its log and what the command writes go into systemd's journal."""
    (tmp_path / "mine.py").write_text("import no_such_module\n")
    done = greentask("reload", "--server", server.address)
    assert done.stderr.count("Traceback") == 1
    assert "Traceback" not in server.output()
    assert "goes on: mine can't be imported: ModuleNotFoundError: No module named 'no_such_module'" in server.output()
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.output().count("the reload failed") == 2, "it is told")
    assert server.output().count("Traceback") == 1, "nobody else would show it"
    Path(server._output).write_text("")


# ---- What it has not got


@pytest.mark.parametrize("options", [(), ("--log-format", "json")], ids=["text", "json"])
def test_a_log_file_that_can_not_be_opened_is_no_reason_to_stop(tmp_path: Path, options: tuple[str, ...]) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    write_module(tmp_path, 1)
    log = folder / "log"
    with serving("--log-file", str(log), "--log-calls", *options, apps=["mine"], cwd=tmp_path) as server:
        server.call("version")
        wait_until(lambda: "call of version" in log.read_text(), "it logs")
        folder.rename(tmp_path / "away")
        server.signal(signal.SIGUSR1)
        wait_until(lambda: f"--log-file: can't write {log}: No such file" in server.output(), "it is told on stderr")
        assert server.call("version") == 1
        wait_until(lambda: "call of version" in server.output(), "calls are as well")
        folder.mkdir()
        assert server.call("version") == 1
        wait_until(lambda: log.exists() and "call of version" in log.read_text(), "it logs there again")
        assert "Traceback" not in server.output()


def test_without_descriptors_for_another_front_the_old_one_goes_on(server: RunningServer, tmp_path: Path) -> None:
    master = psutil.Process(server.process.pid)
    before = master.rlimit(resource.RLIMIT_NOFILE)
    master.rlimit(resource.RLIMIT_NOFILE, (master.num_fds(), before[1]))
    server.signal(signal.SIGHUP)
    wait_until(lambda: "no further front can be started: Too many open files" in server.output(), "it is told")
    assert server.call("version") == 1
    front = server.pid
    os.kill(front, signal.SIGKILL)
    wait_until(lambda: "front 0 can't start again" in server.output(), "nor can one that replaces another")
    master.rlimit(resource.RLIMIT_NOFILE, before)
    write_module(tmp_path, 2)
    assert server.call("version") == 2


def test_it_serves_where_nobody_reads_its_output(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "greentask", "serve", "support.server_tasks:add", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--ready-file", str(ready)], stdout=write, stderr=subprocess.PIPE, text=True, env=environment()
    ) as started:
        os.close(write)
        try:
            wait_until(lambda: ready.exists() or started.poll() is not None, "it serves")
            with connect(ready.read_text().strip()) as peer:
                assert peer.call("add", 1, 2) == 3
        finally:
            started.terminate()
            complaints = started.communicate(timeout=20)[1]
    assert (started.returncode, complaints) == (0, "")


@pytest.mark.parametrize(
    ("address", "name", "why"),
    [
        (("0.0.0.0", 0), "", "can be reached from other machines"),
        (("127.0.0.1", 0), "tls", "needs a certificate"),
        ("\0greentask-test-abstract", "", "descriptor 3 has no path: write ListenStream=/absolute/path"),
    ],
    ids=["beyond loopback", "tls", "abstract"],
)
def test_sockets_of_systemds_that_it_must_not_or_can_not_serve(address: object, name: str, why: str) -> None:
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with socket.socket(family) as passed:
        passed.bind(address)  # type: ignore[arg-type]
        passed.listen()
        serve = shlex.join([sys.executable, "-m", "greentask", "serve", "support.server_tasks:add"])
        done = subprocess.run(
            ["sh", "-c", f"LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name} exec {serve} 3<&0"],
            stdin=passed,
            capture_output=True,
            text=True,
            timeout=20,
            env=environment(),
        )
    assert done.returncode == 1, done.stdout
    assert why in done.stderr


# ---- What it tells


def test_what_was_counted_outlives_a_reload(server: RunningServer) -> None:
    for _ in range(5):
        server.call("version")
    assert greentask("reload", "--server", server.address).returncode == 0
    wait_until(lambda: len(server.fronts()) == 1, "the old one has ended")
    wait_until(lambda: server.status()["calls"].get("done", 0) >= 5, "its calls are counted")
    status = server.call("greentask.status", detail=True)
    assert status["tasks_called"]["version"]["outcomes"]["done"] == 5
    assert sum(status["tasks_called"]["version"]["histogram"]) == 5
    assert status["silent"] == []


def test_fronts_that_have_too_much_to_do_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(
        "import os\nfrom gevent import monkey\nfrom greentask import task\n\n@task\ndef hold(seconds):\n"
        "    monkey.get_original('time', 'sleep')(seconds)\n\n@task\ndef front():\n    return os.getpid()\n"
    )
    with serving("--fronts", "2", apps=["held"], cwd=tmp_path) as server, ExitStack() as stack:
        first, second = (front.pid for front in server.fronts())
        peers: dict[int, LineClient] = {}
        while len(peers) < 2:
            peer = stack.enter_context(server.connect())
            peers.setdefault(peer.call("front"), peer)
        peers[first].send({"function": "hold", "args": [3]})
        wait_until(lambda: peers[second].call("greentask.status")["silent"] == [first], "the first doesn't answer")
        assert peers[first].hear() == {"result": None}
        server.signal(signal.SIGSTOP)  # so that both are held when the master asks them
        peers[first].send({"function": "greentask.status"})
        for peer in peers.values():
            peer.send({"function": "hold", "args": [1.5]})
        server.signal(signal.SIGCONT)
        messages = peers[first].hear_all(2)
        (status,) = (message["result"] for message in messages if message["result"] is not None)
        assert status["pid"] == first
        assert status["master"]["pid"] == server.process.pid
        assert peers[second].hear() == {"result": None}


def test_source_files_that_can_not_be_watched_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch_sources([str(tmp_path / "no such folder")], lambda: None)
    with gevent.Timeout(20):
        while "source files are no longer watched: FileNotFoundError: " not in caplog.text:
            gevent.sleep(0.01)
