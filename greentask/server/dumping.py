"""What all greenlets and task processes of a server are doing, as text."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import ref

from greenlet import greenlet

from .watchdog import task_of

if TYPE_CHECKING:
    from .server import Server

__all__ = ["dump", "remember_greenlets"]

_remembered: list[ref[greenlet]] = []


def remember_greenlets() -> None:
    """Keep in mind which greenlets there are, before ``gc.freeze``: after it nothing else knows of them."""
    _remembered[:] = map(ref, _known())


def _known() -> Iterator[greenlet]:
    for found in gc.get_objects():
        try:
            if isinstance(found, greenlet):
                yield found
        except ReferenceError:  # a proxy, of something that is gone
            continue


def dump(server: Server) -> str:
    """The stacks of this process's greenlets, those that run a task first, and of the server's task processes."""
    stacks: dict[str, list[str]] = {}
    remembered = (one for known in _remembered if (one := known()) is not None)
    for found in {id(one): one for one in (*_known(), *remembered)}.values():
        frame = None if found.dead else found.gr_frame
        if frame is None:
            continue
        task = task_of(frame)
        heading = f"runs the task {task.name}" if task is not None else "runs no task"
        stack = "".join(traceback.format_stack(frame))
        stacks.setdefault(stack, []).append(heading)
    parts = []
    for stack, headings in sorted(stacks.items(), key=lambda item: (item[1][0] == "runs no task", -len(item[1]))):
        count = "a greenlet" if len(headings) == 1 else f"{len(headings):,} greenlets, each"
        parts.append(f"{count} {headings[0]}:\n{stack}")
    for name, pool in server.groups.items():
        states = {one["pid"]: one for one in pool.describe()}
        for pid, text in pool.look().items():
            state = states.get(pid, {})
            what = state.get("state", "gone") + (f" with {state['task']}" if "task" in state else "")
            said = text if text is not None else "  it doesn't answer: it is stopped, or busy in C\n"
            parts.append(f"task process {pid} of {name}, {what}:\n{said}")
    return "\n".join(parts)
