"""``greentask call``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..tasks.remote import ProgressCallback
from .arguments import argument_options
from .connection import EXIT_CODES, Where, connected, server_options
from .times import Duration

__all__ = ["command"]


@click.command("call", epilog=EXIT_CODES)
@click.argument("name")
@argument_options
@click.option("--timeout", "-t", type=Duration(above=True), help="Seconds to wait at most.")
@click.option("--progress", is_flag=True, help="Show on stderr how far the task is.")
@server_options
def command(
    name: str,
    args: dict[str, Any] | list[Any],
    timeout: float | None,
    progress: bool,
    where: Where,
) -> None:
    """Run the task NAME on a server, and print its result as JSON.

    A VALUE is read as JSON where it is that (3, true, [1,2], "3"), and taken as text otherwise.
    """
    with connected(where) as client, _progress_bar(name, progress) as report:
        result = client.call_args(name, args, timeout=timeout, progress=report)
    click.echo(json.dumps(result, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


@contextmanager
def _progress_bar(name: str, wanted: bool) -> Iterator[ProgressCallback | None]:
    if not wanted:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        line = bar.add_task(name, total=None, note="")

        def report(progress: dict[str, Any]) -> None:
            bar.update(line, completed=progress.get("done"), total=progress.get("total"), note=progress.get("note", ""))

        yield report
