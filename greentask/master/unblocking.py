"""Kills a front that has a queue's lock and gets nowhere: one that was stopped, or hangs, while it wrote.

Each master looks after its own fronts, also after a single one, for which nobody waits but those who enqueue. So no
master asks another one for anything, and none ends a process that it hasn't started: of such it says in the log who it
is, and what to do.

A front is killed when the lock has been held without anything being committed for the length of a lease, it is the
front that has it, and it is stopped, or answers nothing for another lease. One that answers is waiting for its disk,
which the next front would do as well: it is left alone. So is one that starts, and may have a file of an older version
to bring up to date: it has its --start-timeout. What the front ran is tried again, as after any death.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent.hub import get_hub

from ..queue.holders import TICK
from ..queue.stalls import Stalls, tell_of_holders
from .channel import ChannelError
from .fronts import Front

__all__ = ["unblock"]

logger = logging.getLogger(__name__)


def unblock(path: str, lease: float, fronts: Callable[[], list[Front]]) -> None:
    """Look after the queue at ``path`` for as long as the hub runs."""
    stalls = Stalls(path, time.monotonic)
    next_step = lease  # when a stall is looked into; again when it has lasted for twice as long
    while True:
        gevent.sleep(TICK)
        seconds = stalls.look()
        if seconds < lease:
            next_step = lease
        elif seconds >= next_step:
            next_step = 2 * seconds
            _look_into(stalls, path, lease, fronts())


def _look_into(stalls: Stalls, path: str, lease: float, fronts: list[Front]) -> None:
    """Find who has the lock, and do what can be done."""
    ours = {front.pid: front for front in fronts}
    pids = get_hub().threadpool.apply(stalls.holders, (list(ours),))
    if not pids:
        others = get_hub().threadpool.apply(stalls.holders)
        if others or stalls.is_held():
            tell_of_holders(path, lease, others)
    for pid in pids:
        front = ours[pid]
        if not (is_stopped := _is_stopped(pid)):
            if not front.is_ready:
                continue
            try:
                front.ask("ping", within=lease)
            except ChannelError:
                if not stalls.holders([pid]):  # it has come to itself
                    continue
            else:
                logger.warning(
                    "front %d (process %d) has had the lock of queue %r for more than %g s, and all who enqueue wait: "
                    "it answers, so it is left alone; is its disk slow?",
                    front.number,
                    pid,
                    path,
                    lease,
                )
                continue
        logger.error(
            "front %d (process %d) %s while it wrote to queue %r, for more than %g s, and all others wait for it: "
            "it is killed, and what it ran is tried again",
            front.number,
            pid,
            "was stopped" if is_stopped else "has answered nothing",
            path,
            lease,
        )
        front.kill()


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped that process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False
