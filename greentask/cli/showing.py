"""How a server's status is shown in a terminal: tables that no name or argument in them can break out of."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..runner.statistics import percentile

__all__ = ["show", "show_unanswered"]

_MOST_ROWS = 15


def clean(value: object) -> Text:
    """As text, without anything that a terminal would obey."""
    text = "" if value is None else str(value)
    return Text("".join(char if char.isprintable() else ascii(char)[1:-1] for char in text))


def show(status: dict[str, Any], before: dict[str, Any] | None = None, seconds: float = 0.0) -> Group:
    """Everything that there is in a detailed status; with rates and latencies since the one ``before`` it, if any."""
    parts: list[Any] = [_head(status, before, seconds), _tasks(status, before, seconds)]
    if status.get("running"):
        parts.append(_running(status["running"]))
    if status.get("fronts"):
        parts.append(_fronts(status["fronts"]))
    if status.get("task_processes"):
        parts.append(_processes(status["task_processes"]))
    if status.get("busiest"):
        parts.append(_connections(status["busiest"]))
    return Group(*parts)


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


def _tasks(status: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> Table:
    table = Table("task", "done", "else", "a second", "p50", "p90", "p99", title="Tasks", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    earlier = (before or {}).get("tasks_called", {})
    for name, task in status.get("tasks_called", {}).items():
        counts, outcomes = task["histogram"], task["outcomes"]
        rate = ""
        if name in earlier and seconds > 0:
            recent = [max(0, now - then) for now, then in zip(counts, earlier[name]["histogram"])]
            rate = f"{sum(recent) / seconds:,.1f}"
            counts = recent if any(recent) else counts
        others = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()) if outcome != "done")
        latencies = [_seconds(percentile(counts, part)) for part in (0.5, 0.9, 0.99)]
        table.add_row(clean(name), f"{outcomes.get('done', 0):,}", others, rate, *latencies)
    return table


def _running(running: list[dict[str, Any]]) -> Table:
    table = Table("task", "for", "id", "of", "runs in", "arguments", title="Running, the oldest", title_justify="left")
    for call in sorted(running, key=lambda call: call["seconds"], reverse=True)[:_MOST_ROWS]:
        where = "a greenlet" if call["group"] is None else call["group"]
        table.add_row(
            clean(call["task"]),
            _time(call["seconds"]),
            clean(call["id"]),
            clean(call["peer"]),
            clean(where),
            clean(call.get("args", "")),
        )
    return table


def _fronts(fronts: list[dict[str, Any]]) -> Table:
    table = Table("pid", "front", "state", "for", "connections", "in flight", "memory", title="Fronts")
    table.title_justify = "left"
    for one in fronts[: 2 * _MOST_ROWS]:
        state = "draining" if one["draining"] else "serves"
        counts = (f"{one[name]:,}" for name in ("connections", "in_flight"))
        row = [str(one["pid"]), str(one["front"]), state, _time(one["uptime"]), *counts, _memory(one.get("memory"))]
        table.add_row(*map(clean, row))
    return table


def _processes(processes: list[dict[str, Any]]) -> Table:
    table = Table(
        "pid", "group", "state", "runs", "for", "done", "memory", title="Task processes", title_justify="left"
    )
    for one in processes[: 2 * _MOST_ROWS]:
        memory = _memory(one["memory"])
        since = _time(one["seconds"]) if "seconds" in one else ""
        row = [str(one["pid"]), one["group"], one["state"], one.get("task", ""), since, f"{one['done']:,}", memory]
        table.add_row(*map(clean, row))
    return table


def _connections(connections: list[dict[str, Any]]) -> Table:
    table = Table("of", "in flight", "unsent", "read", "written", title="Busiest connections", title_justify="left")
    for one in connections[:_MOST_ROWS]:
        numbers = (f"{one[name]:,}" for name in ("in_flight", "unsent", "read", "written"))
        table.add_row(clean(one["peer"]), *numbers)
    return table


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
