"""What is told of a pool, and of each of its processes, to whoever looks at it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from gevent.event import Event

from .memory import is_stopped, resident
from .process import Process

__all__ = ["PoolStats", "described", "look_at"]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A look at the pool.

    ``processes`` that are ready, ``busy`` ones of them, calls ``waiting`` for one, calls ``sent`` and not answered,
    processes ``lost`` (died, or were killed) and ``recycled`` (let go: by a limit, or by ``resize`` and ``restart``).
    """

    processes: int
    busy: int
    waiting: int
    sent: int
    lost: int
    recycled: int


def described(process: Process, now: float) -> dict[str, Any]:
    """One of its processes: see ``Processes.describe``."""
    told: dict[str, Any] = {"pid": process.pid, "memory": resident(process.pid), "done": process.done}
    if is_stopped(process.pid):
        told["state"] = "stopped"
    elif process.doom is not None or (process.retiring and not process.calls):
        told["state"] = "ending"
    elif not process.ready:
        told["state"] = "starting"
    else:
        told["state"] = "busy" if process.calls else "idle"
    if process.calls:
        told["task"], told["seconds"] = process.calls[0].name, round(now - process.heard, 3)
    return told


def look_at(processes: Collection[Process], nudge: Callable[[Process], object], within: float) -> dict[int, str | None]:
    """What each of them is doing: see ``Processes.look``. ``nudge`` has a busy one look at what it was sent."""
    told: dict[int, str | None] = {}
    left = Event()

    def hear(pid: int, text: str) -> None:
        told[pid] = text
        if all(told.values()):
            left.set()

    for process in processes:
        told[process.pid] = None
        process.look(partial(hear, process.pid))
        nudge(process)
    if processes:
        left.wait(within)
    return told
