"""``greentask outbox``: a relay in a process of its own."""

from __future__ import annotations

import sys
import threading

import click

from ..contrib.outbox.database import DatabaseLost, database_at
from ..contrib.outbox.relay import DEFAULT_BATCH, DEFAULT_KEEP, Relay, end_on_signals
from ..contrib.outbox.table import TABLE, check_name
from ..errors import ConfigurationError
from ..master.logs import configure_logging
from .connection import Where, connected, server_options
from .queue.access import FILE_UNUSABLE, fail
from .times import Seconds

__all__ = ["command"]

_NO_DATABASE = 3
_EXIT_CODES = """\b
Exit codes:
  0  told to end, or all is sent (--once)
  2  wrong usage
  3  no connection to the server or the database (--once; otherwise it is waited for)
  4  the server has no queue, or refuses all (--once)
  7  there is no such file or table, or it can't be used
"""


@click.command("outbox", epilog=_EXIT_CODES)
@click.argument("database", envvar="GREENTASK_OUTBOX", metavar="DATABASE")
@click.option("--table", default=TABLE, show_default=True, metavar="NAME", help="The table.")
@click.option("--create", is_flag=True, help="Make the table where there is none.")
@click.option("--once", is_flag=True, help="End when all that is there is sent.")
@click.option(
    "--batch", type=click.IntRange(1), default=DEFAULT_BATCH, show_default=True, help="Rows on their way at once."
)
@click.option(
    "--keep",
    type=Seconds(may_be_0=False),
    default=DEFAULT_KEEP,
    metavar="TIME",
    help="For how long a row that is refused is sent again, before it is forgotten.  [default: 30d]",
)
@server_options
def command(database: str, table: str, create: bool, once: bool, batch: int, keep: float, where: Where) -> None:
    """Hand the tasks that were enqueued in transactions of a DATABASE to a server with a queue.

    DATABASE is postgresql://USER@HOST/NAME, or the path of an SQLite file.  [env: GREENTASK_OUTBOX]

    Any number may run at once. Ctrl-C or SIGTERM: end when what is on its way has arrived.
    """
    try:
        check_name(table)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--table") from None
    configure_logging(debug=False)
    stop = threading.Event()
    with connected(where) as client:
        try:
            source = database_at(database, table)
            relay = Relay(source, client, table=table, batch=batch, keep=keep, stop=stop)
            if create:
                source.create()
            end_on_signals(stop)
            click.echo(f"greentask outbox relays {table} of {source} to {where.server}")
            sys.stdout.flush()
            relay.run(drain=once)
        except DatabaseLost as error:
            fail(_NO_DATABASE, str(error))
        except ConfigurationError as error:
            fail(FILE_UNUSABLE, str(error))
    click.echo(f"{relay.sent} task{'s' * (relay.sent != 1)} enqueued")
