"""``greentask enqueue``."""

from __future__ import annotations

from typing import Any

import click

from ..queue.interface import Message
from ..wire.enqueue import MOST_PRIORITY, MOST_RETRIES, Enqueue
from ..wire.json import dumps
from .arguments import argument_options
from .connection import PROOFS, Where, connected, server_options
from .given import is_given, refuse_idle
from .queue.access import FILE_UNUSABLE, close_names, told_of_files
from .times import Duration, Moment, Seconds

__all__ = ["command"]

_EXIT_CODES = f"""\b
Exit codes:
  0  it is on disk, and its id is on stdout
  2  wrong usage
  3  no connection, or it was lost: it may have been kept (with --key it is safe to repeat)
  4  refused (unknown task, wrong arguments, no queue, its disk full)
  5  out of time: it may have been kept
  {FILE_UNUSABLE}  the file can't be used (--queue)
"""


@click.command("enqueue", epilog=_EXIT_CODES)
@click.argument("name")
@argument_options
@click.option("--delay", type=Seconds(), metavar="TIME", help="Not before so long from now: 90s, 10m, 2h, 3d.")
@click.option("--at", type=Moment(), metavar="MOMENT", help="Not before then: 2026-12-24T08:00+01:00, or a Unix time.")
@click.option("--priority", type=click.IntRange(-MOST_PRIORITY, MOST_PRIORITY), help="Higher ones go first.")
@click.option("--key", help="While a task with this key is known, print that one, and keep no second one.")
@click.option(
    "--key-ttl", type=Seconds(), metavar="TIME", help="For how long the key holds when its task is forgotten."
)
@click.option("--singleton", metavar="KEY", help="While one of that name with this KEY waits or runs, print that one.")
@click.option("--retries", type=click.IntRange(0, MOST_RETRIES), help="In place of what the task says.")
@click.option("--ttl", type=Seconds(), metavar="TIME", help="It must have begun within that time.")
@click.option("--timeout", "-t", type=Duration(above=True), help="Seconds to wait at most, for the id.")
@click.option(
    "--queue",
    "-q",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Put it straight into this file. Its arguments are looked at when it runs; what the code says of its "
    "priority, ttl and singleton is not known here.",
)
@server_options
def command(
    name: str,
    args: dict[str, Any] | list[Any],
    timeout: float | None,
    file: str | None,
    where: Where,
    **options: Any,
) -> None:
    """Have a server keep the task NAME, and run it later; print its id, for `greentask queue show`.

    A VALUE is read as JSON where it is that (3, true, [1,2], "3"), and taken as text otherwise.
    """
    if options["key_ttl"] is not None and options["key"] is None:
        raise click.UsageError("--key-ttl is for how long a key holds: it goes with --key")
    try:
        durable = Enqueue(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if file is not None:
        if is_given(click.get_current_context(), "server"):
            raise click.UsageError("--queue is a file, and --server the server that has one: give one of them")
        refuse_idle(("timeout", *PROOFS), "with --queue FILE, for no server is asked")
        click.echo(_put(file, name, args, durable))
        return
    given = {member: value for member, value in options.items() if value is not None}
    with connected(where) as client:
        click.echo(client.using(timeout=timeout, **given).enqueue_args(name, args).id)


def _put(path: str, name: str, args: dict[str, Any] | list[Any], durable: Enqueue) -> str:
    from ..queue.byhand import QueueFile

    with told_of_files(), QueueFile(path) as file:
        if close := close_names(file, name):
            click.echo(f"greentask: mind that no task {name!r} has been enqueued here yet{close}", err=True)
        return file.enqueue(
            Message(
                name,
                dumps({"args": args}),
                durable.priority or 0,
                durable.delay or 0.0,
                durable.at,
                durable.key,
                durable.retries,
                durable.ttl,
                durable.key_ttl,
                durable.singleton,
            )
        )
