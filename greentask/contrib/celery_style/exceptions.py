"""What goes wrong with tasks that are written for Celery, under Celery's names where it has one.

.. code-block:: text

    GreentaskError
    ├── NotCarriedOver          what Celery has and greentask has not       (also NotImplementedError)
    │   └── NeedsQueue          what needs a queue on disk
    ├── TimeoutError            a result was not there in time              (also TimeoutError)
    ├── TaskRevokedError        the task was revoked, or had expired: it did not run to its end
    └── ChordError              a task of a chord's header failed: its body did not run
"""

from __future__ import annotations

import builtins

from ...errors import GreentaskError

__all__ = ["ChordError", "NeedsQueue", "NotCarriedOver", "TaskRevokedError", "TimeoutError", "needs_queue"]


class NotCarriedOver(GreentaskError, NotImplementedError):
    """A part or an option of Celery's that greentask has not. The message names it, and what to do instead."""


class NeedsQueue(NotCarriedOver):
    """What must outlive the program that asks for it needs a queue on disk, which only ``enqueue`` uses yet."""


class TimeoutError(GreentaskError, builtins.TimeoutError):
    """The result was not there in time. The task goes on."""


class TaskRevokedError(GreentaskError):
    """The task was revoked, or had expired before its turn came."""


class ChordError(GreentaskError):
    """A task of the chord's header failed, so its body did not run; the cause is that task's error."""


def needs_queue(what: str, instead: str) -> NeedsQueue:
    """The error for something that can't be had without a queue on disk; ``instead`` is the remedy."""
    return NeedsQueue(f"{what} needs a durable queue, which only greentask's own calls use yet: {instead}")


def __getattr__(name: str) -> object:
    if name.startswith("__"):  # of the import system
        raise AttributeError(name)
    from .missing import refuse_import

    return refuse_import(__name__, "exceptions", name)
