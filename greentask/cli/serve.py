"""``greentask serve``."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

import click

from .._early import take_signals
from ..errors import ConfigurationError, GreentaskError
from ..master.config import ServeConfig
from ..master.fronts import FrontFailed
from ..master.inherited import inherited_sockets
from ..master.logs import FORMATS, configure_logging
from ..master.master import Master
from ..queue.limits import LEAST_LEASE, MOST_TAKEN
from ..server.groups import parse_bytes, parse_group
from ..server.limits import DEFAULT_LISTEN, MAY_BE_0, Limits
from ..server.listening import parse_mode
from ..wire.address import Address, parse_addresses
from ..wire.json import DEEPEST
from .given import refuse_idle
from .times import Duration, Seconds

__all__ = ["command"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT = ServeConfig(apps=())  # what the flags are where they aren't given

_LIMITS = {
    "max_line": "Bytes of one line.",
    "max_depth": f"Levels of arrays and objects in a line; at most {DEEPEST}.",
    "max_steps": "Steps that one line has follow a durable task.",
    "line_timeout": "Seconds that a line has for arriving, and one more for each 64 KiB of it; 0: any time.",
    "idle_timeout": "Seconds after which a connection with nothing to do is closed; 0: never.",
    "dead_after": "Seconds after which a connection is given up whose peer's machine or network is gone.",
    "stream_timeout": "Seconds after which a stream is cancelled whose reader takes nothing more; 0: never.",
    "max_connections": "Connections at once; further ones wait.",
    "max_connections_per_address": "Of these from one address; further ones are closed at once. 0: any number.",
    "max_in_flight": "Calls in flight on one connection; its next one waits.",
    "max_calls": "Calls in flight in all; further ones are refused (Overloaded).",
    "max_unsent": "Bytes of answers that a peer has not read; from a quarter on, none of its calls begins.",
    "read_timeout": "Seconds after which a peer is cut off that reads nothing, where its calls wait for that.",
    "max_held": "Bytes that all connections together hold in memory; past it, some are refused or closed.",
    "max_failures": "Failed proofs of a secret from one address in a minute; it is refused for a while then.",
    "handshake_timeout": "Seconds that a connection has for proving who it is.",
}


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, help in reversed(_LIMITS.items()):
        flag, least = "--" + name.replace("_", "-"), 0 if name in MAY_BE_0 else 1
        default = getattr(_DEFAULT.limits, name)
        kind: click.ParamType[Any] = click.IntRange(least, DEEPEST if name == "max_depth" else None)
        if isinstance(default, float):
            kind = Duration(above=name not in MAY_BE_0)
        command = click.option(flag, type=kind, default=default, show_default=True, help=help)(command)
    return command


_OF_QUEUES = (
    "queue_greenlets",
    "queue_lease",
    "queue_memory",
    "result_ttl",
    "key_ttl",
    "dead_limit",
    "keep_attempts",
    "max_lost_processes",
    "max_lost_fronts",
    "max_batch",
    "max_members",
    "max_taken",
)


def _refuse_idle_options(config: ServeConfig, inherited: Iterable[Address], *, reload: bool) -> None:
    """Refuse those that need another one, or an address of another kind. What systemd has bound is not ours."""
    own = parse_addresses(config.listen) if config.listen else ()
    schemes = {address.scheme for address in (*inherited, *own)}
    if not any(address.scheme == "unix" for address in own):
        refuse_idle(
            ("socket_mode", "socket_owner"), "without the file of a unix socket to make: --listen unix:///absolute/path"
        )
    if schemes == {"unix"}:
        refuse_idle(("allow", "max_connections_per_address"), "where all addresses are unix sockets: --socket-mode")
    if not reload:
        refuse_idle(("reload_dirs",), "without --reload")
    if config.queue is None:
        refuse_idle(_OF_QUEUES, "without a queue for durable tasks: --queue FILE")
    if config.secret_file is None:
        refuse_idle(("max_failures",), "without a secret to prove: --secret-file FILE")
        if "tls" not in schemes:
            refuse_idle(("handshake_timeout",), "without a secret to prove (--secret-file FILE), or a tls:// address")


def _limits(given: dict[str, Any]) -> Limits:
    try:
        return Limits(**given)
    except ValueError as error:  # two of them don't go together
        named = re.sub("|".join(_LIMITS), lambda name: "--" + name[0].replace("_", "-"), str(error))
        raise click.UsageError(named) from None


def _seconds(flag: str, default: float, help: str, *, above_0: bool = False) -> Callable[[F], F]:
    return click.option(flag, type=Duration(above=above_0), default=default, show_default=True, help=help)


def _as(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """The callback of an option whose text is parsed."""
    return lambda _context, _option, given: None if given is None else _parsed(parse, given)


def _by_name(
    parse: Callable[[str], tuple[str, T]],
) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, T]]:
    """The callback of an option that is given several times, for another name each time."""

    def collect(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, T]:
        found: dict[str, T] = {}
        for text in given:
            name, value = _parsed(parse, text)
            if name in found:
                raise click.BadParameter(f"{text!r}: {name!r} is given twice")
            found[name] = value
        return found

    return collect


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from None


def _name_and_number(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not (name and number.isascii() and number.isdigit()):
        raise ConfigurationError(f"{text!r} is not NAME=N, as in send_mail=10")
    return name, int(number)


def _parse_memory(text: str) -> int:
    memory = parse_bytes(text)
    if memory < 1:
        raise ConfigurationError(f"{text!r} is not above 0")
    return memory


def _parse_taken(text: str) -> int:
    taken = parse_bytes(text)
    if not 0 < taken <= MOST_TAKEN:
        raise ConfigurationError(f"{text!r} is not from 1 to {MOST_TAKEN >> 20}M, which a row of the file can have")
    return taken


@click.command("serve")
@click.argument("apps", metavar="APP...", nargs=-1, required=True)
@click.option(
    "--listen",
    "-l",
    multiple=True,
    help=f"Address: host:port or unix:///path; may be given several times.  [default: {DEFAULT_LISTEN}]",
)
@click.option("--fronts", type=click.IntRange(1), default=1, show_default=True, help="Processes that serve.")
@click.option(
    "--processes",
    "-p",
    type=click.IntRange(1),
    help="Task processes in all.  [default: one for each processor that it may use]",
)
@click.option(
    "--process",
    "in_processes",
    multiple=True,
    help="Run this undecorated function in a task process; NAME=GROUP: of that group.",
)
@click.option(
    "--max-memory",
    metavar="BYTES",
    callback=_as(parse_bytes),
    help="Resident memory of a task process (4G, 512M), past which it is replaced, or killed with its task.",
)
@click.option("--max-tasks", type=click.IntRange(1), help="Tasks after which a task process is replaced.")
@click.option(
    "--group",
    "groups",
    metavar="NAME=N[,...]",
    multiple=True,
    callback=_by_name(parse_group),
    help='Task processes for @task(process="NAME"); with limits: NAME=N,max_memory=4G,max_tasks=1000,grace=5. '
    "May be given several times.",
)
@_seconds(
    "--grace", _DEFAULT.grace, "Seconds between asking a task that is out of time to end, and killing its process."
)
@_seconds(
    "--drain-timeout",
    _DEFAULT.drain_timeout,
    "Seconds that calls in flight have for ending after SIGTERM, or at a reload.",
)
@_seconds(
    "--start-timeout",
    _DEFAULT.start_timeout,
    "Seconds that the tasks have for being imported, at the start and at a reload; 0: any time.",
)
@click.option(
    "--max-running",
    metavar="NAME=N",
    multiple=True,
    callback=_by_name(_name_and_number),
    help="Calls of one task that run at once; further ones wait. May be given several times.",
)
@click.option(
    "--queue",
    metavar="FILE",
    type=click.Path(dir_okay=False, resolve_path=True),
    help="Keep durable tasks in this file, and run them. Several servers of one machine may share it.",
)
@click.option(
    "--queue-greenlets",
    type=click.IntRange(1),
    default=_DEFAULT.queue_greenlets,
    show_default=True,
    help="Durable tasks that run in greenlets at once, in each front.",
)
@click.option(
    "--queue-lease",
    type=Duration(LEAST_LEASE),
    default=_DEFAULT.queue_lease,
    show_default=True,
    help="Seconds of silence after which others run the durable tasks that a front had.",
)
@click.option(
    "--queue-memory",
    metavar="BYTES",
    default=f"{_DEFAULT.queue_memory >> 20}M",
    show_default=True,
    callback=_as(_parse_memory),
    help="Arguments of the durable tasks that a front has at once; one task may have more.",
)
@click.option(
    "--result-ttl",
    type=Seconds(may_be_0=False),
    metavar="TIME",
    default=f"{_DEFAULT.result_ttl / 86400:g}d",
    show_default=True,
    help="For how long the result of a durable task is kept: 90s, 10m, 2h, 3d.",
)
@click.option(
    "--key-ttl",
    type=Seconds(),
    metavar="TIME",
    default=f"{_DEFAULT.key_ttl:g}",
    show_default=True,
    help="For how long the key of a durable task holds when its result is forgotten.",
)
@click.option(
    "--dead-limit",
    type=click.IntRange(0),
    default=_DEFAULT.dead_limit,
    show_default=True,
    help="Dead letters that are kept; of more, the oldest are forgotten.",
)
@click.option(
    "--keep-attempts",
    type=click.IntRange(1),
    default=_DEFAULT.keep_attempts,
    show_default=True,
    help="Attempts of a durable task, the newest ones, of which all of the error is kept.",
)
@click.option(
    "--max-lost-processes",
    type=click.IntRange(1),
    default=_DEFAULT.max_lost_processes,
    show_default=True,
    help="Task processes that may die while they run one durable task; then it is a dead letter.",
)
@click.option(
    "--max-lost-fronts",
    type=click.IntRange(1),
    default=_DEFAULT.max_lost_fronts,
    show_default=True,
    help="Fronts that may die, or be silent, while they have one durable task; likewise.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1),
    default=_DEFAULT.max_batch,
    show_default=True,
    help="Durable tasks that are enqueued in one line.",
)
@click.option(
    "--max-members",
    type=click.IntRange(1),
    default=_DEFAULT.max_members,
    show_default=True,
    help="Members of a group whose results a task takes.",
)
@click.option(
    "--max-taken",
    metavar="BYTES",
    default=f"{_DEFAULT.max_taken >> 20}M",
    show_default=True,
    callback=_as(_parse_taken),
    help="Results of others that one durable task takes.",
)
@click.option(
    "--middleware",
    metavar="PACKAGE.MODULE:OBJECT",
    multiple=True,
    help="A greentask.Middleware around all calls and tasks. May be given several times.",
)
@click.option(
    "--metrics",
    metavar="ADDRESS",
    help="Show Prometheus how often tasks are called, at http://ADDRESS/metrics: 127.0.0.1:9464, say.",
)
@_seconds(
    "--teardown-timeout",
    _DEFAULT.teardown_timeout,
    "Seconds that a process has for its end in good order.",
    above_0=True,
)
@_seconds(
    "--max-hold",
    _DEFAULT.max_hold,
    "Seconds that a task may hold up the loop before that is logged, with its stack; 0: never logged.",
)
@click.option("--hide-arguments", is_flag=True, help="Leave arguments of running calls out of greentask.status.")
@click.option("--cancel-abandoned", is_flag=True, help="Cancel calls whose connection broke; else they go on.")
@_limit_options
@click.option(
    "--socket-mode",
    metavar="OCTAL",
    callback=_as(parse_mode),
    help="Permissions of a unix socket's file, such as 660.  [default: what the umask leaves]",
)
@click.option("--socket-owner", metavar="USER[:GROUP]", help="Whose that file is.")
@click.option("--tls-cert", metavar="FILE", help="The certificate of tls:// addresses, in PEM.")
@click.option("--tls-key", metavar="FILE", help="Its key, where that is not in the same file.")
@click.option("--tls-client-ca", metavar="FILE", help="Callers must have a certificate of this authority.")
@click.option(
    "--secret-file", metavar="FILE", help="Callers must prove that they know a secret of this file (one a line)."
)
@click.option(
    "--allow",
    metavar="NETWORK",
    multiple=True,
    help="Take connections only from here: 10.0.0.0/8, 2001:db8::/32 or an address; may be given several times.",
)
@click.option("--insecure", is_flag=True, help="Listen where other machines can call, with no proof of who does.")
@click.option("--reload", is_flag=True, help="Reload when a source file changes: for development.")
@click.option(
    "--reload-dir",
    "reload_dirs",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="Folder to watch for --reload; may be given several times.  [default: the current one]",
)
@click.option("--pid-file", type=click.Path(dir_okay=False), help="Write the process id there.")
@click.option("--ready-file", type=click.Path(dir_okay=False), help="Write the addresses there, once it serves.")
@click.option("--log-file", type=click.Path(dir_okay=False), help="Log there, and not to stderr.")
@click.option("--log-format", type=click.Choice(FORMATS), default="text", show_default=True, help="Form of log lines.")
@click.option("--log-calls", is_flag=True, help="Log each call at its end, and not just those that fail.")
@click.option("--debug", is_flag=True, help="Send tracebacks to callers, and log more.")
def command(
    apps: tuple[str, ...],
    listen: tuple[str, ...],
    reload: bool,
    reload_dirs: tuple[str, ...],
    socket_mode: int | None,
    socket_owner: str | None,
    pid_file: str | None,
    ready_file: str | None,
    log_file: str | None,
    log_format: str,
    debug: bool,
    **options: object,
) -> None:
    """Offer the tasks of each APP to the network, until SIGTERM or Ctrl-C.

    APP is package.module (all its tasks), package.module:registry, or module:function, which needs no decorator.
    Tasks run in greenlets, those declared process=True in task processes.

    The first SIGTERM lets calls in flight end (--drain-timeout), a second one stops at once. SIGHUP loads the code
    anew, SIGTTIN and SIGTTOU make it one task process more or fewer, SIGUSR1 opens the log file anew.
    Exit codes: 0 stopped by a signal, 1 could not start, 2 wrong usage, 130 Ctrl-C while it started.
    """
    take_signals()
    try:
        log_file = None if log_file is None else os.path.abspath(log_file)
        configure_logging(debug=debug, file=log_file, form=log_format)
        inherited = inherited_sockets()
        config = ServeConfig(
            apps=apps,
            listen=listen or (() if inherited else (DEFAULT_LISTEN,)),
            log_file=log_file,
            log_format=log_format,
            debug=debug,
            limits=_limits({name: options.pop(name) for name in _LIMITS}),
            **options,  # type: ignore[arg-type]
        )
        _refuse_idle_options(config, (address for _, address in inherited), reload=reload)
        master = Master(
            config,
            inherited,
            socket_mode=socket_mode,
            socket_owner=socket_owner,
            pid_file=pid_file,
            ready_file=ready_file,
            watch=(reload_dirs or (os.getcwd(),)) if reload else (),
            say=_say,
        )
        code = master.run()
    except FrontFailed as error:
        if error.trace:
            click.echo(error.trace.rstrip(), err=True)
        _fail(f"{error}: see the traceback above" if error.trace else str(error))
    except GreentaskError as error:
        _fail(str(error))
    for number in (signal.SIGTERM, signal.SIGINT):  # all is done: one that comes now changes nothing any more
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _say(text: str) -> None:
    try:
        click.echo(text)
    except OSError:  # nobody listens, which is no reason not to serve; nor is it one for a complaint at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> NoReturn:
    click.echo(f"greentask serve: {message}", err=True)
    sys.exit(1)
