"""``greentask queue list``, ``show`` and ``stats``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from .access import EXIT_CODES, NOTHING_DONE, Access, Where, accessed, fail, queue_options
from .filters import filter_options

__all__ = ["list_command", "show_command", "stats_command"]

_SHOWN = 20  # attempts of a task, the last ones
_PAGE = 500  # tasks that are asked for at once
_LATE = 10.0  # seconds past its moment after which a tick was missed: servers see it at once
_FIXED = 13 + 9 + 8 + 5 + 5 * 2  # columns that all but names and errors take up
_HIDDEN = frozenset({"args", "result", "errors", "error", "task"})


@click.command("list", epilog=EXIT_CODES)
@filter_options
@click.option(
    "--limit", type=click.IntRange(0), default=50, show_default=True, help="So many tasks at most; 0: all of them."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each task.")
@queue_options
def list_command(wanted: dict[str, Any], limit: int, as_json: bool, queue: Where) -> None:
    """List tasks, the oldest first: all that are known, or those that fit (`--state failed`: dead letters)."""
    with accessed(queue, to_read=True) as access:
        found = _found(access, wanted, limit)
        if as_json:
            count = 0
            for count, task in enumerate(found, 1):  # noqa: B007
                click.echo(json.dumps(task, ensure_ascii=False))
        else:
            tasks = list(found)
            count = len(tasks)
            _print_list(tasks, limit)
        if count == 0:
            access.mind_name(wanted)


def _found(access: Access, wanted: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """The tasks that fit, asked for as they are taken."""
    after, left = None, limit or float("inf")
    while left > 0:
        part = access.look("list", **wanted, after=after, limit=int(min(left, _PAGE)))
        yield from part["tasks"]
        left -= len(part["tasks"])
        after = part["next"]
        if after is None:
            return


def _print_list(tasks: list[dict[str, Any]], limit: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..showing import clean

    console = Console()
    room = max(24, console.width - _FIXED)
    longest = max((len(task["name"]) for task in tasks), default=4)
    names = min(max(4, longest), room // 2)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, width in (("id", 13), ("task", names), ("state", 9), ("age", 8), ("tries", 5)):
        is_number = title in ("age", "tries")
        table.add_column(title, width=width, overflow="fold", justify="right" if is_number else "left")
    table.add_column("last error", width=room - names, no_wrap=True, overflow="ellipsis")
    for task in tasks:
        error = task.get("error")
        told = "" if error is None else f"{error['type']}: {error['message']}"
        age, tries = _age(time.time() - task["enqueued"]), str(task["attempts"] or "")
        table.add_row(task["task"], clean(task["name"]), task["state"], age, tries, clean(told[:500]))
    console.print(table)
    if limit and len(tasks) == limit:
        click.echo(f"the oldest {limit}; for more of them: --limit, for the newest: --younger 10m", err=True)


@click.command("show", epilog=EXIT_CODES)
@click.argument("task")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@queue_options
def show_command(task: str, as_json: bool, queue: Where) -> None:
    """Show all that is known of a TASK: its arguments, every attempt's error with its traceback, its result."""
    with accessed(queue, to_read=True) as access:
        found = access.look("show", task=task)
    if found is None:
        fail(NOTHING_DONE, f"the queue knows no task {task!r}, or not any more")
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        _print_task(found)


def _print_task(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..showing import clean

    console, table = Console(), Table(box=None, show_header=False, pad_edge=False)
    table.add_row("id", found["task"])
    for name, value in found.items():
        if name in _HIDDEN or value is None:
            continue
        if name in ("enqueued", "ended"):
            value = _moment(value)
        elif name in ("due_in", "expires_in"):
            value = _age(value)
        elif name == "progress":
            value = f"{value['done'] + value['failed']:,} of {value['total']:,} have ended, {value['failed']:,} failed"
        table.add_row(name.replace("_", " "), clean(value))
    console.print(table)
    for part in ("args", "result"):
        if part in found:
            console.print()
            console.print(f"{part}:", style="bold")
            _print_lines(json.dumps(found[part], ensure_ascii=False, indent=2))
    errors = found["errors"]
    if len(errors) > _SHOWN:
        click.echo(f"\n{len(errors) - _SHOWN:,} earlier attempts are left out: --json has them")
    for error in errors[-_SHOWN:]:
        console.print()
        head = clean(f"attempt {error['attempt']}, {_moment(error['at'])}: {error.get('type')}: {error.get('message')}")
        head.stylize("bold")
        console.print(head)
        if error.get("traceback"):
            _print_lines(str(error["traceback"]).rstrip())


def _print_lines(text: str) -> None:
    """As they are, for they may be pasted somewhere; without anything that a terminal would obey."""
    from ..showing import clean

    for line in text.splitlines():
        click.echo(f"  {clean(line)}")


@click.command("stats", epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@queue_options
def stats_command(as_json: bool, queue: Where) -> None:
    """Show how many tasks wait, run and have failed, of which name, what is paused, and how large the file is."""
    with accessed(queue, to_read=True) as access:
        stats = access.look("stats")
    if as_json:
        click.echo(json.dumps(stats, ensure_ascii=False, indent=2))
    else:
        _print_stats(stats)


def _print_stats(stats: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..showing import clean

    head = Table(box=None, show_header=False, pad_edge=False)
    waits = "" if stats["oldest"] is None else f", the oldest for {_age(stats['oldest'])}"
    head.add_row("waiting", f"{stats['waiting']:,}{waits}")
    for name in ("scheduled", "blocked", "running", "failed", "ended"):
        head.add_row(name, f"{stats[name]:,}")
    if stats["paused"]:
        head.add_row("paused", "the whole queue")
    if stats["paused_tasks"]:
        head.add_row("paused tasks", clean(", ".join(stats["paused_tasks"])))
    if stats.get("served") is False:
        head.add_row("servers", "none")
    elif stats["not_offered"]:
        head.add_row("no server has", clean(", ".join(stats["not_offered"])))
    head.add_row("file", f"{stats['bytes'] / 1e6:,.1f} MB, of which {stats['free_bytes'] / 1e6:,.1f} MB are free")
    console = Console()
    console.print(head)
    if stats["tasks"]:
        table = Table("task", "waiting", "running", "failed", box=None, header_style="bold", pad_edge=False)
        table.columns[0].overflow = "fold"
        for column in table.columns[1:]:
            column.justify, column.no_wrap = "right", True
        for name, counts in sorted(stats["tasks"].items()):
            table.add_row(clean(name), *(f"{counts.get(state, 0):,}" for state in ("waiting", "running", "failed")))
        console.print()
        console.print(table)
    if stats["next_ticks"]:
        table = Table("runs by itself", "next in", box=None, header_style="bold", pad_edge=False)
        table.columns[0].overflow = "fold"
        table.columns[1].justify, table.columns[1].no_wrap = "right", True
        for name, seconds in sorted(stats["next_ticks"].items(), key=lambda one: one[1]):
            is_missed = seconds < -_LATE  # no server has it that runs, or it is no longer in the code
            table.add_row(clean(name), f"not run for {_age(-seconds)}" if is_missed else _age(seconds))
        console.print()
        console.print(table)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def _age(seconds: float) -> str:
    """In the largest unit that makes sense."""
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
