"""How many processors there are for us."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator

__all__ = ["processors"]

#: By the kind of file system: the file that has the quota, and the one that has its period, if that is another.
_FILES = {"cgroup2": ("cpu.max", None), "cgroup": ("cpu.cfs_quota_us", "cpu.cfs_period_us")}


def processors(proc: str = "/proc/self") -> int:
    """How many of them this process may use: by its affinity, and by the quota of a container (its cgroups'), which is
    rounded up. ``proc`` is where the kernel tells of this process.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return max(1, min([count, *map(math.ceil, _quotas(proc))]))
    except ValueError:  # of a sandbox, whose /proc looks otherwise
        return count


def _quotas(proc: str) -> Iterator[float]:
    """Those of each cgroup that this process is in, and of those above it that can be seen: in processors."""
    for kind, folder, top in _cgroups(proc):
        while True:
            quota = _quota(folder, *_FILES[kind])
            if quota is not None:
                yield quota
            if folder == top:
                break
            folder = os.path.dirname(folder)


def _cgroups(proc: str) -> Iterator[tuple[str, str, str]]:
    """Of each that may have a quota the kind, its folder, and the topmost one that is mounted."""
    paths: dict[str, str] = {}
    for line in _lines(f"{proc}/cgroup"):  # 0::/a/b of the second version, 4:cpu,cpuacct:/a/b of the first
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            paths["cgroup"] = path
    for line in _lines(f"{proc}/mountinfo"):
        mount, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind not in paths or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        root, top = map(_unescape, mount.split(" ")[3:5])
        inside = os.path.relpath(
            paths[kind], root
        )  # without a namespace of its own a container sees its path from ours
        if not inside.startswith(".."):
            yield kind, os.path.normpath(os.path.join(top, inside)), os.path.normpath(top)


def _quota(folder: str, file: str, period_file: str | None) -> float | None:
    found = [*_lines(f"{folder}/{file}"), *(_lines(f"{folder}/{period_file}") if period_file else ())]
    try:
        quota, period = map(int, " ".join(found).split())
    except ValueError:  # "max", or there is no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
