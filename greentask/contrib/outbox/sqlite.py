"""An outbox in an SQLite file.

The program's own writers need the file's only lock for writing, so a relay never has it while it waits for a server:
it reads, sends, and deletes in a transaction of its own. That one relay at a time does so is seen to by a lock on a
file beside it, which the kernel gives free when its holder dies.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ...errors import ConfigurationError
from .database import Database, DatabaseLost, Refused, Row
from .table import create_table

__all__ = ["SQLiteDatabase"]

_PATIENCE = 20.0  # seconds for others' transactions to end
_POLL = 0.05  # seconds between two looks at whether something was committed
_LOOK = 1.0  # seconds between two looks at whether the relay that sends has gone, or the file
_COLUMNS = "id, key, task, args, options, created, attempts"


class SQLiteDatabase(Database):
    """The file, which is never made."""

    def __init__(self, path: Path, table: str) -> None:
        self.path = path
        self._table = table
        self._db: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._has_lock = False
        self._inode = 0
        self._version = 0

    def __str__(self) -> str:
        return str(self.path)

    def create(self) -> None:
        with _told(self), closing(self._connect()) as db:
            create_table(db, table=self._table)

    def open(self) -> None:
        with _told(self):
            self._db = self._connect()
            self._inode = os.stat(self.path).st_ino
            found = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (self._table,)).fetchone()
        if found is None:
            raise ConfigurationError(f"{self} has no table {self._table}: make it with create_table, or with --create")
        path = f"{self.path}-{self._table}-relay"
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ConfigurationError(f"a relay can't have its lock {path!r}: {error.strerror}") from None

    def take(self, most: int, most_bytes: int, now: float) -> list[Row]:
        db, rows, size = self._opened(), list[Row](), 0
        with _told(self):
            # Before the look: what is committed after it is another version, for which nobody waits in vain.
            self._version = db.execute("PRAGMA data_version").fetchone()[0]
            if not self._is_ours():
                return []
            cursor = db.execute(
                f"SELECT {_COLUMNS} FROM {self._table} WHERE due <= ? ORDER BY due, id LIMIT ?", (now, most)
            )
            try:
                for found in cursor:
                    row = Row(*found)
                    size += len(row.args)
                    if rows and size > most_bytes:
                        break
                    rows.append(row)
            finally:
                cursor.close()  # and with it the transaction
        return rows

    def settle(self, done: list[Row], refused: list[Refused]) -> None:
        if not (done or refused):
            return
        db, table = self._opened(), self._table
        with _told(self):
            db.execute("BEGIN IMMEDIATE")
            try:
                gone = [(row.id,) for row in done] + [(one.row.id,) for one in refused if one.due is None]
                db.executemany(f"DELETE FROM {table} WHERE id = ?", gone)
                db.executemany(
                    f"UPDATE {table} SET error = ?, due = ?, attempts = attempts + 1 WHERE id = ?",
                    [(one.error, one.due, one.row.id) for one in refused if one.due is not None],
                )
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def next_due(self) -> float | None:
        if not self._has_lock:
            return None
        with _told(self):
            due: float | None = self._opened().execute(f"SELECT min(due) FROM {self._table}").fetchone()[0]
        return due

    def wait(self, seconds: float) -> bool:
        if not self._has_lock:
            time.sleep(min(seconds, _LOOK))
            return self._is_ours()
        db, give_up = self._opened(), time.monotonic() + seconds
        with _told(self):
            while db.execute("PRAGMA data_version").fetchone()[0] == self._version:
                left = give_up - time.monotonic()
                if left <= 0:
                    self._check_file()
                    return False
                time.sleep(min(_POLL, left))
        return True

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock, self._has_lock = None, False

    def _connect(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise ConfigurationError(
                f"there is no SQLite file {str(self.path)!r}: name the file of the program that enqueues, or "
                "postgresql://host/name"
            )
        where = f"{self.path.absolute().as_uri()}?mode=rw"  # it is never made
        return sqlite3.connect(where, uri=True, isolation_level=None, timeout=_PATIENCE)

    def _opened(self) -> sqlite3.Connection:
        assert self._db is not None
        return self._db

    def _is_ours(self) -> bool:
        """Whether no other relay sends; then none will until we close it."""
        if not self._has_lock:
            assert self._lock is not None
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._has_lock = True
        return True

    def _check_file(self) -> None:
        """See that the file is still the one of that path, or nobody would ever notice."""
        try:
            inode = os.stat(self.path).st_ino
        except OSError as error:
            raise DatabaseLost(f"{self}: {error.strerror}") from None
        if inode != self._inode:
            raise DatabaseLost(f"{self} is another file now")


@contextmanager
def _told(place: object) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DatabaseLost(f"{place}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(
            f"{place} can't be used ({error}): name the SQLite file of the program that enqueues, or mend it"
        ) from error
