"""``greentask tasks``."""

from __future__ import annotations

import json

import click

from .connection import Where, connected, server_options

__all__ = ["command"]


@click.command("tasks")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def command(as_json: bool, where: Where) -> None:
    """List what a server offers."""
    with connected(where) as client:
        tasks = client.call("greentask.tasks")
    if as_json:
        click.echo(json.dumps(tasks, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("task", "runs in", "limit", "what it does", box=None, header_style="bold")
    for task in tasks:
        group = task["process"]
        runs_in = f"a process of {group}" if isinstance(group, str) else "a process" if group else "a greenlet"
        limit = "" if task["timeout"] is None else f"{task['timeout']:g} s"
        table.add_row(Text(task["signature"]), runs_in, limit, Text(task["doc"]))
    Console().print(table)
