"""One status of several fronts: arithmetic without I/O."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..server.groups import in_all

__all__ = ["counts_of", "merge", "merge_counts"]

_SUMS = ("connections", "in_flight", "memory")
_BY_TASK = ("tasks_called", "counted")


def merge(fronts: list[dict[str, Any]], past: dict[str, Any] | None = None) -> dict[str, Any]:
    """What ``greentask.status`` answers for all fronts: their sums, and each of them under ``fronts``.

    ``past`` is what those have counted that are gone (``merge_counts``).
    """
    if not fronts:
        return {"fronts": []}
    past = past or {}
    status = {**fronts[0], **{name: sum(front.get(name) or 0 for front in fronts) for name in _SUMS}}
    by_task = any("tasks_called" in front for front in fronts)
    status.update(merge_counts([past, *fronts]))
    for told in (*fronts, *(() if by_task else (status,))):
        for name in _BY_TASK:
            told.pop(name, None)
    if any("running_by_task" in front for front in fronts):
        status["running_by_task"] = added([front.pop("running_by_task", {}) for front in fronts])
    for name in ("running", "task_processes", "busiest"):
        if any(name in front for front in fronts):
            status[name] = [{"front": front["front"], **one} for front in fronts for one in front.pop(name, ())]
    status["draining"] = all(front["draining"] for front in fronts)
    status.pop("front", None)
    status.update(_merged_groups([front["groups"] for front in fronts if "groups" in front]))
    status["fronts"] = fronts
    return status


def counts_of(status: dict[str, Any]) -> dict[str, Any]:
    """What of a front's status is counted, and so outlives the front; nothing where not all of it was asked for."""
    if "tasks_called" not in status:
        return {}
    counts = {name: status[name] for name in ("calls", "refused", "queue", "loop", *_BY_TASK) if name in status}
    if "queue" in counts:
        counts["queue"] = {name: count for name, count in counts["queue"].items() if name != "running"}
    return counts


def added(each: list[Any]) -> Any:
    """The sum of numbers, or of what is in lists of one length, or under the keys of dicts. Else the last one.

    >>> added([{"a": 1, "b": [1, 2]}, {"b": [10, 20]}])
    {'a': 1, 'b': [11, 22]}
    """
    last = each[-1]
    if isinstance(last, dict):
        keys = dict.fromkeys(key for one in each for key in one)
        return {key: added([one[key] for one in each if key in one]) for key in keys}
    if isinstance(last, list):
        return [added(list(items)) for items in zip(*(one for one in each if len(one) == len(last)))]
    return sum(each)


def merge_counts(each: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums of what ``Server.counts`` gave, several times."""
    merged: dict[str, Any] = {}
    for name in ("calls", "refused", "queue"):
        counted: Counter[str] = Counter()
        for one in each:
            counted.update(one.get(name, {}))
        if counted or name != "queue":
            merged[name] = dict(counted)
    loops = [one["loop"] for one in each if "loop" in one]
    if loops:
        merged["loop"] = {
            "held": sum(one["held"] for one in loops),
            "longest": max(one["longest"] for one in loops),
        }
    merged["tasks_called"] = _merged_tasks([one.get("tasks_called", {}) for one in each])
    merged["counted"] = added([one.get("counted", {}) for one in each])
    return merged


def _merged_tasks(each: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for tasks in each:
        for name, task in tasks.items():
            known = merged.setdefault(name, {"outcomes": Counter(), "histogram": [0] * len(task["histogram"])})
            known["outcomes"].update(task["outcomes"])
            known["histogram"] = [one + other for one, other in zip(known["histogram"], task["histogram"])]
    return {name: {**task, "outcomes": dict(task["outcomes"])} for name, task in sorted(merged.items())}


def _merged_groups(each: list[dict[str, Any]]) -> dict[str, Any]:
    if not each:
        return {}
    groups = {name: in_all(groups[name] for groups in each if name in groups) for name in sorted(set().union(*each))}
    return {"groups": groups, "processes": in_all(groups.values())}
