"""A queue's tasks as lines of JSON, and back: for another machine, or another version.

The first line says what it is; then comes a line for each task, in the order of their ids; the last one says that this
was all, so that it is seen where something is missing::

    {"greentask": "queue", "version": 2, "exported": 1700000000.0}
    {"task": "1M89JMZ1P2QDY", "name": "send_mail", "state": "waiting", "enqueued": 1700000000.0, …, "call": {"args": …}}
    {"greentask": "end", "tasks": 1}

Tasks keep their ids, so that their receipts stay good, and what is imported twice is there once. Both ways it is done a
few tasks at a time, however many there are.
"""

from __future__ import annotations

import math
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..errors import ConfigurationError, GreentaskError
from ..wire.enqueue import MAX_KEY, MOST_PRIORITY, MOST_RETRIES
from ..wire.json import dumps, loads
from .byhand import QueueFile
from .composing import COLUMNS
from .ids import MOST_ID, parse_id
from .interface import Message, Placed
from .managing import STATES, Filter, select
from .moments import in_later
from .store import DONE, EXPIRED, FAILED, OPEN, REVOKED, Store

__all__ = ["Imported", "check_head", "export_tasks", "import_tasks"]

_VERSION, _SAYS_ITS_END = 2, 2  # the newest one, and the first whose last line says that it was all
_STATES = {"done": DONE, "failed": FAILED, "revoked": REVOKED, "expired": EXPIRED}  # the others are open
_MOST, _MOST_BYTES = 500, 8 * 1024 * 1024  # of one transaction


class Imported(NamedTuple):
    """How many tasks are ``new``; how many were ``known`` by their ids, or not taken, for their ``keys`` are known."""

    new: int = 0
    known: int = 0
    keys: int = 0


# ---- Out


def export_tasks(store: Store, wanted: Filter) -> Iterator[bytes]:
    """The lines of all tasks that fit, within a transaction: as of one moment."""
    yield dumps({"greentask": "queue", "version": _VERSION, "exported": store.clock.wall()}) + b"\n"
    after, count = None, 0
    while True:
        tasks, after = select(store, wanted, after, _MOST)
        count += len(tasks)
        for task in tasks:
            yield _line(store, task)
        if after is None:
            yield dumps({"greentask": "end", "tasks": count}) + b"\n"
            return


def _line(store: Store, task: dict[str, Any]) -> bytes:
    id = parse_id(task["task"])
    assert id is not None
    task.pop("error", None)
    state, expires, task["retries"], task["singleton"], task["key_ttl"], body = store.db.execute(
        "SELECT t.state, t.expires, t.retries, t.single, k.ttl, t.body FROM task t "
        "LEFT JOIN key k ON k.key = t.key AND k.id = t.id WHERE t.id = ?",
        (id,),
    ).fetchone()
    to_wall = store.clock.wall() - store.time.now()
    task["expires"] = None if expires is None else expires + to_wall
    place = None
    if state == OPEN and store.revoking.is_marked(id):  # it is not to run again, there as little as here
        task["state"], task["ended"], body = "revoked", store.clock.wall(), None
    elif state == OPEN:
        place = store.db.execute(
            f"SELECT clock, due, failures, losses FROM later WHERE {in_later(':id')} "
            "UNION ALL SELECT 0, NULL, failures, losses FROM running WHERE id = :id "
            "UNION ALL SELECT 0, NULL, r.failures, r.losses FROM task t "
            "JOIN ready r ON r.lane = t.lane AND r.rank = t.rank AND r.id = t.id WHERE t.id = :id",
            {"id": id},
        ).fetchone()
    if place is not None:
        clock, due, task["failures"], task["losses"] = place
        if due is not None:
            task["due"], task["by_clock"] = due if clock else due + to_wall, bool(clock)
    errors = store.db.execute("SELECT attempt, at, error, server FROM failure WHERE id = ? ORDER BY attempt", (id,))
    task["errors"] = [
        {"attempt": attempt, "at": at, "error": loads(error), **({"server": True} if server else {})}
        for attempt, at, error, server in errors
    ]
    composed = store.composer.export(id)
    if composed:
        task["composed"] = composed
    plan = store.db.execute("SELECT placed FROM plan WHERE id = ?", (id,)).fetchone()
    if plan is not None:
        task["plan"] = loads(plan[0])
    head = dumps(task)[:-1]
    if body is None:
        return head + b"}\n"
    # A line break between a text's tokens means nothing, and within a string there is none.
    member = b"result" if state == DONE else b"call"
    return head + b',"%b":%b}\n' % (member, body.replace(b"\n", b" "))


# ---- In


def import_tasks(file: QueueFile, lines: Iterable[bytes]) -> Imported:
    """Keep the tasks of these lines that are not known yet. What was running waits for its turn.

    Raises ``ConfigurationError``, which names the line that is none, or says that the last ones are missing; what came
    before may have been kept, and when it is mended, the whole can be imported again.
    """
    lines = iter(lines)
    is_whole, has_ended = check_head(next(lines, b"")) < _SAYS_ITS_END, False
    total, part, size, number = Imported(), [], 0, 1
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        try:
            read = loads(line)
            if has_ended:
                raise ValueError("the export ends before it: import another one by itself")
            if isinstance(read, dict) and read.get("greentask") == "end":
                is_whole = has_ended = True
                continue
            part.append(_Task.decode(read))
        except (GreentaskError, ValueError, TypeError, KeyError, OverflowError) as error:
            told = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ConfigurationError(f"line {number} is no task of a queue: {told:.200}") from None
        size += len(line)
        if len(part) >= _MOST or size >= _MOST_BYTES:
            total = _keep(file, part, total, number)
            part, size = [], 0
    total = _keep(file, part, total, number)
    if not is_whole:
        raise ConfigurationError(
            f"the export is not complete, it breaks off after line {number:,}: {sum(total):,} tasks are kept. Import "
            "all of it again"
        )
    return total


def _keep(file: QueueFile, part: list[_Task], total: Imported, number: int) -> Imported:
    if not part:
        return total
    try:
        outcomes = file.transact(lambda store: [_restore(store, task) for task in part])
    except sqlite3.IntegrityError as error:  # two groups have the same task, or a task has the same attempt twice
        raise ConfigurationError(f"of the tasks up to line {number} two don't go together: {error}") from None
    return Imported(*(sum(column) for column in zip(total, *outcomes)))


def check_head(line: bytes) -> int:
    """The version of the export that begins with this line. Raises ``ConfigurationError`` where none does."""
    if not line:
        raise ConfigurationError("line 1 is missing: this is no export of a queue")
    try:
        head = loads(line)
    except (GreentaskError, ValueError) as error:
        raise ConfigurationError(f"line 1 is no task of a queue: {error!s:.200}") from None
    if not isinstance(head, dict) or head.get("greentask") != "queue":
        raise ConfigurationError('the first line of an export has "greentask": "queue": this is none')
    version = head.get("version")
    if not isinstance(version, int) or version > _VERSION:
        raise ConfigurationError(f"it was written by a newer greentask (version {version!r:.20}): update this one")
    return version


class _Task(NamedTuple):
    id: int
    name: str
    state: str
    enqueued: float
    ended: float | None
    priority: int
    attempts: int
    key: str | None
    key_ttl: float | None
    singleton: str | None
    retries: int | None
    expires: float | None
    due: float | None
    by_clock: bool
    failures: int
    losses: int
    body: bytes | None
    errors: list[tuple[int, float, bytes, bool]]
    composed: dict[str, Any]
    plan: Placed | None

    @classmethod
    def decode(cls, read: Any) -> _Task:
        """Raises ``ValueError``, ``TypeError``, ``KeyError`` or ``OverflowError``."""
        if not isinstance(read, dict):
            raise TypeError("it is no object")
        id = parse_id(_text(read, "task"))
        state = read["state"]
        if id is None or id == 0 or state not in STATES:
            raise ValueError(f"the id or the state is none: {read['task']!r}, {state!r}")
        key, singleton = read.get("key"), read.get("singleton")
        for one in (key, singleton):
            if one is not None and not (isinstance(one, str) and len(one) <= MAX_KEY):
                raise ValueError(f"a key is a string of up to {MAX_KEY} characters, not {one!r:.80}")
        body = None
        if state == "done":
            body = dumps(read["result"])
        elif state not in ("revoked", "expired"):
            if not isinstance(read["call"], dict) or "args" not in read["call"]:
                raise ValueError("call is an object with args")
            body = dumps(read["call"])
        return cls(
            id,
            _text(read, "name"),
            state,
            _number(read, "enqueued", 0.0),
            _maybe(read, "ended"),
            _whole(read, "priority", -MOST_PRIORITY, MOST_PRIORITY),
            _whole(read, "attempts", 0, 10**9),
            key,
            _maybe(read, "key_ttl"),
            singleton,
            None if read.get("retries") is None else _whole(read, "retries", 0, MOST_RETRIES),
            _maybe(read, "expires"),
            _maybe(read, "due"),
            bool(read.get("by_clock")),
            _whole(read, "failures", 0, 10**9),
            _whole(read, "losses", 0, 10**9),
            body,
            [_attempt(one) for one in read.get("errors", [])],
            _check_composed(read.get("composed", {}), body),
            None if read.get("plan") is None else _plan(read["plan"]),
        )


def _attempt(read: Any) -> tuple[int, float, bytes, bool]:
    error = read["error"]
    if not isinstance(error, dict):
        raise TypeError("an error is an object")
    return _whole(read, "attempt", 0, 10**9), _number(read, "at", 0.0), dumps(error), bool(read.get("server"))


def _check_composed(read: Any, body: bytes | None) -> dict[str, Any]:
    if not isinstance(read, dict) or read.keys() - {"blocked", "waiters", "members"}:
        raise ValueError("composed has blocked, waiters and members")
    members, waiters = read.get("members", []), read.get("waiters", [])
    for row in (members, waiters, *members):
        if not isinstance(row, list):
            raise TypeError("composed has lists")
    if not all(len(both) == 2 and 0 < both[0] <= both[1] for both in members):
        raise ValueError("of members it is said which is the first and which the last")
    for id in (*waiters, *(id for both in members for id in both)):
        _whole({"an id": id}, "an id", 1, MOST_ID)
    return {**read, "blocked": _check_blocked(read["blocked"], body or b"")} if "blocked" in read else read


def _plan(read: Any) -> Placed:
    """The ids of a task and of what follows it, in the shape of that."""
    if not isinstance(read, list):
        raise TypeError("a plan is a list of ids, and of groups of such lists")
    placed: Placed = []
    for one in read:
        if isinstance(one, dict) and one.keys() == {"group", "tasks"} and isinstance(one["tasks"], list):
            placed.append({"group": _id(one["group"]), "tasks": [_plan(chain) for chain in one["tasks"]]})
        else:
            placed.append(_id(one))
    return placed


def _id(read: Any) -> str:
    if not isinstance(read, str) or not parse_id(read):
        raise ValueError(f"in a plan there are ids, and groups, not {read!r:.80}")
    return read


def _check_blocked(read: Any, body: bytes) -> list[Any]:
    """As the table has it."""
    if not isinstance(read, list) or len(read) != COLUMNS:
        raise ValueError(f"blocked has {COLUMNS} columns")
    *counts, source, hole, delay, ttl = read
    for value in counts:
        _whole({"a count": value}, "a count", 0, 10**9)
    if source is not None:
        _whole({"the source": source}, "the source", 1, MOST_ID)
    if hole is not None:
        _whole({"the place of what it takes": hole}, "the place of what it takes", 0, len(body))
        if body[hole : hole + 4] != b"null":
            raise ValueError("where it takes something there is no null")
    return [*counts, source, hole, _number({"delay": delay}, "delay", 0.0), _maybe({"ttl": ttl}, "ttl")]


def _text(read: dict[str, Any], name: str) -> str:
    value = read[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is a string, not {value!r:.80}")
    return value


def _number(read: dict[str, Any], name: str, default: float) -> float:
    value = read.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is a number, not {value!r:.80}")
    return float(value)


def _maybe(read: dict[str, Any], name: str) -> float | None:
    return None if read.get(name) is None else _number(read, name, 0.0)


def _whole(read: dict[str, Any], name: str, least: int, most: int) -> int:
    value = read.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is a whole number from {least} to {most}, not {value!r:.80}")
    return value


def _restore(store: Store, task: _Task) -> Imported:
    """Keep a task as it was, within a transaction, unless it is known."""
    db = store.db
    if db.execute("SELECT 1 FROM task WHERE id = ?", (task.id,)).fetchone() is not None:
        return Imported(known=1)
    now, wall = store.time.now(), store.clock.wall()
    state, lane, rank = _STATES.get(task.state, OPEN), store.lane(task.name), -task.priority
    keys = Message(
        task.name, b"", key=task.key, key_ttl=task.key_ttl, singleton=task.singleton if state == OPEN else None
    )
    if store.keys.claim(keys, lane, task.id, sys.maxsize) is not None:
        return Imported(keys=1)
    attempts = None if state == OPEN else task.attempts
    expires = None if task.expires is None else task.expires - wall + now
    db.execute(
        "INSERT INTO task (id, lane, rank, state, enqueued, ended, expires, retries, attempts, key, single, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            task.id,
            lane,
            rank,
            state,
            task.enqueued,
            task.ended,
            expires,
            task.retries,
            attempts,
            task.key,
            task.singleton,
            task.body,
        ),
    )
    if state == OPEN and expires is not None:
        db.execute("INSERT INTO expiry VALUES (?, ?)", (expires, task.id))
    store.composer.restore(task.id, task.composed)
    if task.plan is not None:
        db.execute("INSERT INTO plan VALUES (?, ?)", (task.id, dumps(task.plan)))
    if state == OPEN and "blocked" in task.composed:
        store.composer.catch_up(task.id)
    elif state == OPEN and task.due is not None:
        due = task.due if task.by_clock else task.due - wall + now
        row = (int(task.by_clock), due, task.id, task.failures, task.losses)
        db.execute("INSERT INTO later VALUES (?, ?, ?, ?, ?)", row)
    elif state == OPEN:
        db.execute("INSERT INTO ready VALUES (?, ?, ?, ?, ?)", (lane, rank, task.id, task.failures, task.losses))
    elif state != FAILED and not store.composer.kept([task.id]):  # until its group has ended
        store.forget_later(task.id)
    db.executemany("INSERT INTO failure VALUES (?, ?, ?, ?, ?)", [(task.id, *error) for error in task.errors])
    return Imported(new=1)
