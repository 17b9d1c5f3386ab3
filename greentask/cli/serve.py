"""``greentask serve``."""

# ruff: noqa: E402 - these come before every import that they are for
from __future__ import annotations

import signal

# Until the server takes signals, Ctrl-C just ends the program. A KeyboardInterrupt may come where nothing can be done
# with it, in a callback of the import system for one, and is ignored there.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from gevent import monkey

monkey.patch_all()

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click
import gevent

from .._version import __version__
from ..errors import ConfigurationError, GreentaskError
from ..pool.processes import DEFAULT_GRACE
from ..server import Server
from ..server.groups import Group, parse_bytes, parse_group
from ..server.limits import MAY_BE_0, Limits
from ..server.server import DEFAULT_DRAIN, DEFAULT_LISTEN
from ..tasks.loading import load_apps
from ..tasks.registry import Tasks
from ..wire.json import DEEPEST

__all__ = ["command"]

T = TypeVar("T")

_LIMITS = {
    "max_line": "Bytes of one line.",
    "max_depth": f"Levels of arrays and objects in a line; at most {DEEPEST}.",
    "line_timeout": "Seconds that a line has for arriving, and one more for each 64 KiB of it; 0: any time.",
    "idle_timeout": "Seconds after which a connection with nothing to do is closed; 0: never.",
    "max_connections": "Connections at once; further ones wait.",
    "max_connections_per_address": "Of these from one address; further ones are closed at once. 0: any number.",
    "max_in_flight": "Calls in flight on one connection; its next one waits.",
    "max_calls": "Calls in flight in all; further ones are refused (Overloaded).",
    "max_unsent": "Bytes of answers that a peer has not read; past it, it is cut off.",
    "max_failures": "Failed proofs of a secret from one address in a minute; it is refused for a while then.",
    "handshake_timeout": "Seconds that a connection has for proving who it is.",
}


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, help in reversed(_LIMITS.items()):
        flag, default, least = "--" + name.replace("_", "-"), getattr(Limits(), name), 0 if name in MAY_BE_0 else 1
        kind: click.ParamType[Any] = click.IntRange(least, DEEPEST if name == "max_depth" else None)
        if isinstance(default, float):
            kind = click.FloatRange(0, min_open=name not in MAY_BE_0)
        command = click.option(flag, type=kind, default=default, show_default=True, help=help)(command)
    return command


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from None


def _name_and_number(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not (name and number.isascii() and number.isdigit()):
        raise click.BadParameter(f"{text!r} is not NAME=N, as in send_mail=10")
    return name, int(number)


@click.command("serve")
@click.argument("apps", metavar="APP...", nargs=-1, required=True)
@click.option(
    "--listen",
    "-l",
    multiple=True,
    default=[DEFAULT_LISTEN],
    show_default=True,
    help="Address: host:port or unix:///path; may be given several times.",
)
@click.option("--processes", "-p", type=click.IntRange(1), help="Task processes.  [default: one for each processor]")
@click.option(
    "--process",
    "in_processes",
    multiple=True,
    help="Run this undecorated function in a task process; NAME=GROUP: of that group.",
)
@click.option(
    "--max-memory",
    metavar="BYTES",
    callback=lambda _context, _option, given: None if given is None else _parsed(parse_bytes, given),
    help="Resident memory of a task process (4G, 512M), past which it is replaced, or killed with its task.",
)
@click.option("--max-tasks", type=click.IntRange(1), help="Tasks after which a task process is replaced.")
@click.option(
    "--group",
    "groups",
    metavar="NAME=N[,...]",
    multiple=True,
    callback=lambda _context, _option, given: dict(_parsed(parse_group, text) for text in given),
    help='Task processes for @task(process="NAME"); with limits: NAME=N,max_memory=4G,max_tasks=1000,grace=5. '
    "May be given several times.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=DEFAULT_GRACE,
    show_default=True,
    help="Seconds between asking a task that is out of time to end, and killing its process.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0),
    default=DEFAULT_DRAIN,
    show_default=True,
    help="Seconds that calls in flight have for ending after SIGTERM.",
)
@click.option(
    "--max-running",
    metavar="NAME=N",
    multiple=True,
    callback=lambda _context, _option, given: dict(map(_name_and_number, given)),
    help="Calls of one task that run at once; further ones wait. May be given several times.",
)
@click.option("--cancel-abandoned", is_flag=True, help="Cancel calls whose connection broke; else they go on.")
@_limit_options
@click.option(
    "--secret-file", metavar="FILE", help="Callers must prove that they know a secret of this file (one a line)."
)
@click.option("--insecure", is_flag=True, help="Listen where other machines can call, with no proof of who does.")
@click.option("--debug", is_flag=True, help="Send tracebacks to callers, and log more.")
def command(
    apps: tuple[str, ...],
    listen: tuple[str, ...],
    processes: int | None,
    in_processes: tuple[str, ...],
    max_memory: int | None,
    max_tasks: int | None,
    groups: dict[str, Group],
    grace: float,
    drain_timeout: float,
    max_running: dict[str, int],
    cancel_abandoned: bool,
    secret_file: str | None,
    insecure: bool,
    debug: bool,
    **limits: Any,
) -> None:
    """Offer the tasks of each APP to the network, until SIGTERM or Ctrl-C.

    APP is package.module (all its tasks), package.module:registry, or module:function, which needs no decorator.
    Tasks run in greenlets, those declared process=True in task processes.

    The first signal lets calls in flight end (--drain-timeout), a second one stops at once.
    Exit codes: 0 stopped by a signal, 1 could not start, 2 wrong usage, 130 Ctrl-C while it started.
    """
    # Until serve_forever takes over: a signal while it starts ends it, and what it has started ends with it. At once,
    # and not by an exception, which may be ignored, as above, or caught by what is imported.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    tasks = _load(apps, in_processes)
    try:
        server = Server(
            tasks,
            listen,
            processes=processes,
            max_memory=max_memory,
            max_tasks=max_tasks,
            groups=groups,
            limits=Limits(**limits),
            grace=grace,
            max_running=max_running,
            cancel_abandoned=cancel_abandoned,
            debug=debug,
            secret_file=secret_file,
            insecure=insecure,
        )
        server.start()
    except GreentaskError as error:
        _fail(str(error))
    where = ", ".join(map(str, server.addresses))
    count = f"{len(tasks)} task{'s' * (len(tasks) != 1)}"
    size = sum(group.size for group in server.groups.values())
    pool = f", {size} task process{'es' * (size != 1)}" * bool(size)
    ready = f"greentask {__version__} serves {count} on {where} (pid {os.getpid()}{pool})"
    gevent.spawn(click.echo, ready)  # runs when the server takes signals, too
    server.serve_forever(drain_timeout)
    for number in (signal.SIGTERM, signal.SIGINT):  # all is done: one that comes now changes nothing any more
        signal.signal(number, signal.SIG_IGN)


def _load(apps: tuple[str, ...], in_processes: tuple[str, ...]) -> Tasks:
    try:
        return load_apps(apps, in_processes=in_processes)
    except ConfigurationError as error:
        _fail(str(error))
    except Exception:
        traceback.print_exc()
        _fail(f"{' '.join(apps)} can't be imported: see the traceback above")


def _fail(message: str) -> NoReturn:
    click.echo(f"greentask serve: {message}", err=True)
    sys.exit(1)
