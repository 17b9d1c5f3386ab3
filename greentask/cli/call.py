"""``greentask call``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..tasks.remote import ProgressCallback
from .connection import EXIT_CODES, Where, connected, server_options

__all__ = ["command"]


@click.command("call", epilog=EXIT_CODES)
@click.argument("name")
@click.argument("arguments", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--json", "as_json", metavar="JSON", help="All arguments: an object, or an array for positional ones.")
@click.option("--stdin", is_flag=True, help="Read such JSON from standard input.")
@click.option("--timeout", "-t", type=click.FloatRange(0, min_open=True), help="Seconds to wait at most.")
@click.option("--progress", is_flag=True, help="Show on stderr how far the task is.")
@server_options
def command(
    name: str,
    arguments: tuple[str, ...],
    as_json: str | None,
    stdin: bool,
    timeout: float | None,
    progress: bool,
    where: Where,
) -> None:
    """Run the task NAME on a server, and print its result as JSON.

    A VALUE is read as JSON where it is that (3, true, [1,2], "3"), and taken as text otherwise.
    """
    args = _arguments(arguments, as_json, stdin)
    with connected(where) as client, _progress_bar(name, progress) as report:
        result = client.call_args(name, args, timeout=timeout, progress=report)
    click.echo(json.dumps(result, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def _arguments(arguments: tuple[str, ...], as_json: str | None, stdin: bool) -> dict[str, Any] | list[Any]:
    if (as_json is not None) + stdin + bool(arguments) > 1:
        raise click.UsageError("give the arguments in one way: KEY=VALUE, --json or --stdin")
    if stdin:
        as_json = sys.stdin.read()
    if as_json is not None:
        try:
            args = json.loads(as_json)
        except ValueError as error:
            raise click.UsageError(f"the arguments are not JSON: {error}") from None
        if not isinstance(args, (dict, list)):
            raise click.UsageError("the arguments must be a JSON object (by name) or array (by position)")
        return args
    named: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{argument!r} is no KEY=VALUE; for positional arguments use --json '[…]'")
        if key in named:
            raise click.UsageError(f"{key!r} is given twice")
        named[key] = _value(value)
    return named


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


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
