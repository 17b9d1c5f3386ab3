"""What a queue does with its file, step by step: synchronous, and within a transaction that somebody else begins.

One thread uses a ``Store``, at a time. Nothing here is lost by a rollback but the transaction's own work: what is kept
in memory (``_lanes``) is forgotten then.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .allowances import Allowances
from .attempts import Attempts
from .bulk import SMALL, Ended, Row, end_tasks, insert_tasks, runs
from .cleaning import Cleaner
from .clock import Clock, QueueTime
from .composing import Composer
from .handing import MOST_BYTES, HandingOut
from .ids import next_id
from .interface import Delivery, Ending, Message, Want
from .keys import Keys
from .limits import (
    DEFAULT_DEAD_LIMIT,
    DEFAULT_KEEP_ATTEMPTS,
    DEFAULT_KEY_TTL,
    DEFAULT_MAX_MEMBERS,
    DEFAULT_MAX_TAKEN,
)
from .revoking import Revoking
from .timetable import Ticks

__all__ = ["DONE", "EXPIRED", "FAILED", "OPEN", "REVOKED", "Store"]

logger = logging.getLogger(__name__)

#: The states of a task's row. Of an open one, the other tables know more.
OPEN, DONE, FAILED, REVOKED, EXPIRED = range(5)

_MOST_RIPE = 1000  # tasks whose moment has come that wait for their turn after one transaction

_NO_OPTIONS = Message("", b"")[3:]  # behind name, payload and priority


class Store:
    """The tables of an open file.

    ``result_ttl``: seconds after its end at which a task is forgotten; ``key_ttl``: how much longer its key holds.
    ``dead_limit``: dead letters that are kept. ``max_members`` and ``max_taken``: as the composer has them.
    ``keep_attempts``: of a task, of which all of the error is kept.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        clock: Clock,
        result_ttl: float,
        key_ttl: float = DEFAULT_KEY_TTL,
        dead_limit: int = DEFAULT_DEAD_LIMIT,
        max_members: int = DEFAULT_MAX_MEMBERS,
        max_taken: int = DEFAULT_MAX_TAKEN,
        keep_attempts: int = DEFAULT_KEEP_ATTEMPTS,
    ) -> None:
        self.db = db
        self.clock = clock
        self.time = QueueTime(clock)
        self._result_ttl = result_ttl
        #: What came of those that ended badly.
        self.attempts = Attempts(db, keep_attempts, clock.wall)
        self._lanes: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self.keys = Keys(db, key_ttl)
        self.cleaner = Cleaner(
            db, self.keys, self.time.now, dead_limit, result_ttl, lambda ids: self.composer.needed(ids, result_ttl)
        )
        #: How many of a task may be handed out.
        self.allowances = Allowances(db, self.find_lane, self.name)
        self._handing = HandingOut(self)
        #: Who was revoked while it runs.
        self.revoking = Revoking(db)
        #: What is enqueued by itself.
        self.ticks = Ticks(self)
        #: Who waits for whom.
        self.composer = Composer(self, max_members, max_taken)
        #: Whether tasks have ended in this transaction of which nobody is told.
        self.has_ended_some = False
        #: Those whose attempts were settled in this transaction, and that were revoked meanwhile.
        self.revoked: set[int] = set()
        # The first moments that tasks wait for, by queue time and by the wall clock, where nobody else writes; none is
        # earlier. None: they are to be looked for.
        self._first: list[float | None] | None = None
        self._is_alone = False
        # Those enqueued in this transaction that may be handed out at once, and are not among those that wait yet.
        self._fresh: tuple[list[int], Sequence[Message]] = [], ()

    # ---- Transactions

    def begin(self) -> None:
        """Begin one; nobody else writes until its end."""
        self.has_ended_some = False
        self.revoked.clear()
        self.composer.changed.clear()
        self._fresh = [], ()
        self.db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End it: it is on disk."""
        self.line_up()
        self.db.execute("COMMIT")
        self.ticks.committed()

    def rollback(self) -> None:
        """End it as if it had not been."""
        self._lanes.clear()
        self._names.clear()
        self.ticks.rolled_back()
        self._first = None
        if self.db.in_transaction:  # some errors of SQLite have ended it already
            try:
                self.db.execute("ROLLBACK")
            except sqlite3.Error as error:
                logger.error("a rollback failed: %s", error)

    def attempt(self, change: Callable[[Store], Any]) -> Any:
        """What a change comes to; where it fails, the transaction goes on as if it had not been tried."""
        self.db.execute("SAVEPOINT attempt")
        try:
            value = change(self)
        except BaseException:
            self._lanes.clear()
            self._names.clear()
            if self.db.in_transaction:
                self.db.execute("ROLLBACK TO attempt")
                self.db.execute("RELEASE attempt")
            raise
        self.db.execute("RELEASE attempt")
        return value

    def know_time(self) -> str | None:
        """Go on with the file's queue time; in which start of the machine it was written, if it was."""
        kept = dict(self.db.execute("SELECT name, value FROM meta"))
        if "boot" not in kept:
            return None
        self.time.resume(kept["boot"], kept["base"], kept["last"])
        return str(kept["boot"])

    def keep_time(self) -> None:
        """Go on with the file's queue time, and write down how far it is."""
        if self.know_time() not in (None, self.clock.boot):  # for who wonders how the tasks of these were lost
            self.db.execute("UPDATE holder SET name = name || ', before the machine''s last start'")
        self.db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [("boot", self.clock.boot), ("base", self.time.base), ("last", self.time.now())],
        )

    def keep_settings(self) -> None:
        """Write down how long things are known here, and how much one task takes, for who works beside the servers."""
        self.db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [
                ("result_ttl", self._result_ttl),
                ("key_ttl", self.keys.ttl),
                ("max_taken", self.composer.max_taken),
            ],
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

    def enqueue(self, messages: Sequence[Message], *, blocked: bool = False, before_take: bool = False) -> list[int]:
        """Keep them; their ids, in their order. Of those that have a key which is known, the one that has it.

        ``blocked`` ones do not wait for their turn yet. Nor do others ``before_take``, which this transaction comes to:
        where that hands them out, they were never in line.
        """
        wall, now = self.clock.wall(), self.time.now()
        id = first = next_id(self.newest(), wall)
        ids: list[int] = []
        plain: list[float | bytearray] = []
        others: list[Row] = []
        ready: list[int] = []
        later: list[tuple[int, float, int]] = []
        expiry: list[tuple[float, int]] = []
        for message in messages:
            lane, rank = self._lanes.get(message.task) or self.lane(message.task), -message.priority
            # As most are: they are not asked for each option.
            if message[3:] == _NO_OPTIONS and len(message.payload) <= SMALL:
                plain += (id, lane, rank, wall, bytearray(message.payload))
                if not blocked:
                    ready.append(id)
                ids.append(id)
                id += 1
                continue
            if message.key is not None or message.singleton is not None:
                known = self.keys.claim(message, lane, id, first)
                if known is not None:
                    ids.append(known)
                    continue
            expires = due = None
            if message.ttl is not None:
                expires = now + message.ttl
                expiry.append((expires, id))
            if message.at is not None and message.at > wall:
                due = message.at
                later.append((1, due, id))
            elif message.delay > 0:
                due = now + message.delay
                later.append((0, due, id))
            elif not blocked:
                ready.append(id)
            options = expires, message.retries, message.key, message.singleton, due
            others.append((id, lane, rank, message.payload, *options))
            ids.append(id)
            id += 1
        insert_tasks(self.db, plain, others, wall)
        if before_take and len(ready) == len(messages) and not expiry:
            self.line_up()
            self._fresh = ready, messages
        elif ready:
            self._line_up(ready)
        if later:
            self.db.executemany("INSERT INTO later VALUES (?, ?, ?, 0, 0)", later)
            for clock, due, _ in later:
                self._note_moment(clock, due)
        if expiry:
            self.db.executemany("INSERT INTO expiry VALUES (?, ?)", expiry)
        return ids

    def newest(self) -> int:
        """The highest id that a task of this file has had, also where it is forgotten.

        None is given twice, whatever the clock says: receipts, keys and groups name a task by it for longer than it is
        known.
        """
        (newest,) = self.db.execute(
            "SELECT max(coalesce((SELECT max(id) FROM task), 0), "
            "coalesce((SELECT value FROM meta WHERE name = 'newest'), 0))"
        ).fetchone()
        return int(newest)

    def line_up(self) -> None:
        """Have those wait for their turn that were enqueued before a ``take`` that has not handed them out."""
        ids, _ = self._fresh
        if ids:
            self._fresh = [], ()
            self._line_up(ids)

    def _line_up(self, ids: list[int]) -> None:
        self.db.executemany(
            "INSERT INTO ready SELECT lane, rank, id, 0, 0 FROM task WHERE id BETWEEN ? AND ?", runs(ids)
        )

    # ---- What waits for its moment

    def be_alone(self, is_alone: bool) -> None:
        """Whether nobody else writes, nor has since this was said last: then the first moments are known."""
        self._is_alone = is_alone
        if not is_alone:
            self._first = None

    def next_moment(self) -> float | None:
        """Seconds until the next task's moment has come; None where none waits for one."""
        now = self.time.now()
        due, at = self._moments(now)
        waits = [] if due is None else [due - now]
        if at is not None:
            waits.append(at - self.clock.wall())
        allowed = self.allowances.wait(now)
        if allowed is not None:
            waits.append(allowed)
        return max(0.0, min(waits)) if waits else None

    def _moments(self, now: float) -> list[float | None]:
        """The first by queue time, and by the wall clock."""
        first = self._first
        if first is not None and not _has_come(first[0], now) and not _has_come(first[1], self.clock.wall()):
            return first
        first = list(
            self.db.execute(
                "SELECT (SELECT min(due) FROM later WHERE clock = 0), (SELECT min(due) FROM later WHERE clock = 1)"
            ).fetchone()
        )
        self._first = first if self._is_alone else None
        return first

    def _note_moment(self, clock: int, due: float) -> None:
        if self._first is not None:
            first = self._first[clock]
            self._first[clock] = due if first is None else min(first, due)

    def ripen(self) -> int:
        """Let those wait for their turn whose moment has come; how many they were."""
        ripe, times = 0, (self.time.now(), self.clock.wall())
        for clock, (first, now) in enumerate(zip(self._moments(times[0]), times)):
            if not _has_come(first, now):
                continue
            self._first = None  # they are not the first any more
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
        """Whether a task waits for one of those slots, and may have it."""
        return self._handing.has_ready(wants)

    def take(self, wants: Sequence[Want], holder: int, most_bytes: int = MOST_BYTES) -> list[Delivery]:
        """Hand out tasks, as many as there are slots, in their order; they are that holder's from now on.

        Of payloads in all a little more than ``most_bytes``, at most.
        """
        fresh, self._fresh = self._fresh, ([], ())
        if fresh[0]:
            deliveries = self._handing.take_fresh(*fresh, wants, holder, most_bytes)
            if deliveries is not None:
                return deliveries
            self._line_up(fresh[0])
        return self._handing.take(wants, holder, most_bytes)

    # ---- Settling

    def settle(self, settled: Sequence[tuple[Delivery, Ending]]) -> list[bool]:
        """Write down how these attempts ended; whether each was still its holder's to end."""
        if not settled:
            return []
        ids, holder = sorted([delivery.handle[0] for delivery, _ in settled]), settled[0][0].handle[1]
        delete = "DELETE FROM running WHERE id BETWEEN ? AND ? AND holder = ?"
        self.db.execute("SAVEPOINT settling")
        gone = self.db.executemany(delete, [(*both, holder) for both in runs(ids)]).rowcount
        counts = [True] * len(settled)
        if gone != len(settled):  # some were taken back
            self.db.execute("ROLLBACK TO settling")
            counts = [self._let_go(*delivery.handle[:2]) for delivery, _ in settled]
        self.db.execute("RELEASE settling")
        marked = self.revoking.take(one.handle[0] for (one, _), counted in zip(settled, counts) if counted)
        done: list[Ended] = []
        for (delivery, ending), counted in zip(settled, counts):
            if not counted:
                continue
            if ending.how == "done":
                done.append((delivery.handle[0], delivery.attempt, ending.body))
            elif delivery.handle[0] in marked:
                self._settle_revoked(delivery, ending)
            else:
                self._settle_otherwise(delivery, ending)
        if done:
            self._end(DONE, done)
        return counts

    def _let_go(self, id: int, holder: int) -> bool:
        return self.db.execute("DELETE FROM running WHERE id = ? AND holder = ?", (id, holder)).rowcount == 1

    def _settle_otherwise(self, delivery: Delivery, ending: Ending) -> None:
        id, failures, losses = delivery.handle[0], delivery.failures, delivery.losses
        if ending.how != "released":
            self.attempts.note(id, delivery.attempt, ending.body)
        elif len(delivery.handle) > 2:
            self.allowances.give_back(*delivery.handle[2:])
        if ending.how == "failed":
            self.bury(id, delivery.attempt)
            return
        failures += ending.how == "retry"
        losses += ending.how == "lost"
        self.put_back(id, failures, losses, ending.delay)

    def _settle_revoked(self, delivery: Delivery, ending: Ending) -> None:
        id = delivery.handle[0]
        if ending.how != "released":  # it had an error of its own
            self.attempts.note(id, delivery.attempt, ending.body)
        self.revoked.add(id)
        self.end_without(REVOKED, id, delivery.attempt)

    def put_back(self, id: int, failures: int, losses: int, delay: float) -> None:
        """Have it wait again, for its turn or for so many seconds."""
        if delay > 0:
            due = self.time.now() + delay
            self.db.execute("INSERT INTO later VALUES (0, ?, ?, ?, ?)", (due, id, failures, losses))
            self._note_moment(0, due)
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
        self.composer.ended([id], well=False)

    def _end(self, state: int, bodies: Sequence[Ended]) -> None:
        """End tasks for good: what came of each takes the place of its payload."""
        alone = self.composer.is_empty()  # as for most of them, and asked once
        self.write_end(state, bodies, alone=alone)
        if not alone:
            self.composer.ended([id for id, *_ in bodies], well=state == DONE)

    def write_end(self, state: int, bodies: Sequence[Ended], *, alone: bool = False) -> None:
        """As above, and nobody who waits for them hears of it. ``alone``: nobody waits for any task."""
        bodies = sorted(bodies)
        end_tasks(self.db, state, self.clock.wall(), bodies)
        ids = [id for id, *_ in bodies]
        kept = set() if alone else self.composer.kept(ids)
        forget = self.time.now() + self._result_ttl
        self.db.executemany(
            "INSERT OR IGNORE INTO forget SELECT ?, id FROM task WHERE id BETWEEN ? AND ?",
            [(forget, *both) for both in runs([id for id in ids if id not in kept] if kept else ids)],
        )

    def forget_members(self, group: int) -> None:
        """Forget in a while those of a group that were kept for who waits for it."""
        self.db.execute(
            "INSERT OR IGNORE INTO forget SELECT ?, t.id FROM member m "
            "JOIN task t ON t.id BETWEEN m.first AND m.last AND t.state IN (1, 3, 4) WHERE m.waiter = ?",
            (self.time.now() + self._result_ttl, group),
        )

    def end_without(self, state: int, id: int, attempts: int = 0) -> None:
        """End one that has no result, after so many attempts."""
        self.has_ended_some = True
        self._end(state, [(id, attempts, None)])

    def end_expired(self, ids: Iterable[int]) -> None:
        """End those that have not begun within their ttl."""
        self.has_ended_some = True
        self._end(EXPIRED, [(id, 0, None) for id in ids])

    # ---- Forgetting

    def forget_later(self, id: int) -> None:
        """Forget one that has ended, when its time has come."""
        self.db.execute("INSERT INTO forget VALUES (?, ?)", (self.time.now() + self._result_ttl, id))


def _has_come(moment: float | None, now: float) -> bool:
    return moment is not None and moment <= now
