"""``greentask stop``."""

from __future__ import annotations

import click

from .master import Which, master_of, master_options
from .times import Duration

__all__ = ["command"]


@click.command("stop")
@master_options
@click.option(
    "--drain-timeout",
    type=Duration(),
    help="Seconds that calls in flight have for ending.  [default: as the server was told]",
)
def command(which: Which, drain_timeout: float | None) -> None:
    """Let a server on this machine answer what is in flight, and end; wait for that.

    Exit codes: 0 it has ended, 1 it could not be told, 2 wrong usage, 3 no connection.
    """
    with master_of(which) as master:
        master.ask("stop", timeout=drain_timeout)
        master.wait_closed()
    click.echo("stopped")
