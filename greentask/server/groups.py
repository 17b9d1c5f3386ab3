"""The groups of task processes: how each is sized and limited, and which tasks it runs."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gevent

from ..errors import ConfigurationError
from ..pool.processes import DEFAULT_GRACE, Processes
from ..tasks.middleware import Middleware
from ..tasks.processes import DEFAULT_START, DEFAULT_TEARDOWN, setup_for
from ..tasks.registry import Tasks
from ..tasks.task import DEFAULT_GROUP, Task

__all__ = ["Group", "ProcessGroups", "in_all", "parse_bytes", "parse_group"]

_BYTES = re.compile(r"(\d+)([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Group:
    """The size and the limits of a group of task processes.

    processes
        How many there are; None: one for each processor that it may use.
    max_memory
        Bytes of resident memory, what it shares with the others included. A process that has more is replaced; while
        it runs a task, it is killed.
    max_tasks
        A process is replaced after so many tasks.
    grace
        Seconds between asking a task to end and killing its process; None: as the server has it.
    """

    processes: int | None = None
    max_memory: int | None = None
    max_tasks: int | None = None
    grace: float | None = None

    def __post_init__(self) -> None:
        for name in ("processes", "max_memory", "max_tasks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} of a group is at least 1, not {value!r}")
        if self.grace is not None and not 0 <= self.grace < math.inf:
            raise ConfigurationError(f"grace of a group is in seconds, 0 or more, not {self.grace!r}")


class ProcessGroups(Mapping[str, Processes]):
    """The groups of a server, by name: those that its tasks name, and no others.

    Raises ``ConfigurationError`` where a task names a group that has no size, or nothing runs in one that has.
    """

    def __init__(
        self,
        tasks: Tasks,
        groups: Mapping[str, Group | int],
        *,
        grace: float = DEFAULT_GRACE,
        start: float = DEFAULT_START,
        teardown: float = DEFAULT_TEARDOWN,
        middleware: Iterable[Middleware | str] = (),
        debug: bool = False,
    ) -> None:
        middleware = list(middleware)
        used: dict[str, list[Task[..., Any]]] = {}
        for task in tasks:
            if task.group is not None:
                used.setdefault(task.group, []).append(task)
        _check(groups.keys(), used)
        self._pools: dict[str, Processes] = {}
        for name, its_tasks in used.items():
            group = groups.get(name, Group())
            group = Group(group) if isinstance(group, int) else group
            self._pools[name] = Processes(
                setup_for(its_tasks, debug=debug, group=name, middleware=middleware, start=start, teardown=teardown),
                group.processes,
                grace=grace if group.grace is None else group.grace,
                max_tasks=group.max_tasks,
                max_memory=group.max_memory,
            )

    def __getitem__(self, name: str) -> Processes:
        return self._pools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def find(self, name: str) -> Processes:
        """The group of that name. Raises ``ConfigurationError``, which lists those that there are."""
        if name not in self._pools:
            raise ConfigurationError(f"there is no group of processes {name!r} here{_instead(name, self._pools)}")
        return self._pools[name]

    def start(self) -> None:
        """Start them all at once, and wait until every process is ready.

        Raises ``PoolBroken`` where one can't import its tasks; then none is left.
        """
        try:
            for pool in self._pools.values():
                pool.begin()
            for pool in self._pools.values():
                pool.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes, whatever they run."""
        gevent.joinall([gevent.spawn(pool.close) for pool in self._pools.values()])

    def status(self) -> dict[str, dict[str, Any]]:
        """How each is."""
        told = {}
        for name, pool in self._pools.items():
            stats = pool.stats()
            told[name] = {
                "size": pool.size,
                "alive": stats.processes,
                "busy": stats.busy,
                "waiting": stats.waiting,
                "lost": stats.lost,
                "recycled": stats.recycled,
                "pids": pool.pids(),
            }
        return told


def in_all(groups: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The sums of what several groups' status says."""
    total: dict[str, Any] = {}
    for group in groups:
        total = {key: total[key] + value if total else value for key, value in group.items()}
    return total


def parse_group(text: str) -> tuple[str, Group]:
    """``NAME=N,max_memory=4G,max_tasks=1000,grace=5``, as the command line takes it. Raises ``ConfigurationError``."""
    first, *others = text.split(",")
    name, _, size = first.partition("=")
    if not (name and size):
        raise ConfigurationError(f"{text!r} is no group: write NAME=N, as in ml=2 or ml=2,max_memory=4G")
    options: dict[str, Any] = {"processes": _whole(size, "processes", text)}
    for option in others:
        key, _, value = option.partition("=")
        if key == "max_memory":
            options[key] = parse_bytes(value)
        elif key == "max_tasks":
            options[key] = _whole(value, key, text)
        elif key == "grace":
            try:
                options[key] = float(value)
            except ValueError:
                raise ConfigurationError(f"group {text!r}: grace is in seconds, not {value!r}") from None
        else:
            raise ConfigurationError(
                f"group {text!r} has no option {key!r}{_instead(key, ('max_memory', 'max_tasks', 'grace'))}"
            )
    return name, Group(**options)


def parse_bytes(text: str) -> int:
    """A number of bytes: ``4G``, ``512M``, ``1048576``. Raises ``ConfigurationError``."""
    found = _BYTES.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"{text!r} is no number of bytes: write 4G, 512M or 1048576")
    return int(found[1]) * _UNITS[found[2].upper()]


def _whole(text: str, what: str, group: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConfigurationError(f"group {group!r}: {what} is a whole number, not {text!r}")
    return int(text)


def _check(sized: Iterable[str], used: dict[str, list[Task[..., Any]]]) -> None:
    sized = {*sized}
    for name, tasks in used.items():
        if name != DEFAULT_GROUP and name not in sized:
            raise ConfigurationError(
                f"task {tasks[0].name!r} runs in the group of processes {name!r}, whose size nobody says: pass "
                f'--group {name}=2 (groups={{"{name}": 2}}){_instead(name, sized - used.keys() - {DEFAULT_GROUP})}'
            )
    for name in sized - used.keys() - {DEFAULT_GROUP}:
        raise ConfigurationError(f"no task runs in the group of processes {name!r}{_instead(name, used)}")


def _instead(name: str, known: Iterable[str]) -> str:
    """What was meant, or could have been."""
    known = [*known]
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there is {', '.join(sorted(known))}" if known else ""
