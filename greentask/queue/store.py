"""What a queue does with its file, step by step: synchronous, and within a transaction that somebody else begins.

One thread uses a ``Store``, at a time. Nothing here is lost by a rollback but the transaction's own work: what is kept
in memory (``_lanes``) is forgotten then.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from .clock import Clock, QueueTime
from .ids import id_text, next_id
from .interface import Delivery, Ending, Message, Want
from .pausing import paused
from .sharing import Group, Sharing

__all__ = ["DONE", "EXPIRED", "FAILED", "OPEN", "REVOKED", "Store"]

logger = logging.getLogger(__name__)

#: The states of a task's row. Of an open one, the other tables know more.
OPEN, DONE, FAILED, REVOKED, EXPIRED = range(5)

_MOST_BYTES = 32 * 1024 * 1024  # of payloads that are taken at once
_MOST_RIPE = 1000  # tasks whose moment has come that wait for their turn after one transaction
_MOST_FORGOTTEN = 200  # tasks that are forgotten in one transaction
_MOST_PAGES = 500  # pages that are given back to the file system at once
_SPARE = 4096  # free pages that are kept

_GROUPS = """
WITH RECURSIVE found (lane, rank) AS (
    SELECT * FROM (SELECT lane, rank FROM ready ORDER BY lane, rank LIMIT 1)
    UNION ALL
    SELECT CASE WHEN EXISTS (SELECT 1 FROM ready r WHERE r.lane = found.lane AND r.rank > found.rank)
                THEN found.lane ELSE (SELECT min(r.lane) FROM ready r WHERE r.lane > found.lane) END,
           coalesce((SELECT min(r.rank) FROM ready r WHERE r.lane = found.lane AND r.rank > found.rank),
                    (SELECT r.rank FROM ready r WHERE r.lane > found.lane ORDER BY r.lane, r.rank LIMIT 1))
    FROM found WHERE found.lane IS NOT NULL
)
SELECT lane, rank, (SELECT min(id) FROM ready r WHERE r.lane = found.lane AND r.rank = found.rank)
FROM found WHERE lane IS NOT NULL
"""


class Store:
    """The tables of an open file. ``result_ttl``: seconds after its end at which a task is forgotten."""

    def __init__(self, db: sqlite3.Connection, clock: Clock, result_ttl: float) -> None:
        self.db = db
        self.clock = clock
        self.time = QueueTime(clock)
        self._result_ttl = result_ttl
        self._lanes: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._sharing = Sharing()
        #: Whether tasks have ended in this transaction of which nobody is told.
        self.has_ended_some = False

    # ---- Transactions

    def begin(self) -> None:
        """Begin one; nobody else writes until its end."""
        self.has_ended_some = False
        self.db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End it: it is on disk."""
        self.db.execute("COMMIT")

    def rollback(self) -> None:
        """End it as if it had not been."""
        self._lanes.clear()
        self._names.clear()
        if self.db.in_transaction:  # some errors of SQLite have ended it already
            try:
                self.db.execute("ROLLBACK")
            except sqlite3.Error as error:
                logger.error("a rollback failed: %s", error)

    def know_time(self) -> None:
        """Go on with the file's queue time."""
        kept = dict(self.db.execute("SELECT name, value FROM meta"))
        if "boot" in kept:
            self.time.resume(kept["boot"], kept["base"], kept["last"])

    def keep_time(self) -> None:
        """Go on with the file's queue time, and write down how far it is."""
        self.know_time()
        self.db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [("boot", self.clock.boot), ("base", self.time.base), ("last", self.time.now())],
        )

    def note_time(self) -> None:
        """Write down how far queue time is, for the case that the machine loses its clock."""
        self.db.execute("UPDATE meta SET value = ? WHERE name = 'last'", (self.time.now(),))

    # ---- Names

    def lane(self, task: str) -> int:
        """The number of a name, which it gets where it has none."""
        lane = self._lanes.get(task)
        if lane is None:
            self.db.execute("INSERT OR IGNORE INTO lane (name) VALUES (?)", (task,))
            (lane,) = self.db.execute("SELECT id FROM lane WHERE name = ?", (task,)).fetchone()
            self._lanes[task] = lane
            self._names[lane] = task
        return lane

    def find_lane(self, task: str) -> int | None:
        """The number of a name; None where it has none."""
        if task not in self._lanes:
            row = self.db.execute("SELECT id FROM lane WHERE name = ?", (task,)).fetchone()
            if row is None:
                return None
            self._lanes[task] = row[0]
        return self._lanes[task]

    def name(self, lane: int) -> str:
        """The name of a number."""
        name = self._names.get(lane)
        if name is None:
            (name,) = self.db.execute("SELECT name FROM lane WHERE id = ?", (lane,)).fetchone()
            self._names[lane] = name
        return name

    # ---- Enqueueing

    def enqueue(self, messages: Iterable[Message]) -> list[int]:
        """Keep them; their ids, in their order. Of those that have a key which is known, the one that has it."""
        (last,) = self.db.execute("SELECT max(id) FROM task").fetchone()
        wall, now = self.clock.wall(), self.time.now()
        id = next_id(last or 0, wall)
        ids: list[int] = []
        tasks: list[tuple[Any, ...]] = []
        ready: list[tuple[int, int, int]] = []
        later: list[tuple[int, float, int]] = []
        for message in messages:
            if message.key is not None:
                known = self._claim(message.key, id)
                if known is not None:
                    ids.append(known)
                    continue
            lane, rank = self.lane(message.task), -message.priority
            expires = None if message.ttl is None else now + message.ttl
            tasks.append((id, lane, rank, wall, expires, message.retries, message.key, message.payload))
            if message.at is not None and message.at > wall:
                later.append((1, message.at, id))
            elif message.delay > 0:
                later.append((0, now + message.delay, id))
            else:
                ready.append((lane, rank, id))
            ids.append(id)
            id += 1
        self.db.executemany(
            "INSERT INTO task (id, lane, rank, state, enqueued, expires, retries, key, body) "
            "VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?)",
            tasks,
        )
        if ready:
            self.db.executemany("INSERT INTO ready VALUES (?, ?, ?, 0, 0)", ready)
        if later:
            self.db.executemany("INSERT INTO later VALUES (?, ?, ?, 0, 0)", later)
        return ids

    def _claim(self, key: str, id: int) -> int | None:
        """Let the key be that task's; the task whose it is already."""
        if self.db.execute("INSERT OR IGNORE INTO key VALUES (?, ?)", (key, id)).rowcount:
            return None
        known: int = self.db.execute("SELECT id FROM key WHERE key = ?", (key,)).fetchone()[0]
        return known

    # ---- What waits for its moment

    def next_moment(self) -> float | None:
        """Seconds until the next task's moment has come; None where none waits for one."""
        due = dict(self.db.execute("SELECT 0, min(due) FROM later WHERE clock = 0"))[0]
        at = dict(self.db.execute("SELECT 0, min(due) FROM later WHERE clock = 1"))[0]
        waits = [] if due is None else [due - self.time.now()]
        if at is not None:
            waits.append(at - self.clock.wall())
        return max(0.0, min(waits)) if waits else None

    def ripen(self) -> int:
        """Let those wait for their turn whose moment has come; how many they were."""
        ripe = 0
        for clock, now in enumerate((self.time.now(), self.clock.wall())):
            rows = self.db.execute(
                "SELECT l.due, l.id, l.failures, l.losses, t.lane, t.rank FROM later l "
                "LEFT JOIN task t ON t.id = l.id AND t.state = 0 "
                "WHERE l.clock = ? AND l.due <= ? ORDER BY l.due, l.id LIMIT ?",
                (clock, now, _MOST_RIPE),
            ).fetchall()
            if rows:
                self.db.executemany(
                    "DELETE FROM later WHERE clock = ? AND due = ? AND id = ?",
                    [(clock, due, id) for due, id, *_ in rows],
                )
                self.db.executemany(
                    "INSERT OR IGNORE INTO ready VALUES (?, ?, ?, ?, ?)",
                    [
                        (lane, rank, id, failures, losses)
                        for _, id, failures, losses, lane, rank in rows
                        if lane is not None  # it was revoked meanwhile
                    ],
                )
                ripe += len(rows)
        return ripe

    # ---- Taking

    def has_ready(self, wants: Iterable[Want]) -> bool:
        """Whether a task waits for one of those slots."""
        held = paused(self.db)
        return any(
            not held.holds(task)
            and (lane := self.find_lane(task)) is not None
            and self.db.execute("SELECT 1 FROM ready WHERE lane = ? LIMIT 1", (lane,)).fetchone() is not None
            for want in wants
            for task in want.tasks
        )

    def take(self, wants: Sequence[Want], holder: int) -> list[Delivery]:
        """Hand out tasks, as many as there are slots, in their order; they are that holder's from now on."""
        held = paused(self.db)
        groups = [Group(*row) for row in self.db.execute(_GROUPS)]
        taken: list[tuple[int, list[Delivery]]] = []
        room = _MOST_BYTES
        for want in wants:
            tasks = {task for task in want.tasks if not held.holds(task)}
            mine = [group for group in groups if self.name(group.lane) in tasks]
            slots = want.slots
            while mine and slots > 0 and room > 0:
                for group, share in self._sharing.divide(mine, slots):
                    found, deliveries = self._take_of(group, share, room, holder)
                    taken.append((group.rank, deliveries))
                    slots -= len(deliveries)
                    room -= sum(len(delivery.payload) for delivery in deliveries)
                    if found < share and room > 0:
                        mine.remove(group)
        taken.sort(key=lambda part: part[0])
        return [delivery for _, deliveries in taken for delivery in deliveries]

    def _take_of(self, group: Group, share: int, room: int, holder: int) -> tuple[int, list[Delivery]]:
        """The first so many of a group: how many there were, and those that are to be run."""
        name, now = self.name(group.lane), self.time.now()
        deliveries: list[Delivery] = []
        expired: list[int] = []
        last = found = 0
        cursor = self.db.execute(
            "SELECT r.id, r.failures, r.losses, t.state, t.expires, t.retries, t.body FROM ready r "
            "LEFT JOIN task t ON t.id = r.id WHERE r.lane = ? AND r.rank = ? ORDER BY r.id LIMIT ?",
            (group.lane, group.rank, share),
        )
        for id, failures, losses, state, expires, retries, body in cursor:
            last, found = id, found + 1
            if expires is not None and expires <= now and state == OPEN:
                expired.append(id)
            elif state == OPEN:
                deliveries.append(Delivery(id_text(id), name, body, failures, losses, retries, (id, holder)))
                room -= len(body)
                if room <= 0:
                    break
        cursor.close()
        if found:
            group.head = last + 1
            self.db.execute("DELETE FROM ready WHERE lane = ? AND rank = ? AND id <= ?", (group.lane, group.rank, last))
            self.db.executemany(
                "INSERT INTO running VALUES (?, ?, ?, ?)",
                [(one.handle[0], holder, one.failures, one.losses) for one in deliveries],
            )
        if expired:
            self._end(EXPIRED, [(None, 0, id) for id in expired])
            self.has_ended_some = True
        return found, deliveries

    # ---- Settling

    def settle(self, settled: Sequence[tuple[Delivery, Ending]]) -> list[bool]:
        """Write down how these attempts ended; whether each was still its holder's to end."""
        handles = [delivery.handle for delivery, _ in settled]
        self.db.execute("SAVEPOINT settling")
        gone = self.db.executemany("DELETE FROM running WHERE id = ? AND holder = ?", handles).rowcount
        counts = [True] * len(settled)
        if gone != len(settled):  # some were taken back
            self.db.execute("ROLLBACK TO settling")
            delete = "DELETE FROM running WHERE id = ? AND holder = ?"
            counts = [self.db.execute(delete, handle).rowcount == 1 for handle in handles]
        self.db.execute("RELEASE settling")
        done: list[tuple[bytes | None, int, int]] = []
        for (delivery, ending), counted in zip(settled, counts):
            if not counted:
                continue
            if ending.how == "done":
                done.append((ending.body, delivery.attempt, delivery.handle[0]))
            else:
                self._settle_otherwise(delivery, ending)
        if done:
            self._end(DONE, done)
        return counts

    def _settle_otherwise(self, delivery: Delivery, ending: Ending) -> None:
        id, failures, losses = delivery.handle[0], delivery.failures, delivery.losses
        if ending.how != "released":
            self.note_failure(id, delivery.attempt, ending.body)
        if ending.how == "failed":
            self.bury(id, delivery.attempt)
            return
        failures += ending.how == "retry"
        losses += ending.how == "lost"
        self.put_back(id, failures, losses, ending.delay)

    def note_failure(self, id: int, attempt: int, error: bytes) -> None:
        """Write down what came of an attempt."""
        self.db.execute("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?)", (id, attempt, self.clock.wall(), error))

    def put_back(self, id: int, failures: int, losses: int, delay: float) -> None:
        """Have it wait again, for its turn or for so many seconds."""
        if delay > 0:
            self.db.execute("INSERT INTO later VALUES (0, ?, ?, ?, ?)", (self.time.now() + delay, id, failures, losses))
        else:
            self.db.execute(
                "INSERT INTO ready SELECT lane, rank, id, ?, ? FROM task WHERE id = ? AND state = 0",
                (failures, losses, id),
            )

    def bury(self, id: int, attempts: int) -> None:
        """Make it a dead letter: it keeps its payload, and stays until somebody retries or purges it."""
        self.db.execute(
            "UPDATE task SET state = 2, ended = ?, attempts = ? WHERE id = ?", (self.clock.wall(), attempts, id)
        )

    def _end(self, state: int, bodies: Sequence[tuple[bytes | None, int, int]]) -> None:
        """End tasks for good: what came of each takes the place of its payload."""
        wall, forget = self.clock.wall(), self.time.now() + self._result_ttl
        self.db.executemany(
            f"UPDATE task SET state = {state}, ended = {wall!r}, body = ?, attempts = ? WHERE id = ?", bodies
        )
        self.db.executemany("INSERT INTO forget VALUES (?, ?)", [(forget, id) for *_, id in bodies])

    def end_without(self, state: int, id: int) -> None:
        """End one that has no result."""
        self.has_ended_some = True
        self._end(state, [(None, 0, id)])

    # ---- Forgetting

    def forget_later(self, id: int) -> None:
        """Forget one that has ended, when its time has come."""
        self.db.execute("INSERT INTO forget VALUES (?, ?)", (self.time.now() + self._result_ttl, id))

    def has_forgettable(self) -> bool:
        """Whether the time of one has come."""
        row = self.db.execute("SELECT at FROM forget ORDER BY at LIMIT 1").fetchone()
        return row is not None and row[0] <= self.time.now()

    def forget(self) -> int:
        """Forget tasks that ended long enough ago, some at a time; how many they were."""
        rows = self.db.execute(
            "SELECT f.at, f.id, t.key FROM forget f LEFT JOIN task t ON t.id = f.id "
            "WHERE f.at <= ? ORDER BY f.at, f.id LIMIT ?",
            (self.time.now(), _MOST_FORGOTTEN),
        ).fetchall()
        if rows:
            self.erase([(id, key) for _, id, key in rows])
            self.db.executemany("DELETE FROM forget WHERE at = ? AND id = ?", [(at, id) for at, id, _ in rows])
        return len(rows)

    def can_shrink(self) -> bool:
        """Whether more than half of the file is free."""
        (free,) = self.db.execute("PRAGMA freelist_count").fetchone()
        return bool(free > _SPARE and free * 2 > self.db.execute("PRAGMA page_count").fetchone()[0])

    def shrink(self) -> None:
        """Give some free pages back to the file system; not within a transaction."""
        # Not execute, which takes one step of it, and that is one page.
        self.db.executescript(f"PRAGMA incremental_vacuum({_MOST_PAGES})")

    def erase(self, tasks: Sequence[tuple[int, str | None]]) -> None:
        """Know nothing more of these tasks, which have ended, and of their keys."""
        ids = [(id,) for id, _ in tasks]
        self.db.executemany("DELETE FROM task WHERE id = ?", ids)
        self.db.executemany("DELETE FROM failure WHERE id = ?", ids)
        self.db.executemany("DELETE FROM key WHERE key = ? AND id = ?", [(key, id) for id, key in tasks if key])
