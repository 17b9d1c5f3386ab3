"""How ``greentask queue`` reaches a queue: its file, where that is here, or else a server that is asked."""

from __future__ import annotations

import difflib
import functools
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ...errors import ConfigurationError, QueueError
from ...queue.byhand import QueueFile
from ..connection import NO_CONNECTION, NOT_RUN, PROOFS, connected
from ..given import is_given, refuse_idle
from ..master import Which, master_of, master_options

if TYPE_CHECKING:
    from ...client import Client

__all__ = [
    "EXIT_CODES",
    "FILE_UNUSABLE",
    "NOTHING_DONE",
    "Access",
    "accessed",
    "close_names",
    "fail",
    "located",
    "queue_options",
    "told_of_files",
]

NOTHING_DONE, FILE_UNUSABLE = 1, 7

EXIT_CODES = """\b
Exit codes:
  0  done
  1  there is no such task, or it is in another state: nothing was changed
  2  wrong usage
  3  no connection
  4  refused by the server, or not to be done from another machine
  7  the file can't be used: missing, damaged, foreign, not ours, its disk full
"""

_ELSEWHERE = "this needs the queue's file: do it on the server's machine, or name it with --queue FILE"
_SLACK = 60.0  # seconds that may pass between two questions to one server


class Access:
    """A queue, by its ``file`` or through a server's ``client``."""

    def __init__(self, file: QueueFile | None, client: Client | None) -> None:
        self._file = file
        self._client = client

    @property
    def file(self) -> QueueFile:
        """Its file; where that is not here, the program ends with a line on stderr."""
        if self._file is None:
            fail(NOT_RUN, _ELSEWHERE)
        return self._file

    def mind_name(self, wanted: dict[str, Any]) -> None:
        """Where nothing fits a filter: whether its name is one that nobody has heard of, with those that are close."""
        name = wanted.get("name")
        if name is not None and self._file is not None and (close := close_names(self._file, name)) is not None:
            click.echo(f"greentask: no task {name!r} has been enqueued here yet{close}", err=True)

    def look(self, what: str, **asked: Any) -> Any:
        """``stats``, ``list`` or ``show``: what is known."""
        if self._file is not None:
            return self._file.look(what, **asked)
        assert self._client is not None
        if "after" in asked:
            asked["task"] = asked.pop("after")
        return self._client.call(
            "greentask.queue", action=what, **{name: value for name, value in asked.items() if value is not None}
        )

    def change(self, action: str, tasks: list[str]) -> list[str]:
        """Retry, purge or revoke these tasks; those of which that made sense."""
        if self._file is not None:
            return self._file.change(action, tasks)
        assert self._client is not None
        if action in ("revoke", "revoke_running"):
            more = {"running": True} if action == "revoke_running" else {}
            return [task for task in tasks if self._client.call("greentask.revoke", task=task, **more)]
        return [task for task in tasks if self._client.call("greentask.queue", action=action, task=task)]


@dataclass(frozen=True)
class Where:
    """The queue: its file, or the server that has it."""

    file: str | None
    which: Which


def queue_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--queue``, ``--server`` and what goes with it, which the command gets as ``queue``."""

    @master_options
    @click.option(
        "--queue",
        "-q",
        "file",
        envvar="GREENTASK_QUEUE",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="The queue's file, whether a server has it or not.  [env: GREENTASK_QUEUE, where no server is named]",
    )
    @functools.wraps(command)
    def collected(*args: Any, file: str | None, which: Which, **options: Any) -> Any:
        chosen = _chosen(file)
        if chosen is not None:
            refuse_idle(PROOFS, "with a file (--queue, GREENTASK_QUEUE), for no server is asked")
        return command(*args, queue=Where(chosen, which), **options)

    return collected


def _chosen(file: str | None) -> str | None:
    """The file, unless it is the environment's and a server is named on the command line. Both there are refused."""
    context = click.get_current_context()
    named = [name for name in ("server", "pid", "pid_file") if is_given(context, name)]
    if file is None or not named:
        return file
    if is_given(context, "file"):
        option = named[0].replace("_", "-")
        raise click.UsageError(f"--queue is a file, and --{option} the server that has one: give one of them")
    return None


@contextmanager
def accessed(queue: Where, *, to_read: bool = False) -> Iterator[Access]:
    """The queue; errors end the program with a line on stderr and the exit code that they mean."""
    with told_of_files(), _found(queue) as found:
        if isinstance(found, str):
            with QueueFile(found, to_read=to_read) as file:
                yield Access(file, None)
        else:
            yield Access(None, found)


@contextmanager
def located(queue: Where) -> Iterator[str]:
    """Its file's path, whatever is there; errors end the program as those of ``accessed`` do."""
    with told_of_files(), _found(queue) as found:
        if not isinstance(found, str):
            fail(NOT_RUN, _ELSEWHERE)
        yield os.path.abspath(found)


@contextmanager
def _found(queue: Where) -> Iterator[str | Client]:
    """The queue's file, or who is to be asked."""
    if queue.file is not None:
        yield queue.file
        return
    if queue.which.pid is not None or queue.which.pid_file is not None:
        with master_of(queue.which, NO_CONNECTION) as master:
            path = master.ask("queue")["file"]
    else:
        with connected(queue.which.where, hint="or name the queue's file: --queue FILE") as client:
            is_here, path = _find(client)
            if not is_here:
                yield client
                return
    if path is None:
        fail(NOT_RUN, "this server has no queue for durable tasks: start it with --queue FILE")
    yield path


def _find(client: Client) -> tuple[bool, str | None]:
    """Whether the server's master is one on this machine that we may ask, and where its queue's file is then."""
    from ...master.admin import connect
    from ...master.channel import ChannelError

    status = client.call("greentask.status")
    master = status.get("master", {})
    if "pid" not in master or "uptime" not in master:
        return False, None
    try:
        channel = connect(master["pid"])
    except ChannelError:
        return False, None
    try:
        told = channel.ask("queue", within=10.0)
    except ChannelError:
        return False, None
    finally:
        channel.close()
    # Another machine's master may have had the number that a master has here.
    is_same = told["listen"] == status["listen"] and 0 <= told["uptime"] - master["uptime"] + 0.1 < _SLACK
    return is_same, told["file"]


@contextmanager
def told_of_files() -> Iterator[None]:
    """While inside, a file that can't be used ends the program with a line on stderr."""
    try:
        yield
    except (ConfigurationError, QueueError) as error:
        fail(FILE_UNUSABLE, str(error))
    except sqlite3.Error as error:
        said, hint = str(error), ""
        if "full" in said or "I/O" in said:
            hint = ": is its disk full?"
        elif "malformed" in said or "not a database" in said:
            hint = ": it is damaged. Stop its servers, and save what can be read: greentask queue recover FILE NEWFILE"
        fail(FILE_UNUSABLE, f"the queue's file can't be used ({said}){hint}")
    except BrokenPipeError:
        raise  # whoever read has seen enough: that is click's to end quietly
    except OSError as error:
        fail(FILE_UNUSABLE, f"{error.filename}: {error.strerror}" if error.filename else str(error))


def close_names(file: QueueFile, name: str) -> str | None:
    """Nothing where a task of the queue has had that name; else the names that are close, as a question, or none."""
    if file.store.find_lane(name) is not None:
        return None
    names = [known for (known,) in file.store.db.execute("SELECT name FROM lane LIMIT 1000")]
    close = difflib.get_close_matches(name, names)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def fail(code: int, message: str) -> NoReturn:
    """End the program."""
    click.echo(f"greentask: {message}", err=True)
    sys.exit(code)
