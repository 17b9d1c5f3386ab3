"""What the commands that tell a server's master something share: which one, and how it is reached."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..master.signs import read_pid
from .connection import PROOFS, Where, connected, server_options
from .given import refuse_idle

if TYPE_CHECKING:
    from ..master.channel import Channel

__all__ = ["Which", "master_of", "master_options"]


@dataclass(frozen=True)
class Which:
    """The master: by its process id, or by its server's address."""

    pid: int | None
    pid_file: str | None
    where: Where


def master_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--pid``, ``--pid-file`` and ``--server``, which the command gets as ``which``."""

    @server_options
    @click.option("--pid", type=click.IntRange(1), help="Its process id.")
    @click.option("--pid-file", type=click.Path(exists=True, dir_okay=False), help="Where its process id is.")
    @functools.wraps(command)
    def collected(*args: Any, pid: int | None, pid_file: str | None, where: Where, **options: Any) -> Any:
        if pid is not None:
            refuse_idle(("pid_file", "server", *PROOFS), "with --pid, which says already which one is meant")
        elif pid_file is not None:
            refuse_idle(("server", *PROOFS), "with --pid-file, which says already which one is meant")
        return command(*args, which=Which(pid, pid_file, where), **options)

    return collected


@contextmanager
def master_of(which: Which, failed: int = 1) -> Iterator[Channel]:
    """A channel to the master; where it can't do what it is told, the program ends with a line on stderr and 1, or what
    else it is to be.
    """
    from ..master.admin import connect
    from ..master.channel import ChannelError

    pid = which.pid
    if which.pid_file is not None:
        pid = read_pid(which.pid_file)
        if pid is None:
            raise click.BadParameter(f"there is no process id in {which.pid_file}", param_hint="--pid-file")
    if pid is None:
        with connected(which.where) as client:
            pid = client.call("greentask.status").get("master", {}).get("pid")
        if pid is None:
            raise click.BadParameter(f"{which.where.server} was not started by greentask serve", param_hint="--server")
    try:
        channel = connect(pid)
        try:
            yield channel
        finally:
            channel.close()
    except ChannelError as error:
        if error.trace:
            click.echo(error.trace.rstrip(), err=True)
        click.echo(f"greentask: {error}", err=True)
        sys.exit(failed)
