"""Metrics, as Prometheus reads them from a real server with two fronts and a queue."""

import itertools
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from greentask.contrib.prometheus import Metrics
from greentask.errors import ConfigurationError
from greentask.tasks.middleware import pack
from support.programs import greentask, run_source
from support.scraped import Scraped, metrics_url, scrape
from support.servers import LineClient, RunningServer, serving, wait_until

pytestmark = pytest.mark.once

CALLS = "greentask_calls_total"
TOOK = "greentask_call_duration_seconds"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    file = str(tmp_path_factory.mktemp("queue") / "queue.db")
    options = ("--metrics", "127.0.0.1:0", "--fronts", "2", "--queue", file, "--drain-timeout", "3")
    with serving(*options, apps=["support.server_tasks", "support.server_tasks:plain_pid"]) as server:
        yield server
        assert "Traceback" not in server.output()


class Rise:
    """What has risen since it was made."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._before = scrape(server)

    def wait(self, count: float, name: str = CALLS, **labels: str) -> None:
        """Wait until it is so much."""
        wait_until(lambda: self.of(name, **labels) >= count, f"{name} of {labels} rises by {count}")
        assert self.of(name, **labels) == count

    def of(self, name: str = CALLS, **labels: str) -> float:
        return scrape(self._server)(name, **labels) - self._before(name, **labels)


@pytest.fixture
def rise(server: RunningServer) -> Rise:
    return Rise(server)


def test_every_outcome_is_counted_once(server: RunningServer, rise: Rise) -> None:
    with server.connect() as peer:
        peer.send(
            {"id": "done", "function": "add", "args": [1, 2]},
            {"id": "failed", "function": "fail_in_process"},
            {"id": "late", "function": "nap", "args": [30], "timeout": 0.05},
            {"id": "lost", "function": "die", "args": ["kill"]},
            {"id": "wrong", "function": "add", "args": []},
            {"id": "gone", "function": "nap", "args": [30]},
            {"id": "x", "function": "greentask.cancel", "args": {"id": "gone"}},
            {"id": "nobody", "function": "no_such_task"},
        )
        peer.hear_all(8)
    rise.wait(6)
    now = scrape(server)
    for task, group, outcome in (
        ("add", "", "done"),
        ("add", "", "refused"),
        ("fail_in_process", "default", "failed"),
        ("nap", "", "out of time"),
        ("nap", "", "cancelled"),
        ("die", "default", "lost"),
    ):
        assert rise.of(task=task, group=group, kind="call", outcome=outcome) == 1, (task, outcome)
    assert rise.of(f"{TOOK}_count") == 5, "what did not run took no time"
    assert rise.of(f"{TOOK}_count", task="add") == rise.of(f"{TOOK}_bucket", task="add", le="+Inf") == 1
    assert rise.of(f"{TOOK}_bucket", task="nap", le="0.05") <= 1, "the one that was cancelled at once"
    assert 0.05 <= rise.of(f"{TOOK}_sum", task="nap") < 20
    assert rise.of("greentask_task_processes_lost_total", group="default") == 1
    tasks = {sample.labels["task"] for sample in now.samples if "task" in sample.labels}
    assert "no_such_task" not in tasks, "whoever calls can't make metrics larger"
    assert now(CALLS, task="fail", outcome="failed") == 0, "so that its first failure is a rise"
    assert ("fail", "failed") in {(s.labels.get("task"), s.labels.get("outcome")) for s in now.samples}


def test_what_runs_is_seen_while_it_runs(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send({"id": 1, "function": "nap", "args": [30]}, {"id": 2, "function": "nap_in_process", "args": [30]})
        wait_until(lambda: scrape(server)("greentask_task_processes", state="busy") == 1, "a process is busy")
        now = scrape(server)
        assert now("greentask_calls_in_flight", task="nap") == 1
        assert now("greentask_calls_in_flight", task="nap_in_process") == 1
        assert now("greentask_task_processes", group="default", state="idle") == 1
        assert now("greentask_task_processes_wanted", group="default") == 2
        assert now("greentask_connections") >= 1
        assert now("greentask_fronts") == 2
        assert now("greentask_resident_memory_bytes", of="fronts") > 1e6
        peer.send(*({"id": f"no {id}", "function": "greentask.cancel", "args": {"id": id}} for id in (1, 2)))
        peer.hear_all(4)
    wait_until(lambda: not scrape(server)("greentask_calls_in_flight"), "nothing runs")


def test_durable_tasks_are_told_apart_from_calls(server: RunningServer, rise: Rise) -> None:
    with server.connect() as peer:
        reply = peer.ask({"id": 1, "function": "add", "batch": [[1], [2], [3]], "enqueue": True})
        assert len(reply["result"]["tasks"]) == 3
    rise.wait(3, task="add", kind="attempt", outcome="done")
    assert rise.of(task="add", kind="enqueue", outcome="done") == 1
    assert rise.of(task="add", kind="call") == 0
    assert rise.of("greentask_enqueued_tasks_total", task="add") == 3
    assert rise.of(f"{TOOK}_count", kind="attempt") == 3
    rise.wait(3, "greentask_queue_events_total", event="done")
    now = scrape(server)
    assert now("greentask_queue_tasks", state="waiting") == now("greentask_queue_oldest_seconds") == 0
    assert now("greentask_queue_file_bytes") > 0


def test_whichever_front_is_scraped_tells_of_all(server: RunningServer, rise: Rise) -> None:
    with each_front(server) as peers:
        for peer in peers:
            peer.call("add", 1, 2)
    rise.wait(2, task="add", outcome="done")
    assert {rise.of(task="add", outcome="done") for _ in range(10)} == {2}


@contextmanager
def each_front(server: RunningServer) -> Iterator[list[LineClient]]:
    """A connection to each of the two fronts."""
    with ExitStack() as stack:
        peers: dict[int, LineClient] = {}

        def is_at_both() -> bool:
            peer = stack.enter_context(server.connect())
            peers.setdefault(peer.call("plain_pid"), peer)
            return len(peers) == 2

        wait_until(is_at_both, "connections to both")
        yield [*peers.values()]


def assert_rises(before: Scraped, now: Scraped) -> None:
    counted = now.counters()
    assert {name: value for name, value in before.counters().items() if counted.get(name, 0) < value} == {}


@pytest.mark.slow
def test_nothing_is_missed_or_begins_anew_at_a_reload(server: RunningServer, rise: Rise) -> None:
    scrapes = [scrape(server)]
    done = threading.Event()
    failed: list[Exception] = []

    def look() -> None:
        try:
            while not done.wait(0.05):
                scrapes.append(scrape(server))
        except Exception as error:
            failed.append(error)

    looking = threading.Thread(target=look)
    with server.connect() as busy:
        busy.send({"id": 1, "function": "nap", "args": [0.5]})
        wait_until(lambda: scrape(server)("greentask_calls_in_flight", task="nap") == 1, "it runs")
        looking.start()
        try:
            assert greentask("reload", "--pid", str(server.process.pid)).returncode == 0
            assert server.call("add", 1) == 1
            assert busy.hear() == {"id": 1, "result": 0.5}
            rise.wait(1, task="nap", outcome="done")
            wait_until(lambda: len(server.fronts()) == 2, "the old ones have ended")
            before = len(scrapes)
            wait_until(lambda: failed or len(scrapes) > before + 1, "it is scraped once more")
        finally:
            done.set()
            looking.join()
    assert failed == []
    assert rise.of(task="nap", outcome="done") == 1, "that of a front which is gone"
    assert rise.of(task="add", outcome="done") == 1
    assert rise.of("greentask_reloads_total") == 1
    for before_it, one in itertools.pairwise(scrapes):
        assert_rises(before_it, one)


@pytest.mark.slow
def test_nothing_is_less_when_a_front_is_silent_or_dies(server: RunningServer) -> None:
    with each_front(server) as peers:
        for peer in peers:
            peer.call("add", 1)
    before = scrape(server)
    assert before(CALLS, task="add", outcome="done") >= 2
    front = server.pid
    os.kill(front, signal.SIGSTOP)
    try:
        assert_rises(before, scrape(server))
    finally:
        os.kill(front, signal.SIGKILL)
    wait_until(lambda: len(server.fronts()) == 2 and scrape(server)("greentask_fronts") == 2, "it is replaced")
    now = scrape(server)
    assert_rises(before, now)
    assert now("greentask_front_deaths_total") == before("greentask_front_deaths_total") + 1
    assert now("greentask_calls_in_flight") == 0


@pytest.mark.slow
def test_there_are_none_while_the_master_is_silent_rather_than_a_part_of_them(server: RunningServer) -> None:
    url = metrics_url(server)
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url)
    finally:
        server.signal(signal.SIGCONT)
    assert caught.value.code == 503
    caught.value.close()
    assert scrape(server)("greentask_fronts") == 2
    assert (
        "/metrics can't be answered just now: GreentaskError: what the other fronts do is not known" in server.output()
    )


def test_there_is_nothing_else_at_the_address(server: RunningServer) -> None:
    url = metrics_url(server)
    for method, path, code in (("GET", "/", 404), ("POST", "/metrics", 405), ("DELETE", "/metrics", 405)):
        request = urllib.request.Request(url.removesuffix("/metrics") + path, method=method)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert caught.value.code == code
        caught.value.close()
    host, _, port = url.removeprefix("http://").removesuffix("/metrics").rpartition(":")
    for sent in (
        b"\x16\x03\x01 no HTTP\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 10_000,
        b"GET " + b"x" * 9000,
    ):
        with socket.create_connection((host, int(port))) as stranger, suppress(OSError):  # it is refused meanwhile
            stranger.sendall(sent)
            stranger.shutdown(socket.SHUT_WR)
    scrape(server)


# ---- Where it can't be


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--metrics", "{taken}"], "can't listen on tcp://{taken}: another program listens there; stop it, or choose "
         "another port (--metrics)"),
        (["--metrics", "0.0.0.0:0"], "0.0.0.0:0 can be reached from other machines"),
        (["--metrics", "tls://127.0.0.1:0"], "metrics are read by plain HTTP over TCP: write host:port"),
        (["--metrics", "here"], "'here' is not an address"),
        (["--middleware", "greentask.contrib.prometheus:Metrics"], "--metrics 127.0.0.1:9464"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_an_error_at_start(server: RunningServer, options: list[str], told: str) -> None:
    taken = metrics_url(server).removeprefix("http://").removesuffix("/metrics")
    options = [option.format(taken=taken) for option in options]
    done = greentask("serve", "support.server_tasks:add", "--listen", "127.0.0.1:0", *options)
    assert done.returncode == 1
    assert told.format(taken=taken) in done.stderr.splitlines()[-1]


def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('there is none')")
    options = ("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    done = greentask("serve", "support.server_tasks:add", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "metrics need prometheus-client: pip install 'greentask[prometheus]' (there is none)"
    )


@pytest.mark.parametrize("buckets", [(), (1, 1), (2, 1), (1, float("inf"))])
def test_buckets_rise(buckets: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match="buckets of metrics"):
        Metrics(None, buckets=buckets)


def test_task_processes_are_given_nothing_of_it() -> None:
    assert pack(Metrics("127.0.0.1:0")) is None


# ---- In a program


PROGRAM = """
import os, tempfile, urllib.request
import prometheus_client
from greentask import Client, Server, task
from greentask.contrib.prometheus import Metrics
from greentask.errors import ConfigurationError

@task
def add(a, b=0):
    return a + b

shown, counted = Metrics("127.0.0.1:0", buckets=[0.5, 10]), Metrics(None)
prometheus_client.REGISTRY.register(counted)
server = Server([add], "127.0.0.1:0", middleware=[shown, counted])
server.start()
with Client(str(server.addresses[0])) as client, tempfile.TemporaryDirectory() as folder:
    client.call("add", 1)
    other = Server([add], f"unix://{folder}/other", middleware=[Metrics(shown.address)])
    try:
        other.start()
    except ConfigurationError as error:
        assert "another program listens there" in str(error), error
        assert shown.address in str(error)
    else:
        raise AssertionError("two at one address")
    other.wait_stopped()
    assert not os.listdir(folder), "it listens"
text = urllib.request.urlopen(f"http://{shown.address}/metrics").read().decode()
registered = prometheus_client.generate_latest().decode()
server.stop()
one = 'greentask_calls_total{group="",kind="call",outcome="done",task="add"} 1.0'
print(text.count(one), registered.count(one), 'le="0.5",task="add"} 1.0' in text, 'le="0.01",task="add"' in text)
"""


def test_a_program_shows_them_by_itself_or_with_its_own() -> None:
    assert run_source(PROGRAM, patched=True) == ["1", "1", "True", "False"]


BOUNDED = """
import socket, time
import gevent
from greentask.contrib import scraping

made, seen = [], set()

def look():
    while True:
        seen.add(len(made))
        gevent.sleep(1e-9)

def page():
    looking = gevent.spawn(look)
    for number in range(200):
        made.append(number)
        yield b"x" * 50_000
    looking.kill()

listener = socket.create_server(("127.0.0.1", 0))
where = listener.getsockname()
opened = []
limits = {"max_connections": 2, "request_timeout": 0.5, "max_head": 2000}
served = scraping.ScrapeServer(listener, "/metrics", "text/plain", page, **limits)
served.start()

def connect(line=b"", reads=True):
    sock = socket.socket()
    if not reads:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.append(sock)
    sock.connect(where)
    sock.sendall(line)
    return sock

def rest(sock):
    size = 0
    try:
        while data := sock.recv(1 << 20):
            size += len(data)
    except ConnectionResetError:
        pass
    return size

REQUEST = b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
began = time.monotonic()
silent = [connect(), connect(b"GET /metr")]
first = connect(REQUEST)
whole = rest(first)
assert whole > 10_000_000, whole
assert time.monotonic() - began >= 0.5, "they had their time"
assert len(seen) > 100, "others had their turns between the pieces"
assert [rest(sock) for sock in silent] == [0, 0]
unread = [connect(REQUEST, reads=False), connect(REQUEST, reads=False)]
assert rest(connect(REQUEST)) == whole
assert all(rest(sock) < whole for sock in unread)
long = connect(b"GET /metrics HTTP/1.1\\r\\nX: " + b"x" * 3000 + b"\\r\\n\\r\\n")
assert long.recv(1000).startswith(b"HTTP/1.1 400 ")
served.stop()
try:
    connect()
except ConnectionRefusedError:
    print("closed")
for sock in opened:
    sock.close()
"""


def test_who_is_silent_or_does_not_read_keeps_nobody_out_for_long() -> None:
    assert run_source(BOUNDED, patched=True) == ["closed"]
