"""``greentask dump``."""

from __future__ import annotations

import click

from .master import Which, master_of, master_options

__all__ = ["command"]


@click.command("dump")
@master_options
def command(which: Which) -> None:
    """Show what all greenlets and task processes of a server on this machine are doing: their stacks.

    It harms nothing. Exit codes: 0 shown, 1 it could not be asked, 2 wrong usage, 3 no connection.
    """
    with master_of(which) as master:
        text = master.ask("dump")
    click.echo(text)
