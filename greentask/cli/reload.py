"""``greentask reload``."""

from __future__ import annotations

import click

from .master import Which, master_of, master_options

__all__ = ["command"]


@click.command("reload")
@master_options
def command(which: Which) -> None:
    """Let a server on this machine load its code anew, without refusing or losing a call.

    It returns once the new code serves; calls that were in flight end in the old one. Exit codes: 0 reloaded, 1 not
    (the new code can't be imported, say, and the old one goes on), 2 wrong usage, 3 no connection.
    """
    with master_of(which) as master:
        done = master.ask("reload")
    click.echo(f"reloaded: {done['fronts']} front{'s' * (done['fronts'] != 1)} with the new code")
