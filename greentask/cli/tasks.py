"""``greentask tasks``."""

from __future__ import annotations

import json

import click

from .connection import connected, server_option

__all__ = ["command"]


@click.command("tasks")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_option
def command(as_json: bool, server: str) -> None:
    """List what a server offers."""
    with connected(server) as client:
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
        where = f"a process of {group}" if isinstance(group, str) else "a process" if group else "a greenlet"
        limit = "" if task["timeout"] is None else f"{task['timeout']:g} s"
        table.add_row(Text(task["signature"]), where, limit, Text(task["doc"]))
    Console().print(table)
