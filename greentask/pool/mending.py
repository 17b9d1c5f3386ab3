"""What a pool does about Ctrl-C, in the main thread's hub: every call comes to its end, and none runs twice.

- A call waits until a process has it, and a process has it until its end was told: it is always with one of the two.
- A process that was hit as it was heard, or sent to, is killed: its calls end as those of a process that dies. Where
  something that it said is lost, all of them do, for nobody knows which have run. Likewise the template.
- While there are calls, somebody looks every second for what was not done: see ``hub.mending``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .processes import Processes

__all__ = ["mend"]


def mend(pool: Processes) -> bool:
    """Do what should have been done a while ago. Whether there are calls."""
    processes = list(pool._population.members.values())
    if not pool._waiting and not any(process.calls for process in processes):
        return False
    pool._population.mend()
    for process in processes:
        if process.ready and process.is_heard and not process.retiring and not process.calls:
            pool._idle[process.slot] = process
    pool._dispatch()
    return True
