"""A new queue of what can be read of a damaged one.

Tasks are taken over whose row is whole. Where they stood is pieced together: one of which nothing else is known waits
for its turn. So one whose moment was lost runs early, and one that was running runs again. Free pages are left alone:
what has been forgotten stays so.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, NamedTuple

from ..errors import ConfigurationError, GreentaskError
from ..wire.json import dumps, loads
from .backup import check_target, room_for, sync_folder
from .beside import is_anybody_at
from .ids import MOST_ID
from .limits import DEFAULT_RESULT_TTL
from .salvage import Row, Salvage, check_is_queue
from .schema import APPLICATION_ID, VERSION, be_copy, check_file, open_file
from .store import DONE, EXPIRED, FAILED, OPEN, REVOKED

__all__ = ["Recovered", "recover"]

_MOST = 2000  # rows of one transaction
_TASK_COLUMNS = range(11, 16)  # how many a task's row has had, and may come to have
_PLACES = {"ready": (2, 3, 4), "running": (0, 2, 3)}  # where the id, the failures and the losses are
_LEFT_OUT = {"holder", "offer", "started", "expiry", "moment", *_PLACES}
_BEGIN_OF_TIME, _END_OF_TIME = 1e9, 1e11  # what is due is between them


class Recovered(NamedTuple):
    """How many ``tasks`` there are; how many rows of tasks were ``broken``; how many pages were ``damaged``."""

    tasks: int
    broken: int
    damaged: int


def recover(path: str, target: str, *, log: bool = True) -> Recovered:
    """Make the new queue ``target`` of what can be read of ``path``, which is left as it is.

    ``log``: with what is in the log beside it (``-wal``), unless it is seen that this was another file's.

    Raises ``ConfigurationError`` where that is no queue, is served, or the new one can't be made.
    """
    path, target = os.path.abspath(path), os.path.abspath(target)
    if not os.path.isfile(path):
        raise ConfigurationError(f"there is no queue {path!r}")
    check_target(path, target, overwrite=None)
    if is_anybody_at(path):
        raise ConfigurationError(f"queue {path!r} is served: stop its servers first")
    salvage = Salvage(path, log=log)
    fd, part = tempfile.mkstemp(prefix=f"{os.path.basename(target)}.part-", dir=os.path.dirname(target))
    try:
        check_is_queue(salvage, path, APPLICATION_ID, VERSION)
        with room_for(target), closing(open_file(part)) as db:
            db.execute("PRAGMA synchronous = OFF")  # it is synced as a whole
            broken = _take_over(db, salvage)
            _piece_together(db)
            be_copy(db)
            check_file(db, part, most=None)
            (tasks,) = db.execute("SELECT count(*) FROM task").fetchone()
        if not (tasks or broken or salvage.is_whole_head):  # whose file it is, nothing says
            raise ConfigurationError(f"nothing of a queue is to be found in {path!r}: is it the right file?")
        os.fsync(fd)
        os.rename(part, target)
        sync_folder(os.path.dirname(target))
        return Recovered(tasks, broken, salvage.damaged)
    finally:
        salvage.close()
        os.close(fd)
        for end in ("", "-wal", "-shm", "-journal"):
            if os.path.exists(part + end):
                os.unlink(part + end)


def _take_over(db: sqlite3.Connection, salvage: Salvage) -> int:
    """Write the rows that can be; how many of tasks could not."""
    columns = {
        name: [row[1] for row in db.execute(f"PRAGMA table_info('{name}')")]
        for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    }
    db.execute("CREATE TEMP TABLE place (id INTEGER PRIMARY KEY, failures INTEGER, losses INTEGER)")
    broken = 0
    db.execute("BEGIN")
    for number, row in enumerate(salvage.rows(), 1):
        table = row.table or _guess(row)
        if table in _PLACES:
            _note_place(db, row, _PLACES[table])
        elif table is not None and table in columns and table not in _LEFT_OUT:
            values = row.values if row.rowid is None else (row.rowid, *row.values[1:])
            if _CHECKS.get(table, bool)(values):
                _insert(db, table, columns[table], values)
            else:
                broken += table == "task"
        if number % _MOST == 0:
            db.execute("COMMIT")
            db.execute("BEGIN")
    db.execute("COMMIT")
    return broken


def _insert(db: sqlite3.Connection, table: str, columns: list[str], values: tuple[Any, ...]) -> None:
    """What a newer version has added is left to its default."""
    names, values = columns[: len(values)], values[: len(columns)]
    places = ", ".join("?" * len(values))
    db.execute(f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({places})", values)


def _guess(row: Row) -> str | None:
    """The table of a row to which nothing led, by what it looks like; those that can be made anew are left out."""
    values = row.values
    if row.rowid is not None:
        if len(values) in _TASK_COLUMNS and values[0] is None:
            return "task" if isinstance(values[10], (bytes, type(None))) else "blocked"
        is_name = len(values) == 2 and values[0] is None and isinstance(values[1], str)
        return "lane" if is_name else None
    if _is_failure(values):
        return "failure"
    if len(values) == 5 and values[0] in (0, 1) and _are(int, values[2:]) and isinstance(values[1], (int, float)):
        return "later" if values[1] > _BEGIN_OF_TIME else None
    return None


def _are(kind: type, values: Iterable[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)


def _is_task(values: tuple[Any, ...]) -> bool:
    """Whether it can be a task's row: all that it says makes sense."""
    if len(values) not in _TASK_COLUMNS:
        return False
    id, lane, rank, state, enqueued, ended, expires, retries, attempts, key, body = values[:11]
    numbers = (int, float, type(None))
    if not (_are(int, (id, lane, rank, state)) and isinstance(enqueued, (int, float))):
        return False
    if not (id > 0 and lane > 0 and -10 <= rank <= 10 and state in (OPEN, DONE, FAILED, REVOKED, EXPIRED)):
        return False
    if not all(isinstance(value, numbers) for value in (ended, expires, retries, attempts)):
        return False
    if not (key is None or isinstance(key, str)) or not (body is None or isinstance(body, bytes)):
        return False
    if state in (REVOKED, EXPIRED):
        return True
    try:
        read = loads(body or b"")
    except GreentaskError:
        return False
    return state == DONE or (isinstance(read, dict) and "args" in read)


def _is_failure(values: tuple[Any, ...]) -> bool:
    if len(values) not in (4, 5) or not (_are(int, (*values[:2], *values[4:])) and isinstance(values[2], (int, float))):
        return False
    try:
        return isinstance(values[3], bytes) and isinstance(loads(values[3]), dict)
    except GreentaskError:
        return False


def _is_later(values: tuple[Any, ...]) -> bool:
    return len(values) == 5 and isinstance(values[1], (int, float)) and _are(int, (values[0], *values[2:]))


def _is_meta(values: tuple[Any, ...]) -> bool:
    if values[:1] == ("newest",):
        return len(values) == 2 and isinstance(values[1], int) and 0 <= values[1] <= MOST_ID
    if len(values) != 2 or values[0] not in ("base", "last", "result_ttl", "key_ttl", "max_taken"):
        return len(values) == 2 and _are(str, values[:1])
    return isinstance(values[1], (int, float)) and abs(values[1]) < _END_OF_TIME


def _is_lane(values: tuple[Any, ...]) -> bool:
    return len(values) == 2 and isinstance(values[1], str) and bool(values[1])


_CHECKS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    "task": _is_task,
    "failure": _is_failure,
    "later": _is_later,
    "meta": _is_meta,
    "lane": _is_lane,
}


def _note_place(db: sqlite3.Connection, row: Row, where: tuple[int, int, int]) -> None:
    values = row.values if row.rowid is None else (row.rowid, *row.values[1:])
    if len(values) > max(where):
        id, failures, losses = (values[index] for index in where)
        if _are(int, (id, failures, losses)):
            db.execute("INSERT OR REPLACE INTO place VALUES (?, ?, ?)", (id, failures, losses))


def _piece_together(db: sqlite3.Connection) -> None:
    """See to it that the tables agree."""
    db.execute("BEGIN")
    _name_lanes(db)
    for statement in (
        f"DELETE FROM later WHERE id NOT IN (SELECT id FROM task WHERE state = {OPEN})",
        "DELETE FROM moment WHERE id NOT IN (SELECT id FROM later)",
        # Queue time begins anew where it is not known how it went on.
        "DELETE FROM meta WHERE name = 'boot' AND (SELECT count(*) FROM meta WHERE name IN ('base', 'last')) < 2",
        "DELETE FROM failure WHERE id NOT IN (SELECT id FROM task)",
        f"DELETE FROM forget WHERE id NOT IN (SELECT id FROM task WHERE state IN ({DONE}, {REVOKED}, {EXPIRED}))",
        "DELETE FROM forget WHERE (at, id) NOT IN (SELECT max(at), id FROM forget GROUP BY id)",
        "DELETE FROM meta WHERE name = 'purged'",
        "DELETE FROM blocked WHERE id NOT IN (SELECT id FROM task)",
        "DELETE FROM link WHERE id NOT IN (SELECT id FROM task)",
        "INSERT OR IGNORE INTO link SELECT source, id FROM blocked WHERE is_group = 0 AND source IS NOT NULL",
        "DELETE FROM member WHERE waiter NOT IN (SELECT id FROM task) OR NOT 0 < first OR NOT first <= last",
        # No two groups have the same task.
        "UPDATE member SET last = min(last, "
        "coalesce((SELECT min(n.first) FROM member n WHERE n.first > member.first) - 1, last))",
        "CREATE TEMP TABLE known (id INTEGER PRIMARY KEY)",
        f"UPDATE task SET state = {REVOKED}, ended = strftime('%s', 'now'), body = NULL "
        f"WHERE state = {OPEN} AND id IN (SELECT id FROM revoked)",
        "DELETE FROM revoked",
        "INSERT OR IGNORE INTO known SELECT id FROM later UNION SELECT id FROM blocked",
        "INSERT OR IGNORE INTO ready SELECT t.lane, t.rank, t.id, "
        "coalesce(p.failures, (SELECT count(*) FROM failure f WHERE f.id = t.id AND f.server = 0)), "
        "coalesce(p.losses, 0) "
        f"FROM task t LEFT JOIN place p ON p.id = t.id WHERE t.state = {OPEN} AND t.id NOT IN (SELECT id FROM known)",
        "INSERT OR IGNORE INTO key (key, id) SELECT key, id FROM task WHERE key IS NOT NULL ORDER BY id DESC",
        f"INSERT INTO expiry SELECT expires, id FROM task WHERE state = {OPEN} AND expires IS NOT NULL",
        "DELETE FROM known",
        "INSERT OR IGNORE INTO known SELECT id FROM forget",
        f"INSERT INTO forget SELECT strftime('%s', 'now') + {DEFAULT_RESULT_TTL}, id FROM task "
        f"WHERE state IN ({DONE}, {REVOKED}, {EXPIRED}) AND id NOT IN (SELECT id FROM known)",
    ):
        db.execute(statement)
    _check_holes(db)
    _end_waits(db)
    db.execute("COMMIT")


def _check_holes(db: sqlite3.Connection) -> None:
    """Let those wait for nothing of which it is lost where in their message that goes for which they wait."""
    found = db.execute("SELECT b.id, b.hole, t.body FROM blocked b JOIN task t ON t.id = b.id WHERE b.hole IS NOT NULL")
    lost = [(id,) for id, hole, body in found if not isinstance(hole, int) or (body or b"")[hole:][:4] != b"null"]
    db.executemany("UPDATE blocked SET source = NULL, hole = NULL WHERE id = ?", lost)
    db.executemany("DELETE FROM link WHERE waiter = ?", lost)


def _end_waits(db: sqlite3.Connection) -> None:
    """Let those be dead letters that would wait for ever, for what they wait for is lost; and so on with their waiters.

    A person has them tried again, or not. A group that waits for some still counts those.
    """
    error = dumps({"type": "QueueError", "message": "what it waited for was lost with a damaged file"})
    open_members = "(SELECT count(*) FROM member m JOIN task o ON o.id BETWEEN m.first AND m.last AND o.state = 0 "
    while True:
        lost = db.execute(
            "SELECT t.id FROM task t JOIN blocked b ON b.id = t.id WHERE t.state = 0 AND CASE b.is_group "
            f"WHEN 1 THEN b.is_open + {open_members} WHERE m.waiter = t.id) = 0 "
            "ELSE NOT EXISTS (SELECT 1 FROM task s WHERE s.id = b.source AND s.state = 0) END"
        ).fetchall()
        if not lost:
            break
        db.executemany(
            "INSERT OR REPLACE INTO failure VALUES (?, 0, strftime('%s', 'now'), ?, 0)", [(id, error) for (id,) in lost]
        )
        db.executemany(
            f"UPDATE task SET state = {FAILED}, ended = strftime('%s', 'now'), attempts = 0 WHERE id = ?", lost
        )
        db.executemany("DELETE FROM blocked WHERE id = ? AND is_group = 0", lost)
    db.execute(
        f"UPDATE blocked SET missing = is_open + {open_members} WHERE m.waiter = blocked.id) "
        "WHERE is_group = 1 AND id IN (SELECT id FROM task WHERE state = 0)"
    )


def _name_lanes(db: sqlite3.Connection) -> None:
    """A task's name is in what was sent, unless that was a batch; else it gets one that nobody has."""
    lanes = db.execute("SELECT DISTINCT lane FROM task WHERE lane NOT IN (SELECT id FROM lane)").fetchall()
    for (lane,) in lanes:
        name = f"lost-{lane}"
        for (body,) in db.execute("SELECT body FROM task WHERE lane = ? AND state IN (0, 2) LIMIT 100", (lane,)):
            found = loads(body).get("function")
            if isinstance(found, str):
                name = found
                break
        same = db.execute("SELECT id FROM lane WHERE name = ?", (name,)).fetchone()
        if same is None:
            db.execute("INSERT INTO lane (id, name) VALUES (?, ?)", (lane, name))
        else:
            db.execute("UPDATE task SET lane = ? WHERE lane = ?", (same[0], lane))
