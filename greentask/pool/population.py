"""The processes of a pool: how many there are, their births and their deaths.

State has one owner, the hub in which ``Population`` was made; nothing in here blocks but ``close``.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent.event import AsyncResult, Event

from ..errors import PoolBroken
from .child import NUDGE
from .link import TemplateLink
from .memory import resident
from .process import Process, ProcessEvents, close_now
from .setup import Setup

__all__ = ["Population", "PopulationEvents"]

logger = logging.getLogger(__name__)

# A process that dies before it is ready, or a template that dies, is started again after a pause that doubles.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_FAILURES_ARE_A_DEFECT = 8  # in a row: then callers are told, and no longer wait
_STACK_IS_TOLD_WITHIN = 0.5  # seconds after a template's time, for its own word of where it is
_EXIT_IS_TOLD_WITHIN = 0.5  # seconds between a socket's end and the template's word that the process is gone
_HEALTHY_AFTER = 1.0  # seconds that a process must live, or one call that it must answer
_SUCCESSORS_OF = 8  # processes that are replaced: one of so many at a time
_MEMORY_EVERY = 0.1  # seconds between looks at the memory of the processes


class PopulationEvents(ProcessEvents, Protocol):
    """What a population tells its pool, besides what its processes say."""

    def process_leaves(self, process: Process) -> None:
        """It gets no more calls."""

    def process_died(self, process: Process, how: str) -> None:
        """It is gone, with the calls that it has left unanswered."""

    def nothing_can_run(self, why: str) -> None:
        """No process can be started for now."""


class Population:
    """Keeps ``size`` processes alive, from ``begin`` to ``close``.

    ``members`` are those that live, by slot. One that is ``retiring`` ends after its calls, and counts no more.
    """

    def __init__(self, loop: Any, setup: Setup, size: int, pool: PopulationEvents, max_memory: int | None) -> None:
        self.size = size
        self.members: dict[int, Process] = {}
        self.lost = self.recycled = 0
        self.broken: str | None = None  # why nothing can run for now
        self.whole: AsyncResult[None] = AsyncResult()  # every process was ready once, or why that can't be
        self._loop = loop
        self._setup = setup
        self._pool = pool
        self._max_memory = max_memory
        self._link: TemplateLink | None = None
        self._template_ready = False
        self._late: Any = None  # the timer of a template that is importing
        self._slots = itertools.count()
        self._asked_for: set[int] = set()  # slots whose processes the template is forking
        self._memory: Any = None  # the timer that looks at their memory
        self._leaving: set[int] = set()  # slots of processes that were let go, and have not exited yet
        self._all_left = Event()
        self._failures = 0  # starts in a row that came to nothing
        self._failed_at = 0.0  # when the last one did, on the monotonic clock
        self._is_too_large = False  # a process has more than max_memory from the start
        self._closed = False

    def begin(self) -> None:
        """Start the template, which starts the processes."""
        if self._link is None and not self._closed:
            self._link = TemplateLink(self._loop, self._setup, self)
            if self._setup.start:
                self._late = self._loop.timer(self._setup.start + _STACK_IS_TOLD_WITHIN, ref=False)
                self._late.start(self._give_template_up, update=True)
            if self._max_memory is not None and self._memory is None:
                self._memory = self._loop.timer(_MEMORY_EVERY, _MEMORY_EVERY, ref=False)
                self._memory.start(self._check_memory)

    def close(self, timeout: float) -> None:
        """End them all, whatever they run, and wait for that; those that run nothing may end in good order."""
        self._closed = True
        if not self.whole.ready():
            self.whole.set_exception(PoolBroken("the pool was closed while it started"))
        self._stop_waiting()
        if self._memory is not None:
            self._memory.stop()
            self._memory.close()
        members, self.members = self.members, {}
        for process in members.values():
            if process.ready and not process.calls:
                self._leaving.add(process.slot)
            elif self._link is not None:  # now, and not when the others have taken leave
                self._link.signal(process.pid, signal.SIGKILL, group=True)
            process.close()
        if self._link is not None and self._leaving and self._setup.farewell > 0:
            self._all_left.clear()
            self._all_left.wait(self._setup.farewell + _EXIT_IS_TOLD_WITHIN)
        if self._link is not None:
            self._link.end(timeout)
            self._link = None

    def abandon(self) -> None:
        """In a forked child: drop the inherited sockets, so that the processes see the end of their real owner."""
        if self._link is not None:
            self._link.abandon()
        for timer in (self._memory, self._late):
            if timer is not None:
                timer.stop()
        for process in self.members.values():
            process.abandon()

    # ---- How many there are

    def resize(self, size: int) -> None:
        """Have more or fewer of them. A busy one that is too many ends after its call."""
        self.size = size
        working = self._working()
        self._retire_some(working, len(working) - size)
        self.fill_up()

    def recycle(self) -> None:
        """Replace every process: each goes on until its successor is ready, and ends after its call."""
        for process in self.members.values():
            process.outdated = True
        self.fill_up()

    def replace(self, process: Process) -> None:
        """As ``recycle``, for one."""
        if not process.outdated:
            process.outdated = True
            self.fill_up()

    def retire(self, process: Process) -> None:
        """Give it no more calls; it ends when it has answered those that it has."""
        if process.retiring:
            return
        process.retiring = True
        self.recycled += 1
        self._pool.process_leaves(process)
        if len(process.calls) > 1 and not process.asked_back:
            process.ask_back()
            self.nudge(process)
        elif not process.calls and process.ready:
            self.end(process)

    def _working(self) -> list[Process]:
        return [process for process in self.members.values() if not process.retiring]

    def _retire_some(self, processes: list[Process], count: int) -> None:
        """Retire those that are missed the least: the outdated ones, those with the fewest calls."""
        for process in sorted(processes, key=lambda process: (not process.outdated, len(process.calls)))[
            : max(0, count)
        ]:
            self.retire(process)

    def end(self, process: Process) -> None:
        """Let it exit: it has nothing to do any more. Its exit is told later, and is no loss."""
        self.members.pop(process.slot, None)
        self._leaving.add(process.slot)
        process.close()

    def fill_up(self) -> None:
        """Ask for the processes that are missing."""
        if self._link is None or not self._template_ready or self._closed:
            return
        working = self._working()
        outdated = sum(process.outdated for process in working)
        successors = min(outdated, max(1, self.size // _SUCCESSORS_OF))
        for _ in range(self.size + successors - len(working) - len(self._asked_for)):
            slot = next(self._slots)
            self._asked_for.add(slot)
            self._link.fork(slot)

    def _check_memory(self) -> None:
        assert self._max_memory is not None
        for process in list(self.members.values()):
            if not process.ready or process.doom is not None:
                continue
            size = resident(process.pid)
            if size is None or size <= self._max_memory:
                continue
            if process.calls:
                self.kill(process, f"it had {size:,} bytes of memory, more than max_memory ({self._max_memory:,})")
            elif process.done:
                self.retire(process)
            elif not self._is_too_large:
                self._is_too_large = True
                self._break(
                    f"a task process has {size:,} bytes of memory before its first task, and max_memory is "
                    f"{self._max_memory:,}: raise it, or import less"
                )
        self.fill_up()

    def mend(self) -> None:
        """Do what a Ctrl-C may have taken the place of. Of no effect where it hasn't."""
        if self._link is not None:
            self._link.mend()
        if time.monotonic() - self._failed_at > 2 * _LONGEST_PAUSE:  # else what failed is tried again after its pause
            if self._link is not None:
                self.fill_up()
            elif not self._closed:
                self._restart()
        for process in list(self.members.values()):
            process.mend()
            if process.is_nudged:
                self._nudge_now(process)

    # ---- Signals

    def nudge(self, process: Process) -> None:
        """Make it look at its socket, for what was written just now."""
        # The frame is written at the end of this turn of the loop, and the signal must come after it.
        if not process.is_nudged:
            process.is_nudged = True
            self._loop.run_callback(self._nudge_now, process)

    def _nudge_now(self, process: Process) -> None:
        self._signal(process, NUDGE)
        if process.is_behind:  # the frame is still here, behind a large call that it now takes
            gevent.spawn(self._nudge_when_sent, process)
        else:
            process.is_nudged = False

    def _nudge_when_sent(self, process: Process) -> None:
        process.wait_until_sent()
        process.is_nudged = False
        self._signal(process, NUDGE)

    def _signal(self, process: Process, number: int) -> None:
        if self._link is not None:
            self._link.signal(process.pid, number)

    def kill(self, process: Process, why: str) -> None:
        """End it by SIGKILL, with all that it has forked."""
        process.doom = why
        process.retiring = True
        self._pool.process_leaves(process)
        if self._link is not None:
            self._link.signal(process.pid, signal.SIGKILL, group=True)

    # ---- What processes say

    def process_works(self, process: Process) -> None:
        """It has answered a call. One that is older than the last failure doesn't show that others can be started."""
        if self._failures and process.born > self._failed_at:
            self._failures = 0

    def process_ready(self, process: Process) -> bool:
        """It is; False where it is not needed any more."""
        if not self._is_too_large:
            self.broken = None
        if process.retiring:
            self.end(process)
            return False
        ready = [process for process in self._working() if process.ready]
        if len(ready) > self.size:
            self._retire_some(ready, len(ready) - self.size)
            self.fill_up()
        if not self.whole.ready() and sum(p.ready for p in self.members.values()) >= self.size:
            self.whole.set(None)
        return not process.retiring  # it became outdated while it got ready, say

    def process_unfit(self, trace: str) -> None:
        """One could not be made ready."""
        self._failures += 1
        trace = trace.rstrip()
        logger.warning("a task process can't be made ready: %s", trace.rpartition("\n")[2])
        self._break_unless_some_work(f"the task processes can't be made ready, for their initializer fails:\n{trace}")

    def process_lost(self, process: Process) -> None:
        """Its socket ended. The template says with which status it exited, unless the task only closed the socket."""
        self._pool.process_leaves(process)
        timer = self._loop.timer(_EXIT_IS_TOLD_WITHIN, _EXIT_IS_TOLD_WITHIN)

        def kill() -> None:
            if self.members.get(process.slot) is process:
                self.kill(process, "its socket was closed")
            timer.stop()
            timer.close()

        timer.start(kill)

    # ---- What the template says

    def template_ready(self) -> None:
        self._stop_waiting()
        self._template_ready = True
        self.fill_up()

    def template_failed(self, trace: str) -> None:
        self._stop_waiting()
        self._break(f"the task processes can't be started, for what they import fails:\n{trace.rstrip()}")

    def template_gone(self) -> None:
        """Every process is gone with it. Start again, from the beginning."""
        self._stop_waiting()
        self._has_left(*self._leaving)
        self._template_ready = False
        self._asked_for.clear()
        members = list(self.members.values())
        for process in members:
            process.retiring = True  # what one leaves must not be given to the next
            self._pool.process_leaves(process)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # it died with the template, and what it forked did not
        for process in members:
            process.read_rest()
            self._bury(process, None)
        if not self.whole.ready():
            self._break("the template of the task processes died while it started")
        if self._link is not None:  # last: where a Ctrl-C comes in between, we are told once more
            self._link.close()
            self._link = None
        if not self._closed:
            self._again(self._restart)

    def _give_template_up(self) -> None:
        """It imports for too long: nobody waits for that any more. It is started anew when it is gone."""
        self._stop_waiting()
        self._break(
            f"the task processes can't be started, for what they import did not load within {self._setup.start:g} s "
            "(start_timeout=, --start-timeout): its stack is on stderr"
        )
        if self._link is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._link.pid, signal.SIGKILL)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.stop()
            self._late.close()
            self._late = None

    def process_started(self, slot: int, pid: int, fd: int) -> None:
        if self._closed or slot not in self._asked_for:
            close_now(fd)  # it sees the end, and exits
            return
        self._asked_for.discard(slot)
        self.members[slot] = Process(self._loop, slot, pid, fd, self._pool)

    def process_exited(self, slot: int, pid: int, status: int) -> None:
        self._has_left(slot)
        if self._closed:
            return
        process = self.members.get(slot)
        if process is None and slot not in self._asked_for:
            return  # one that was let go
        self._asked_for.discard(slot)
        if process is not None:
            process.retiring = True  # its last answer must not bring it another call
            process.read_rest()
            if slot not in self.members:  # its last answer has let it go; but it has died
                self.members[slot] = process
                self._has_left(slot)
            is_late = self._is_late(process)
            if is_late:
                process.doom = f"it was not ready within {self._setup.start:g} s"
            was_healthy = process.ready and (process.has_worked or time.monotonic() - process.born >= _HEALTHY_AFTER)
            self._bury(process, status)
            if is_late:
                self._break_unless_some_work(
                    "the task processes can't be made ready, for their initializer, or what their tasks need, took "
                    f"longer than {self._setup.start:g} s (start_timeout=, --start-timeout): its stack is on stderr"
                )
            if was_healthy:
                self._failures = 0
                self.fill_up()
                return
        self._again(self.fill_up)

    def _is_late(self, process: Process) -> bool:
        """Whether it has given itself up. It began a little before we heard of it."""
        return not process.ready and 0 < self._setup.start * 0.9 < time.monotonic() - process.born

    def _has_left(self, *slots: int) -> None:
        self._leaving.difference_update(slots)
        if not self._leaving:
            self._all_left.set()

    def _bury(self, process: Process, status: int | None) -> None:
        self._pool.process_leaves(process)
        process.close()
        how = _say(status) + (f", for {process.doom}" if process.doom else "")
        logger.warning("task process %d %s", process.pid, how)
        self._pool.process_died(process, how)
        self.members.pop(process.slot, None)  # last: where a Ctrl-C comes in between, it dies once more
        self.lost += 1

    def _break(self, why: str) -> None:
        """Nothing can run for now: tell whoever waits, and whoever comes before a process is ready again."""
        self.broken = why
        if not self.whole.ready():
            self.whole.set_exception(PoolBroken(why))
        self._pool.nothing_can_run(why)

    def _break_unless_some_work(self, why: str) -> None:
        """No further process can be started: that is the callers' matter when there is none left that works."""
        if not self.whole.ready() or not any(process.ready for process in self._working()):
            self._break(why)

    def _restart(self) -> None:
        if self._link is None:
            try:
                self.begin()
            except OSError:  # out of descriptors, processes or memory
                self._again(self._restart)

    def _again(self, what: Callable[[], None]) -> None:
        """Do it after a pause that doubles with every failure in a row."""
        timer = self._loop.timer(min(_FIRST_PAUSE * 2**self._failures, _LONGEST_PAUSE))
        self._failures = min(self._failures + 1, _FAILURES_ARE_A_DEFECT)
        self._failed_at = time.monotonic()
        if self._failures == _FAILURES_ARE_A_DEFECT and self.broken is None:
            self._break_unless_some_work(
                "the task processes can't be started: they die at once (see what they wrote to stderr)"
            )

        def act() -> None:
            timer.close()
            if not self._closed:
                what()

        timer.start(act)


def _say(status: int | None) -> str:
    if status is None:
        return "died with the whole pool"
    if status < 0:
        try:
            return f"was killed by signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"exited with code {status}"
