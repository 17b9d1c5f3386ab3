"""What goes wrong with a queue's file while it is written to, and what is told of it."""

from __future__ import annotations

import sqlite3

from ..errors import QueueError, QueueFull
from .stalls import who_holds

__all__ = ["explained", "is_the_files"]


def is_the_files(error: Exception) -> bool:
    """Whether it is the file that can't be written, and not one operation that can't be done."""
    return isinstance(error, (OSError, sqlite3.OperationalError)) or type(error) is sqlite3.DatabaseError


def explained(error: Exception, path: str) -> Exception:
    """The error that is told, of the queue at ``path``, with what to do; one that isn't the file's stays as it is."""
    if not isinstance(error, (sqlite3.Error, OSError)):
        return error
    said = str(error)
    if "full" in said or "disk I/O" in said:
        return QueueFull(f"the queue can't take it ({said}): make room on its disk, and it goes on by itself")
    if "malformed" in said or "not a database" in said:
        return QueueError(f"the queue's file is damaged ({said}): stop its servers, and see greentask queue recover")
    if "locked" in said:  # by one who doesn't wait in line, and so is no server
        return QueueError(f"the queue's file is locked {who_holds(path)}")
    return QueueError(f"the queue's file can't be used: {said}")
