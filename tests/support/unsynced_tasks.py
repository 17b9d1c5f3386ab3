"""The tasks of tests, and a queue that doesn't sync what it commits: as much as `SYNCHRONOUS` says."""

import os
import sqlite3

from greentask.queue import sqlite
from greentask.queue.schema import open_file
from support.durable_tasks import now

__all__ = ["now"]


def open_unsynced(path: str) -> sqlite3.Connection:
    db = open_file(path)
    db.execute(f"PRAGMA synchronous = {os.environ['SYNCHRONOUS']}")
    return db


sqlite.open_file = open_unsynced
