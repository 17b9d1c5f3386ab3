"""The demo's story: starts everything, is its client, and tells what it saw."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from websocket import WebSocket, create_connection

from ..errors import ConfigurationError
from ..wire.address import Address, parse_address
from .children import ChildFailed, Children, ask
from .smtp import SECONDS_PER_MAIL
from .tasks import RELAY

__all__ = ["Addresses", "run"]

_IDLE_FOR = 2.0  # seconds of pinging before the mails go out
_PING_EVERY = 0.005
_PATIENCE = 300.0  # seconds for one answer
_AGAIN_AFTER = 1.0  # seconds after which a SIGTERM that has ended nothing is heeded again

_OK, _MAILS_MISSING, _WRONG_USAGE, _ADDRESS_TAKEN = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the demo's servers listen."""

    tasks: str
    web: str
    smtp: str


def run(mails: int, addresses: Addresses, *, keep: bool) -> int:
    """Tell the story; the exit code."""
    console = Console()
    heed_sigterm()
    children = Children()
    try:
        for option, address in (("--listen", addresses.tasks), ("--web", addresses.web), ("--smtp", addresses.smtp)):
            _check_free(option, address)
        return _tell(console, children, mails, addresses, keep=keep)
    except (ConfigurationError, _AddressTaken, ChildFailed) as error:
        Console(stderr=True).print(f"greentask demo: {error}", markup=False, highlight=False, soft_wrap=True)
        return {ConfigurationError: _WRONG_USAGE, _AddressTaken: _ADDRESS_TAKEN}.get(type(error), _MAILS_MISSING)
    except KeyboardInterrupt:
        console.print("\nstopped")
        return 130
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        children.stop()


def heed_sigterm() -> None:
    """Have SIGTERM end the program with ``SystemExit``."""
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _terminated)


def _terminated(*_: object) -> NoReturn:
    signal.setitimer(
        signal.ITIMER_REAL, _AGAIN_AFTER
    )  # what is raised in a destructor, or in a callback of C's, is lost
    raise SystemExit(143)


class _AddressTaken(Exception):
    pass


def _check_free(option: str, text: str) -> None:
    address = parse_address(text)
    if address.scheme != "tcp":
        raise ConfigurationError(f"{option} {text}: the demo listens on host:port only")
    if not address.is_loopback:
        raise ConfigurationError(f"{option} {text}: the demo listens on loopback only, for anybody could use it")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            why = error.strerror or error
            raise _AddressTaken(f"can't listen on {address}: {why}; choose another one with {option}") from None


# ---- The story


def _tell(console: Console, children: Children, mails: int, addresses: Addresses, *, keep: bool) -> int:
    def say(what: str) -> None:
        console.print(what, highlight=False, soft_wrap=True)

    where = parse_address(addresses.smtp)
    relay, smtp = children.start("greentask.demo.smtp", where.host, str(where.port))
    say(f"an SMTP server that takes {SECONDS_PER_MAIL * 1000:g} ms a mail   {relay}")
    serve = ("greentask", "serve", "greentask.demo.tasks", "--listen", addresses.tasks, "--processes", "2")
    line, _ = children.start(*serve, **{RELAY: relay})
    tasks = _address_in(line)
    say(f"a task server with two task processes     Text://{tasks.host}:{tasks.port}")
    url, _ = children.start("greentask.demo.service", addresses.web, str(tasks))
    say(f"a WebSocket service                       {url}\n")

    address = url.replace("http", "ws", 1)
    with _Pinger(address) as pinger:
        say("One client pings the service, which is idle ...")
        time.sleep(_IDLE_FOR)
        idle = pinger.take()
        say(f"Another asks it for {mails} mails. Meanwhile two reports are computed, a second each.")
        began = time.monotonic()
        reports = [_Report(address, name) for name in ("sales", "stock")]
        closing = _send_mails(console, address, mails)
        computed = [report.result() for report in reports]
        seconds = time.monotonic() - began
        busy = pinger.take()
    say(f"The service tells the client: [bold green]{closing['message']}[/]\n")
    accepted: dict[str, int] = json.loads(ask(smtp))
    console.print(_table(mails, accepted, seconds, computed, idle, busy))
    if pinger.failure is not None:
        say(f"[red]the pings failed: {pinger.failure}[/]")
    if keep:
        say(f"\nStill up: open {url} in a browser. Ctrl-C ends it.")
        signal.pause()
    whole = accepted == {"mails": mails, "recipients": mails, "twice": 0} and pinger.failure is None
    return _OK if whole else _MAILS_MISSING


def _address_in(line: str) -> Address:
    """Where ``greentask serve`` says that it listens."""
    return parse_address(next(word for word in line.split() if word.startswith("tcp://")))


def _send_mails(console: Console, url: str, mails: int) -> dict[str, Any]:
    columns = (TextColumn("send_mail"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    arguments = {
        "from": "shop@example.org",
        "to": [f"customer{number}@example.org" for number in range(mails)],
        "contents": "The new catalogue is here.\n",
    }
    with Progress(*columns, console=console) as bar:
        line = bar.add_task("", total=mails)
        closing = _ask(url, "send_mail", arguments, lambda report: bar.update(line, completed=report["done"]))
        bar.update(line, completed=closing["result"]["sent"])
    return closing


def _ask(url: str, function: str, arguments: dict[str, Any], on_progress: Callable[[Any], None]) -> dict[str, Any]:
    """Have the service run a task; the message that it ends with."""
    browser: WebSocket = create_connection(url, timeout=_PATIENCE)
    try:
        browser.send(json.dumps({"id": 1, "function": function, "args": arguments}))
        while True:
            message: dict[str, Any] = json.loads(browser.recv())
            if "progress" in message:
                on_progress(message["progress"])
            elif "error" in message:
                raise ChildFailed(f"{function} failed: {message['error']}")
            else:
                return message
    finally:
        browser.close()


class _Report:
    """A client of its own that asks for a report."""

    def __init__(self, url: str, name: str) -> None:
        self._answer: dict[str, Any] | Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(url, name), daemon=True)
        self._thread.start()

    def _run(self, url: str, name: str) -> None:
        try:
            self._answer = _ask(url, "report", {"name": name}, lambda _: None)
        except Exception as error:
            self._answer = error

    def result(self) -> dict[str, Any]:
        self._thread.join(_PATIENCE)
        if isinstance(self._answer, Exception):
            raise self._answer
        assert self._answer is not None
        result: dict[str, Any] = self._answer["result"]
        return result


@dataclass
class _Pinger:
    """A client that pings the service the whole time, and notes how long each answer took."""

    url: str
    failure: Exception | None = None
    _seconds: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _Pinger:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def take(self) -> list[float]:
        """The times since the last call of this, in seconds, sorted."""
        taken, self._seconds = self._seconds, []
        return sorted(taken)

    def _run(self) -> None:
        try:
            browser: WebSocket = create_connection(self.url, timeout=_PATIENCE)
            for id in itertools.count():
                if self._stop.wait(_PING_EVERY):
                    break
                began = time.perf_counter()
                browser.send(json.dumps({"id": id, "function": "greentask.ping"}))
                answer = json.loads(browser.recv())
                if answer != {"id": id, "result": "pong"}:
                    raise ValueError(f"a ping was answered with {answer}")
                self._seconds.append(time.perf_counter() - began)
            browser.close()
        except Exception as error:
            self.failure = error


# ---- What was seen


def _table(
    mails: int,
    accepted: dict[str, int],
    seconds: float,
    reports: list[dict[str, Any]],
    idle: list[float],
    busy: list[float],
) -> Table:
    twice = "none twice" if not accepted["twice"] else f"[red]{accepted['twice']} recipients twice[/]"
    one_by_one = mails * SECONDS_PER_MAIL + sum(report["seconds"] for report in reports)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("mails that the SMTP server accepted", f"[bold]{accepted['mails']}[/] of {mails}, {twice}")
    table.add_row("time for the mails and both reports", f"[bold]{seconds:.1f} s[/]")
    table.add_row("one after another, it would take", f"{one_by_one:.1f} s")
    table.add_row("ping of another client, idle", _percentiles(idle))
    table.add_row("ping of another client, meanwhile", _percentiles(busy))
    return table


def _percentiles(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return "too few to tell"
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms ({len(seconds)} pings)"
