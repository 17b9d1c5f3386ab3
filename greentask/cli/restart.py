"""``greentask restart``."""

from __future__ import annotations

import click

from .master import Which, master_of, master_options

__all__ = ["command"]


@click.command("restart")
@click.argument("group", default="default")
@master_options
def command(group: str, which: Which) -> None:
    """Replace the task processes of a GROUP: a few at a time, each after its task and when its successor is ready.

    They are forked from the same template, with the code that it has imported: for new code use `greentask reload`.
    Exit codes: 0 it has begun, 1 there is no such group, 2 wrong usage, 3 no connection.
    """
    with master_of(which) as master:
        master.ask("restart", group=group)
    click.echo(f"the processes of {group} are replaced")
