"""How a server's status is shown in a terminal: tables that no name or argument in them can break out of."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..runner.statistics import percentile

__all__ = ["show", "show_unanswered"]

_MOST_ROWS = 15
_BOXED, _BARE = 5, 2  # lines of a table beside its rows, with a box around it and without


def clean(value: object) -> Text:
    """As text, without anything that a terminal would obey."""
    text = "" if value is None else str(value)
    return Text("".join(char if char.isprintable() else ascii(char)[1:-1] for char in text))


@dataclass(frozen=True)
class _Part:
    """One of the tables: its rows, and how many of them are shown where there is room."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Any]]
    most: int
    right: bool = False  # all but the first column


def show(
    status: dict[str, Any], before: dict[str, Any] | None = None, seconds: float = 0.0, height: int | None = None
) -> Group:
    """Everything that there is in a detailed status; with rates and latencies since the one ``before`` it, if any.

    In so many lines (``height``), where that is given: of each table some rows, rather than all of the first ones.
    """
    head = _head(status, before, seconds)
    parts = [
        _tasks(status, before, seconds),
        _running(status.get("running") or []),
        _fronts(status.get("fronts") or []),
        _processes(status.get("task_processes") or []),
        _connections(status.get("busiest") or []),
    ]
    parts = [part for part in parts if part.rows] or parts[:1]
    wanted = [min(len(part.rows), part.most) for part in parts]
    folds = height is None  # or a row would take more lines than one
    left = sys.maxsize if height is None else height - head.row_count - 1  # one of its lines may be folded
    if sum(wanted) + _BOXED * len(parts) <= left:
        return Group(head, *(_table(part, rows, bare=False, folds=folds) for part, rows in zip(parts, wanted)))
    shares = share_out(left - _BARE * len(parts), wanted)
    return Group(head, *(_table(part, rows, bare=True, folds=folds) for part, rows in zip(parts, shares)))


def share_out(lines: int, wanted: list[int]) -> list[int]:
    """How many lines each gets of so many: as many as it wants, or as many as the others, and at least one.

    >>> share_out(10, [2, 50, 1, 9])
    [2, 4, 1, 3]
    """
    shares = [min(1, one) for one in wanted]
    left = lines - sum(shares)
    while left > 0 and shares != wanted:
        for number, one in enumerate(wanted):
            if left > 0 and shares[number] < one:
                shares[number] += 1
                left -= 1
    return shares


def _table(part: _Part, rows: int, *, bare: bool, folds: bool) -> Table:
    title = part.title if rows >= len(part.rows) else f"{part.title} ({rows} of {len(part.rows):,})"
    if bare:
        table = Table(box=None, title=title, title_justify="left", pad_edge=False)
    else:
        table = Table(title=title, title_justify="left")
    for number, column in enumerate(part.columns):
        table.add_column(
            column,
            justify="right" if part.right and number else "left",
            no_wrap=not folds and column != "arguments",  # which make room for all others
        )
    for row in part.rows[:rows]:
        cells = [clean(value) for value in row]
        for cell in cells:
            cell.no_wrap, cell.overflow = (None, None) if folds else (True, "ellipsis")
        table.add_row(*cells)
    return table


def show_unanswered(shown: Group, seconds: float, error: Exception) -> Group:
    """What was shown, and for how long nothing has come since, which the error says."""
    told = clean(f"no answer for {_time(seconds)}: {error}")
    told.stylize("bold red")
    return Group(told, shown)


def _head(status: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> Table:
    master = status.get("master", {})
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("greentask", clean(f"{status['version']}, Python {status['python']}, pid {master.get('pid', '')}"))
    table.add_row("listens on", clean(", ".join(status["listen"])))
    state = "draining" if status["draining"] else "serves"
    table.add_row(state, f"{_time(master.get('uptime', status['uptime']))}, {master.get('reloads', 0)} reloads")
    several = len(status.get("fronts", [None]))
    fronts = f"{several} front{'s' * (several != 1)}, {master.get('deaths', 0)} died"
    if status.get("silent"):
        fronts += f"; {len(status['silent'])} more didn't answer"
    loop = status.get("loop")
    if loop is not None:
        fronts += f"; the loop was held {loop['held']} times, {loop['longest']:g} s at most"
    table.add_row("fronts", fronts)
    table.add_row("connections", f"{status['connections']:,}")
    calls = status.get("calls", {})
    ended = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(calls.items())) or "none yet"
    table.add_row("calls", f"{status['in_flight']:,} in flight; ended: {ended}")
    if before is not None and seconds > 0:
        done = sum(calls.values()) - sum(before.get("calls", {}).values())
        table.add_row("", f"{max(0, done) / seconds:,.1f} a second")  # what a killed front counted is gone
    refused = {name: count for name, count in status.get("refused", {}).items() if count}
    if refused:
        table.add_row("sent away", ", ".join(f"{count:,} {name}" for name, count in sorted(refused.items())))
    for name, group in status.get("groups", {}).items():
        told = f"{group['alive']} of {group['size']} processes, {group['busy']} busy; {group['waiting']:,} calls wait; "
        table.add_row(clean(name), told + f"{group['lost']} died, {group['recycled']} replaced")
    return table


def _tasks(status: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> _Part:
    earlier = (before or {}).get("tasks_called", {})
    rows: list[tuple[int, list[Any]]] = []
    for name, task in status.get("tasks_called", {}).items():
        counts, outcomes = task["histogram"], task["outcomes"]
        rate, called = "", 0
        if name in earlier and seconds > 0:
            recent = [max(0, now - then) for now, then in zip(counts, earlier[name]["histogram"])]
            called = sum(recent)
            rate = f"{called / seconds:,.1f}"
            counts = recent if called else counts
        others = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()) if outcome != "done")
        latencies = [_seconds(percentile(counts, part)) for part in (0.5, 0.9, 0.99)]
        rows.append((called, [name, f"{outcomes.get('done', 0):,}", others, rate, *latencies]))
    rows.sort(key=lambda row: -row[0])  # what was called most since the last look, if there was one
    columns = ("task", "done", "else", "a second", "p50", "p90", "p99")
    return _Part("Tasks", columns, [row for _, row in rows], len(rows), right=True)


def _running(running: list[dict[str, Any]]) -> _Part:
    rows = [
        [
            call["task"],
            _time(call["seconds"]),
            call["id"],
            call["peer"],
            "a greenlet" if call["group"] is None else call["group"],
            call.get("args", ""),
        ]
        for call in sorted(running, key=lambda call: call["seconds"], reverse=True)
    ]
    return _Part("Running, the oldest", ("task", "for", "id", "of", "runs in", "arguments"), rows, _MOST_ROWS)


def _fronts(fronts: list[dict[str, Any]]) -> _Part:
    rows = [
        [
            one["pid"],
            one["front"],
            "draining" if one["draining"] else "serves",
            _time(one["uptime"]),
            f"{one['connections']:,}",
            f"{one['in_flight']:,}",
            _memory(one.get("memory")),
        ]
        for one in fronts
    ]
    return _Part("Fronts", ("pid", "front", "state", "for", "connections", "in flight", "memory"), rows, 2 * _MOST_ROWS)


def _processes(processes: list[dict[str, Any]]) -> _Part:
    rows = [
        [
            one["pid"],
            one["group"],
            one["state"],
            one.get("task", ""),
            _time(one["seconds"]) if "seconds" in one else "",
            f"{one['done']:,}",
            _memory(one["memory"]),
        ]
        for one in sorted(processes, key=lambda one: str(one["state"]) == "idle")  # which is the least of news
    ]
    columns = ("pid", "group", "state", "runs", "for", "done", "memory")
    return _Part("Task processes", columns, rows, 2 * _MOST_ROWS)


def _connections(connections: list[dict[str, Any]]) -> _Part:
    names = ("in_flight", "unsent", "read", "written")
    rows = [[one["peer"], *(f"{one[name]:,}" for name in names)] for one in connections]
    return _Part("Busiest connections", ("of", "in flight", "unsent", "read", "written"), rows, _MOST_ROWS)


def _memory(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1000:,.2g} ms" if value < 0.1 else f"{value * 1000:,.0f} ms"
