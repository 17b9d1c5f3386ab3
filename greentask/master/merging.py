"""One status of several fronts: arithmetic without I/O."""

from __future__ import annotations

from typing import Any

from ..server.groups import in_all

__all__ = ["merge"]

_SUMS = ("connections", "in_flight")


def merge(fronts: list[dict[str, Any]]) -> dict[str, Any]:
    """What ``greentask.status`` answers for all fronts: their sums, and each of them under ``fronts``."""
    if not fronts:
        return {"fronts": []}
    status = {**fronts[0], **{name: sum(front[name] for front in fronts) for name in _SUMS}}
    status["draining"] = all(front["draining"] for front in fronts)
    status.pop("front", None)
    status.update(_merged_groups([front["groups"] for front in fronts if "groups" in front]))
    status["fronts"] = fronts
    return status


def _merged_groups(each: list[dict[str, Any]]) -> dict[str, Any]:
    if not each:
        return {}
    groups = {name: in_all(groups[name] for groups in each if name in groups) for name in sorted(set().union(*each))}
    return {"groups": groups, "processes": in_all(groups.values())}
