"""``Metrics``: what a server does, for Prometheus to scrape. A middleware, as a user's would be.

Calls are counted when they have ended (``after_call``), and nothing else happens for a call. How many run, which
processes are busy and who is connected is asked of the server when somebody scrapes.

Where there are several fronts, each counts its own calls, and whichever is scraped tells of all of them: what they have
counted is added up by the master, with that of fronts which are gone. So nothing begins anew at a reload.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, get_args

from gevent.socket import socket as GreenSocket

from ..errors import ConfigurationError, GreentaskError, QueueError
from ..hub.http import check_limits
from ..server.listening import listen_for_metrics
from ..server.server import Server
from ..tasks.middleware import CallInfo, Middleware, Outcome
from .scraping import DEFAULT_CONNECTIONS, DEFAULT_MAX_HEAD, DEFAULT_REQUEST, ScrapeServer

try:
    from prometheus_client import generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ConfigurationError(f"metrics need prometheus-client: pip install 'greentask[prometheus]' ({error})") from None

__all__ = ["BUCKETS", "Metrics"]

logger = logging.getLogger(__name__)

#: Upper bounds of the buckets of durations, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_KIND = "text/plain; version=0.0.4; charset=utf-8"  # which every Prometheus reads
_NAME = "prometheus"  # of what is counted here, in the server's status
_LOOK_WITHIN = 3.0  # seconds for the queue's file
_WHICH = ("task", "group", "kind")  # the labels of what is counted for each call

_Value = tuple[Sequence[str], float]  # the labels, and what it is


class Metrics(Middleware):
    """Counts calls, and shows them to Prometheus at ``http://LISTEN/metrics``.

    It is a collector as well: ``prometheus_client.REGISTRY.register(metrics)`` adds it to what a program shows by other
    means, and then ``listen`` may be None.

    listen
        Where, host and port, or a socket that listens there. Raises ``ConfigurationError`` when the server starts,
        where that can't be had; then the server doesn't start.
    buckets
        Upper bounds of the buckets of durations, in seconds.
    insecure
        Listen on an address that other machines can reach.
    max_connections
        Connections at once; further ones wait in the kernel's queue.
    request_timeout
        Seconds that a connection has in all, for asking and for reading.
    max_head
        Bytes of a request's head; a longer one is answered with 400.

    >>> server = Server([len], "127.0.0.1:0", middleware=[Metrics("127.0.0.1:9464")])
    """

    def __init__(
        self,
        listen: str | GreenSocket | None = "",
        *,
        buckets: Iterable[float] = BUCKETS,
        insecure: bool = False,
        max_connections: int = DEFAULT_CONNECTIONS,
        request_timeout: float = DEFAULT_REQUEST,
        max_head: int = DEFAULT_MAX_HEAD,
    ) -> None:
        if listen == "":
            raise ConfigurationError(
                'Metrics has to know where: Metrics("127.0.0.1:9464"), and on the command line, in place of '
                "--middleware, --metrics 127.0.0.1:9464"
            )
        self.buckets = tuple(map(float, buckets))
        if not self.buckets or list(self.buckets) != sorted({*self.buckets}) or not math.isfinite(self.buckets[-1]):
            raise ConfigurationError(f"buckets of metrics are finite numbers of seconds that rise, not {buckets!r}")
        self._bounds = [*map(repr, self.buckets), "+Inf"]
        check_limits(max_connections=max_connections, request_timeout=request_timeout, max_head=max_head)
        self._http_limits: dict[str, Any] = {
            "max_connections": max_connections,
            "request_timeout": request_timeout,
            "max_head": max_head,
        }
        self._listen = listen
        self._insecure = insecure
        self._server: Server | None = None
        self._http: ScrapeServer | None = None
        # kind -> task -> what was counted. Its size is bounded by the tasks that the server has: others have no hooks.
        self._counted: dict[str, dict[str, _Counted]] = {"call": {}, "attempt": {}, "enqueue": {}}

    # ---- Hooks

    def server_started(self, server: Server) -> None:
        """Be there for those who scrape."""
        if self._server is not None:
            raise ConfigurationError("one Metrics is for one server: make another one")
        if self._listen is not None:
            sock = self._listen
            if isinstance(sock, str):
                sock = listen_for_metrics(sock, insecure=self._insecure)
            self._http = ScrapeServer(sock, "/metrics", _KIND, self._page, **self._http_limits)
            self._http.start()
        self._server = server
        server.counted[_NAME] = self._tell
        for task in server.tasks:  # a task that was not called yet was called 0 times, or its first failure is no rise
            self._counted["call"].setdefault(task.name, _Counted(task.group or "", len(self._bounds)))

    def after_call(self, call: CallInfo) -> None:
        """Count it."""
        counted = self._counted["enqueue" if call.enqueues else "attempt" if call.peer == "queue" else "call"]
        task = counted.get(call.task)
        if task is None:
            task = counted[call.task] = _Counted(call.group or "", len(self._bounds))
        outcome, seconds = call.outcome, call.duration
        assert outcome is not None
        assert seconds is not None
        task.outcomes[outcome] += 1
        if outcome != "refused":  # it did not run
            task.buckets[bisect_left(self.buckets, seconds)] += 1
            task.seconds += seconds
            if outcome == "done":
                task.enqueued += call.enqueues

    def server_stopped(self, server: Server) -> None:
        """Be there no more."""
        if self._http is not None:
            self._http.stop()

    # ---- For those who scrape

    @property
    def address(self) -> str:
        """Where it is shown, ``host:port``, with the port that the kernel chose."""
        if self._http is None:
            raise ConfigurationError("these metrics are shown nowhere: the server has not started, or listen is None")
        return self._http.address

    def collect(self) -> Iterator[Metric]:
        """Everything that there is: what a ``prometheus_client`` registry asks for."""
        for table in self._tables():
            yield table.family(table.rows)

    def _tables(self) -> Iterator[_Table]:
        if self._server is None:
            return
        status = self._server.tell_status(by_task=True)
        if status.get("fronts") == []:
            # What this one knows would be less than before, and a rise for Prometheus when all are heard of again.
            raise GreentaskError("what the other fronts do is not known")
        yield from _calls(status["counted"].get(_NAME, {}), self._bounds)
        yield from _state(status, [task.name for task in self._server.tasks])
        if self._server.queue is not None:
            try:
                yield from _queue(self._server.queue.count(_LOOK_WITHIN))
            except QueueError as error:
                logger.warning("metrics are without those of the queue's file: %s", error)

    def _page(self) -> Iterator[bytes]:
        for table in self._tables():
            for start in range(0, len(table.rows), table.piece):
                text = generate_latest(_One(table.family(table.rows[start : start + table.piece])))
                yield text.split(b"\n", 2)[2] if start else text  # its HELP and TYPE are there once

    def _tell(self) -> dict[str, Any]:
        """What was counted, for the master to add up: see ``Server.counted``."""
        told: dict[str, Any] = {}
        for kind, tasks in self._counted.items():
            for name, task in tasks.items():
                told.setdefault(kind, {}).setdefault(task.group, {})[name] = task.told()
        assert self._server is not None
        told["processes"] = {
            name: {"lost": group["lost"], "recycled": group["recycled"]}
            for name, group in self._server.groups.status().items()
        }
        return told


class _Counted:
    """The calls of one task, of one kind."""

    __slots__ = ("buckets", "enqueued", "group", "outcomes", "seconds")

    def __init__(self, group: str, buckets: int) -> None:
        self.group = group
        self.outcomes: dict[Outcome, int] = dict.fromkeys(_OUTCOMES, 0)
        self.buckets = [0] * buckets
        self.seconds = 0.0
        self.enqueued = 0

    def told(self) -> dict[str, Any]:
        return {
            "outcomes": {**self.outcomes},
            "buckets": [*self.buckets],
            "seconds": self.seconds,
            "enqueued": self.enqueued,
        }


class _Table(NamedTuple):
    """A family of metrics: its rows are their labels and values."""

    make: Callable[..., Any]
    name: str
    what: str
    labels: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    piece: int = 100  # rows that are written in one go, in half a millisecond

    def family(self, rows: Sequence[tuple[Any, ...]]) -> Metric:
        """With some of its rows."""
        family = self.make(f"greentask_{self.name}", self.what, labels=self.labels)
        for row in rows:
            family.add_metric(*row)
        made: Metric = family
        return made


class _One(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]


def _calls(counted: dict[str, Any], bounds: list[str]) -> Iterator[_Table]:
    """What is counted for each call, from what ``Metrics._tell`` told."""
    each = [
        ((name, group, kind), task)
        for kind in ("call", "attempt", "enqueue")
        for group, tasks in counted.get(kind, {}).items()
        for name, task in tasks.items()
    ]
    outcomes = [((*which, outcome), count) for which, task in each for outcome, count in task["outcomes"].items()]
    yield _counter("calls", "Calls that have ended.", (*_WHICH, "outcome"), outcomes)
    took = [
        (which, [*zip(bounds, accumulate(task["buckets"]))], task["seconds"])
        for which, task in each
        if any(task["buckets"])
    ]
    what = "From a call's arrival to its end, less those that did not run."
    yield _Table(HistogramMetricFamily, "call_duration_seconds", what, _WHICH, took, 10)
    enqueued = [((which[0],), task["enqueued"]) for which, task in each if which[2] == "enqueue"]
    yield _counter("enqueued_tasks", "Durable tasks that callers have enqueued.", ("task",), enqueued)
    processes = counted.get("processes", {}).items()
    lost = [((name,), group["lost"]) for name, group in processes]
    yield _counter("task_processes_lost", "Task processes that died.", ("group",), lost)
    recycled = [((name,), group["recycled"]) for name, group in processes]
    yield _counter("task_processes_replaced", "Task processes that ended in good order.", ("group",), recycled)


def _state(status: dict[str, Any], tasks: list[str]) -> Iterator[_Table]:
    """What ``greentask status`` tells as well."""
    fronts = status.get("fronts") or [status]
    running = status["running_by_task"]
    in_flight = [((name,), running.get(name, 0)) for name in dict.fromkeys([*tasks, *running])]
    yield _gauge("calls_in_flight", "Calls that have come and not ended.", ("task",), in_flight)
    limited: dict[str, int] = {}
    for front in fronts:
        for name, turns in front["limited"].items():
            limited[name] = limited.get(name, 0) + turns["waiting"]
    waiting = [((name,), count) for name, count in limited.items()]
    yield _gauge("calls_waiting", "Of these, those that wait for their turn (max_running).", ("task",), waiting)
    groups = status.get("groups", {}).items()
    queued = [((name,), group["waiting"]) for name, group in groups]
    yield _gauge("process_calls_waiting", "Calls that wait for a task process.", ("group",), queued)
    sizes = [((name,), group["size"]) for name, group in groups]
    yield _gauge("task_processes_wanted", "Task processes that there are to be.", ("group",), sizes)
    processes = [
        ((name, state), count)
        for name, group in groups
        for state, count in (("busy", group["busy"]), ("idle", group["alive"] - group["busy"]))
    ]
    yield _gauge("task_processes", "Task processes that there are.", ("group", "state"), processes)
    yield _gauge("connections", "Open connections.", (), [((), status["connections"])])
    refused = [((limit,), count) for limit, count in status["refused"].items()]
    yield _counter("connections_sent_away", "Connections refused, closed or cut off.", ("limit",), refused)
    yield _gauge("fronts", "Fronts that there are, with those that drain.", (), [((), len(fronts))])
    memory = [(("fronts",), status.get("memory") or 0)]
    if "master" in status:
        memory.append((("master",), status["master"].get("memory") or 0))
        yield _counter("front_deaths", "Fronts that died.", (), [((), status["master"].get("deaths", 0))])
        yield _counter("reloads", "Reloads of the code.", (), [((), status["master"].get("reloads", 0))])
    yield _gauge("resident_memory_bytes", "Memory of the processes that serve.", ("of",), memory)
    if "loop" in status:
        held = [((), status["loop"]["held"])]
        yield _counter("loop_held", "Times that a task held up the loop for longer than max_hold.", (), held)
    if "queue" in status:
        events = [((event,), count) for event, count in status["queue"].items() if event != "running"]
        yield _counter("queue_events", "What has happened to durable tasks.", ("event",), events)
        yield _gauge("queue_running", "Durable tasks that run.", (), [((), status["queue"].get("running", 0))])
    about = (status["version"], status["python"])
    yield _gauge("info", "What serves.", ("version", "python"), [(about, 1)])


def _queue(counted: dict[str, Any]) -> Iterator[_Table]:
    """What is in the queue's file, which all of its servers share."""
    states = ("waiting", "scheduled", "blocked", "running", "failed")
    tasks = [((state,), counted[state]) for state in states]
    yield _gauge("queue_tasks", "Durable tasks in the queue's file.", ("state",), tasks)
    oldest = [((), counted["oldest"] or 0.0)]
    yield _gauge("queue_oldest_seconds", "For how long the oldest one has waited.", (), oldest)
    yield _gauge("queue_file_bytes", "The size of the file.", (), [((), counted["bytes"])])


def _counter(name: str, what: str, labels: Sequence[str], values: Sequence[_Value]) -> _Table:
    return _Table(CounterMetricFamily, name, what, labels, values)


def _gauge(name: str, what: str, labels: Sequence[str], values: Sequence[_Value]) -> _Table:
    return _Table(GaugeMetricFamily, name, what, labels, values)
