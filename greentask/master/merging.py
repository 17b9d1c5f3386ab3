"""One status of several fronts: arithmetic without I/O."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..server.groups import in_all

__all__ = ["merge", "merge_counts"]

_SUMS = ("connections", "in_flight", "memory")


def merge(fronts: list[dict[str, Any]], past: dict[str, Any] | None = None) -> dict[str, Any]:
    """What ``greentask.status`` answers for all fronts: their sums, and each of them under ``fronts``.

    ``past`` is what those have counted that are gone (``merge_counts``).
    """
    if not fronts:
        return {"fronts": []}
    past = past or {}
    status = {**fronts[0], **{name: sum(front.get(name) or 0 for front in fronts) for name in _SUMS}}
    detail = any("tasks_called" in front for front in fronts)
    status.update(merge_counts([past, *fronts]))
    if not detail:
        status.pop("tasks_called", None)
    for front in fronts:
        front.pop("tasks_called", None)
    for name in ("running", "task_processes", "busiest"):
        if any(name in front for front in fronts):
            status[name] = [{"front": front["front"], **one} for front in fronts for one in front.pop(name, ())]
    status["draining"] = all(front["draining"] for front in fronts)
    status.pop("front", None)
    status.update(_merged_groups([front["groups"] for front in fronts if "groups" in front]))
    status["fronts"] = fronts
    return status


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
