"""Finds a task among those that wait for a moment (``later``) by its id, however many these are.

Their key is the order in which they are due, so one is found by its moment. That is in the task's own row, which is
written anyway as it is enqueued, and in the table ``moment`` for those that were put there afterwards. An index by the
ids would be one page more in every commit of a delayed task. Either may be of a moment that is over: what counts is
whether there is a row.
"""

from __future__ import annotations

__all__ = ["in_later"]


def in_later(id: str) -> str:
    """The condition of a row of ``later`` to be that of a task; ``id`` stands in SQL for that one's."""
    dues = f"(SELECT due FROM task WHERE id = {id}), (SELECT due FROM moment WHERE id = {id})"
    return f"clock IN (0, 1) AND due IN ({dues}) AND id = {id}"
