"""``greentask status``."""

from __future__ import annotations

import json

import click

from .connection import Where, connected, server_options

__all__ = ["command"]


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def command(as_json: bool, where: Where) -> None:
    """Show what a server does: its calls, tasks, processes and connections.

    Exit codes: 0 it is there, 2 wrong usage, 3 no connection, 4 not proven who asks.
    """
    with connected(where) as client:
        status = client.call("greentask.status", detail=True)
    if as_json:
        click.echo(json.dumps(status, ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    from .showing import show

    Console().print(show(status))
