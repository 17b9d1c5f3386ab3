"""The file of a durable queue: its tables, its version, and whether it can be used.

A task's row stays where it is; which of the small tables beside it has its id says what is to become of it:

=========  ====================================================================================================
task       every task that is known: its payload, and in its place the result once it has one
ready      waits for its turn. Its key is the order in which tasks are taken, so that taking costs the same
           however many wait
later      waits for a moment, by queue time (``clock`` 0) or by the wall clock (1). Its key is the order of those
moment     the moment of those of ``later`` that is not the one with which they were enqueued (``task.due``)
running    handed out, to that ``holder``
holder     who has deliveries; ``beat`` changes while he lives
offer      which tasks each of these runs
revoked    those that run, and are to be ended by their holder
blocked    waits for another task (``source``), or is a group, which waits for its members and runs nothing. ``missing``
           have not ended, ``failed`` have ended otherwise than well
link       which tasks wait for a task; kept until that one is forgotten
member     the tasks of a group, by their ids: from ``first`` to ``last``
plan       what follows a task that has a key, for who enqueues it again
failure    what came of each attempt that failed; ``server``: it was lost with its server
expiry     when a task with a ttl is over that has not begun, by queue time; of others until then, or they are forgotten
forget     when a task that has ended is forgotten, by queue time
key        the idempotency keys of the tasks that are known, or were until lately
lapse      when a key is forgotten whose task is, by queue time
single     the task that was enqueued last with a singleton's key
lane       the names of tasks, as numbers
started    when tasks with a rate were handed out lately, and how many
schedule   the next tick of each task that runs by itself, and when that was said
meta       how queue time goes on, what is paused, how long things are known, how much a task takes of others, the
           newest id of what is forgotten, and how many rows of ``forget`` don't count (``purged``): those of tasks
           that were purged, or that have another row, or will have
=========  ====================================================================================================
"""

from __future__ import annotations

import logging
import os
import shlex
import sqlite3
import stat
import time
from typing import Any

from ..errors import ConfigurationError
from .beside import is_anybody_at

__all__ = [
    "APPLICATION_ID",
    "CHECKPOINT_BYTES",
    "PAGE",
    "VERSION",
    "be_copy",
    "check_file",
    "explain",
    "is_copy",
    "open_file",
    "open_to_read",
    "upgrade",
    "version",
]

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x67745131

_HEADER = b"SQLite format 3\x00"
_HEAD = 100  # bytes
_NO_LOG = b"\x01\x01"  # what is at 18 in them of a file that has none (the mode is not WAL)
_CLOSES_WITHIN = 2.0  # seconds
#: Bytes of a page.
PAGE = 4096
_CACHE = 16 * 1024  # KiB
_BUSY = 10.0  # seconds, for those who hold the file and don't take turns: a backup, somebody's shell
_STATEMENTS = 300  # that are kept prepared: as many as a server uses, and some more
_CHECKPOINT = 4000  # pages of the log (16 MB) that are written back at once

#: The same, in bytes.
CHECKPOINT_BYTES = _CHECKPOINT * PAGE

_CHECKED = 2 * 1024**3  # bytes of a file that is looked through for damage at each start
_LARGE = ("task", "failure")  # tables with what was sent, what came of it, and errors

# What makes a file of each version one of the next, from an empty one on.
_STEPS = (
    """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE lane (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE task (
    id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, rank INTEGER NOT NULL, state INTEGER NOT NULL,
    enqueued REAL NOT NULL, ended REAL, expires REAL, retries INTEGER, attempts INTEGER, key TEXT, body BLOB
);
CREATE INDEX dead ON task (id) WHERE state = 2;
CREATE TABLE ready (
    lane INTEGER, rank INTEGER, id INTEGER, failures INTEGER NOT NULL, losses INTEGER NOT NULL,
    PRIMARY KEY (lane, rank, id)
) WITHOUT ROWID;
CREATE TABLE later (
    clock INTEGER, due REAL, id INTEGER, failures INTEGER NOT NULL, losses INTEGER NOT NULL,
    PRIMARY KEY (clock, due, id)
) WITHOUT ROWID;
CREATE TABLE running (
    id INTEGER PRIMARY KEY, holder INTEGER NOT NULL, failures INTEGER NOT NULL, losses INTEGER NOT NULL
);
CREATE TABLE holder (id INTEGER PRIMARY KEY, beat INTEGER NOT NULL, name TEXT NOT NULL);
CREATE TABLE failure (
    id INTEGER, attempt INTEGER, at REAL NOT NULL, error BLOB NOT NULL, PRIMARY KEY (id, attempt)
) WITHOUT ROWID;
CREATE TABLE forget (at REAL, id INTEGER, PRIMARY KEY (at, id)) WITHOUT ROWID;
CREATE TABLE key (key TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
""",
    """
ALTER TABLE running ADD COLUMN lane INTEGER;
UPDATE running SET lane = (SELECT lane FROM task WHERE task.id = running.id);
CREATE TABLE started (lane INTEGER, at REAL, count INTEGER NOT NULL, PRIMARY KEY (lane, at)) WITHOUT ROWID;
CREATE TABLE schedule (lane INTEGER PRIMARY KEY, spec TEXT NOT NULL, next REAL NOT NULL, seen REAL NOT NULL);
CREATE TABLE single (
    lane INTEGER, key TEXT, id INTEGER NOT NULL, PRIMARY KEY (lane, key)
) WITHOUT ROWID;
CREATE TABLE lapse (at REAL, key TEXT, PRIMARY KEY (at, key)) WITHOUT ROWID;
ALTER TABLE task ADD COLUMN single TEXT;
ALTER TABLE key ADD COLUMN ttl REAL NOT NULL DEFAULT 0;
""",
    """
CREATE TABLE blocked (
    id INTEGER PRIMARY KEY, is_group INTEGER NOT NULL, total INTEGER NOT NULL, missing INTEGER NOT NULL,
    failed INTEGER NOT NULL, is_open INTEGER NOT NULL, keeps INTEGER NOT NULL, errors INTEGER NOT NULL,
    source INTEGER, hole INTEGER, delay REAL NOT NULL, ttl REAL
);
CREATE INDEX keeping ON blocked (id) WHERE keeps = 1;
CREATE TABLE link (id INTEGER, waiter INTEGER, PRIMARY KEY (id, waiter)) WITHOUT ROWID;
CREATE TABLE member (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, waiter INTEGER NOT NULL);
CREATE INDEX of_group ON member (waiter);
CREATE TABLE plan (id INTEGER PRIMARY KEY, placed BLOB NOT NULL);
CREATE TRIGGER forget_link AFTER DELETE ON task BEGIN DELETE FROM link WHERE id = OLD.id; END;
CREATE TRIGGER forget_blocked AFTER DELETE ON task BEGIN DELETE FROM blocked WHERE id = OLD.id; END;
CREATE TRIGGER forget_member AFTER DELETE ON task BEGIN DELETE FROM member WHERE waiter = OLD.id; END;
CREATE TRIGGER forget_plan AFTER DELETE ON task BEGIN DELETE FROM plan WHERE id = OLD.id; END;
""",
    """
CREATE TABLE revoked (id INTEGER PRIMARY KEY);
""",
    """
CREATE INDEX of_later ON later (id);
DELETE FROM later WHERE id NOT IN (SELECT id FROM task WHERE state = 0);
""",
    """
ALTER TABLE failure ADD COLUMN server INTEGER NOT NULL DEFAULT 0;
CREATE TABLE expiry (at REAL, id INTEGER, PRIMARY KEY (at, id)) WITHOUT ROWID;
INSERT INTO expiry SELECT expires, id FROM task WHERE state = 0 AND expires IS NOT NULL;
""",
    """
CREATE TABLE offer (task TEXT, holder INTEGER, PRIMARY KEY (task, holder)) WITHOUT ROWID;
CREATE TRIGGER forget_offer AFTER DELETE ON holder BEGIN DELETE FROM offer WHERE holder = OLD.id; END;
""",
    # By triggers, so that servers of the version before, which may have the file for a while yet, do it as well.
    """
ALTER TABLE task ADD COLUMN due REAL;
CREATE TABLE moment (id INTEGER PRIMARY KEY, due REAL NOT NULL);
INSERT OR REPLACE INTO moment SELECT id, due FROM later ORDER BY id;
DROP INDEX of_later;
CREATE TRIGGER note_moment AFTER INSERT ON later
WHEN NEW.failures + NEW.losses > 0 OR NEW.due IS NOT (SELECT due FROM task WHERE id = NEW.id)
BEGIN INSERT OR REPLACE INTO moment VALUES (NEW.id, NEW.due); END;
CREATE TRIGGER forget_moment AFTER DELETE ON task BEGIN DELETE FROM moment WHERE id = OLD.id; END;
""",
)
VERSION = len(_STEPS)


def open_file(path: str, *, as_it_is: bool = False) -> sqlite3.Connection:
    """The queue's file, made where there is none, and brought to this version, unless it is to stay ``as_it_is``.

    Raises ``ConfigurationError``, which says what to do.
    """
    if sqlite3.sqlite_version_info < (3, 33):
        raise ConfigurationError(f"a queue needs SQLite 3.33 or newer, and this Python has {sqlite3.sqlite_version}")
    _look_at(path)
    try:
        # No transactions but our own; its one thread is whoever calls from now on.
        db = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_BUSY, cached_statements=_STATEMENTS
        )
    except sqlite3.Error as error:
        raise ConfigurationError(f"queue {path!r} can't be opened: {error}") from None
    try:
        _prepare(db, path, as_it_is=as_it_is)
    except sqlite3.DatabaseError as error:
        db.close()
        raise ConfigurationError(explain(path, str(error))) from None
    except BaseException:
        db.close()
        raise
    return db


def open_to_read(path: str) -> sqlite3.Connection:
    """A connection for looking only, beside one that writes."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY)
    db.execute("PRAGMA query_only = 1")
    return db


def check_file(db: sqlite3.Connection, path: str, *, most: int | None = _CHECKED) -> None:
    """Look for damage, which takes about a second for a gigabyte. Raises ``ConfigurationError``.

    In a file of more than ``most`` bytes the tasks themselves and their errors are left out, and it says so in the log.
    """
    size = _value(db, "page_count") * _value(db, "page_size")
    is_large = most is not None and size > most
    if is_large:
        logger.info(
            "queue %r is large (%.1f GB): its tasks are not looked through for damage; greentask queue check does that",
            path,
            size / 1e9,
        )
    try:
        checks = _checks_but_of_tasks(db) if is_large else ["PRAGMA quick_check(3)"]
        found = "; ".join(str(row[0]) for check in checks for row in db.execute(check) if row[0] != "ok")
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found:
        raise ConfigurationError(explain(path, " ".join(found.split())[:300]))


def _checks_but_of_tasks(db: sqlite3.Connection) -> list[str]:
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN (?, ?)", _LARGE)
    return [f"PRAGMA quick_check('{table}')" for (table,) in tables]


def _look_at(path: str) -> None:
    """What SQLite would not say as clearly, or not at all."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise ConfigurationError(f"queue {path!r}: there is no folder {folder!r}; make it first")
    if not os.access(folder, os.W_OK, effective_ids=True):
        raise ConfigurationError(f"queue {path!r}: its folder {folder!r} must be writable, for the files beside it")
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"queue {path!r} is no file: name a file of its own")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise ConfigurationError(f"queue {path!r} is not ours to write (user {os.geteuid()}): mind its owner and mode")
    if not _is_open_here(found):  # or its closing would let go of SQLite's own locks, and who comes next remove the log
        _look_at_head(path)
    _wait_for_logs(path)


def _look_at_head(path: str) -> None:
    has_log = _size(f"{path}-wal") > 0  # first: the log of a file that is a queue again comes after that is written
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if head and not head.startswith(_HEADER):
        raise ConfigurationError(
            f"queue {path!r} is no queue, but another kind of file, which is left as it is: name another one. Or if "
            f"it was one, and its beginning is damaged, save what can be read: {_remedy(path)}"
        )
    if has_log and is_copy(head):
        log, index = shlex.quote(f"{path}-wal"), shlex.quote(f"{path}-shm")
        raise ConfigurationError(
            f"queue {path!r} is a copy that was put there, and the log beside it is that of the file that was there "
            f"before: it would be mixed in. See that no server has it, and remove that (rm -f {log} {index})"
        )


def _is_open_here(file: os.stat_result) -> bool:
    """Whether this process has that file open."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(file, os.stat(f"/proc/self/fd/{fd}")):
                return True
        except OSError:  # it was closed meanwhile
            continue
    return False


def is_copy(head: bytes) -> bool:
    """Whether a file that begins so was made by a backup, and nobody has had it open since: so it has no log."""
    return head.startswith(_HEADER) and head[18:20] == _NO_LOG


def be_copy(db: sqlite3.Connection) -> None:
    """Make a new file such a copy; nobody else has it open."""
    db.execute("PRAGMA journal_mode = DELETE")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # who has it open last removes it
        return 0


def _wait_for_logs(path: str) -> None:
    """Raises ``ConfigurationError`` where a server has the queue, and SQLite would make files anew that it has open.

    The last one that closes the queue removes them in good order; that takes a moment.
    """
    give_up = time.monotonic() + _CLOSES_WITHIN
    while (missing := _missing_log(path)) is not None and is_anybody_at(path):
        if time.monotonic() > give_up:
            raise ConfigurationError(
                f"queue {path!r}: servers have it, and {missing!r} was removed: put it back, or stop them all, which "
                "writes to the file what that had"
            )
        time.sleep(0.02)


def _missing_log(path: str) -> str | None:
    return next((name for name in (f"{path}-wal", f"{path}-shm") if not os.path.exists(name)), None)


def version(db: sqlite3.Connection) -> int:
    """That of an open file."""
    return int(_value(db, "user_version"))


def _prepare(db: sqlite3.Connection, path: str, *, as_it_is: bool = False) -> None:
    is_empty = _value(db, "schema_version") == 0  # first: somebody else may make the tables at any moment
    owner, found = _value(db, "application_id"), version(db)
    if is_empty:
        db.execute(f"PRAGMA page_size = {PAGE}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if not is_empty and owner != APPLICATION_ID:
        raise ConfigurationError(f"queue {path!r} is another program's database, which is left as it is: name another")
    if found > VERSION:
        raise ConfigurationError(
            f"queue {path!r} was written by a newer greentask (its version is {found}, the newest known here is "
            f"{VERSION}): update greentask, or name another file"
        )
    if _have_log(db) != "wal":
        raise ConfigurationError(f"queue {path!r}: its file system can't share memory between processes (no WAL)")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{_CACHE}")
    db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
    db.execute(f"PRAGMA journal_size_limit = {4 * _CHECKPOINT * PAGE}")
    if found < VERSION and (is_empty or not as_it_is):  # or nothing is written, for who only wants to look
        upgrade(db)


def upgrade(db: sqlite3.Connection) -> None:
    """Bring an open file to this version, for good: servers of an older one can't start with it any more."""
    db.execute("BEGIN IMMEDIATE")  # of several that open it at once, one makes the tables
    try:
        for step in _STEPS[version(db) :]:
            for statement in filter(str.strip, step.split(";\n")):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # on a full disk SQLite has done it itself
            db.execute("ROLLBACK")
        raise


def _have_log(db: sqlite3.Connection) -> Any:
    """Have the file have a log; its mode then. Where others do the same, SQLite says so at once, and doesn't wait."""
    give_up = time.monotonic() + _BUSY
    while True:
        try:
            return _value(db, "journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
        time.sleep(0.01)


def explain(path: str, said: str) -> str:
    """What SQLite said of a queue's file, and what to do."""
    if "readonly" in said or "read-only" in said:
        return f"queue {path!r} can't be written ({said}): mind the owner and mode of the file and its folder"
    if "locked" in said or "busy" in said:
        return f"queue {path!r} is held by another program ({said}): who has it open?"
    if "full" in said or "disk I/O" in said:
        return f"queue {path!r} can't be opened ({said}): is its disk full?"
    return f"queue {path!r} is damaged ({said}). Stop its servers, and save what can be read: {_remedy(path)}"


def _remedy(path: str) -> str:
    return f"greentask queue recover {shlex.quote(path)} NEWFILE"


def _value(db: sqlite3.Connection, pragma: str) -> Any:
    return db.execute(f"PRAGMA {pragma}").fetchone()[0]
