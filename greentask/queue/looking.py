"""Looking at a queue's tasks, one by one and as a whole, and changing what a person wants changed."""

from __future__ import annotations

import sys
from typing import Any

from ..wire.chain import GROUP
from .ids import id_text, parse_id
from .interface import Found, State
from .keys import Keyed
from .moments import in_later
from .store import DONE, EXPIRED, FAILED, OPEN, REVOKED, Store

__all__ = ["dead", "find", "find_by_key", "find_ended", "purge", "retry", "revoke", "revoke_running", "state_of"]

_ASKED = 500  # tasks that are asked for at once
_SCHEDULED = f"SELECT failures + losses FROM later WHERE {in_later(':id')}"
_FORGET_MOMENT = f"DELETE FROM later WHERE {in_later(':id')}"
_FINAL: dict[int, State] = {DONE: "done", FAILED: "failed", REVOKED: "revoked", EXPIRED: "expired"}


def find(store: Store, text: str) -> Found | None:
    """What is known of the task of that id; None: nothing."""
    id = parse_id(text)
    if id is None:
        return None
    row = store.db.execute(
        "SELECT lane, rank, state, enqueued, ended, attempts, body FROM task WHERE id = ?", (id,)
    ).fetchone()
    if row is None:
        return None
    lane, rank, state, enqueued, ended, attempts, body = row
    name = store.name(lane)
    now, attempts = state_of(store, id, lane, rank, state, attempts)
    result = body if state == DONE else None
    error = _last_error(store, id) if state == FAILED else None
    progress = store.composer.progress(id) if name == GROUP else None
    return Found(text, name, now, enqueued, ended, attempts, result, error, progress)


def find_by_key(store: Store, key: str) -> Found | None:
    """What is known of the task that has this key."""
    row = store.db.execute("SELECT id FROM key WHERE key = ?", (key,)).fetchone()
    return None if row is None else find(store, id_text(row[0]))


def state_of(store: Store, id: int, lane: int, rank: int, state: int, attempts: int | None) -> tuple[State, int]:
    """The state of a task's row, and how many attempts have begun."""
    if state == OPEN:
        return _open_state(store, id, lane, rank)
    return _FINAL[state], attempts or 0


def find_ended(store: Store, ids: list[int]) -> list[Found]:
    """What is known of those of these tasks that have ended, and of groups. It is quick where they are few."""
    found = []
    for start in range(0, len(ids), _ASKED):
        part = ids[start : start + _ASKED]
        marks = ", ".join("?" * len(part))
        for (id,) in store.db.execute(
            "SELECT t.id FROM task t LEFT JOIN blocked b ON b.id = t.id "
            f"WHERE t.id IN ({marks}) AND (t.state <> {OPEN} OR b.is_group = 1)",
            part,
        ).fetchall():
            if (one := find(store, id_text(id))) is not None:
                found.append(one)
    return found


def _open_state(store: Store, id: int, lane: int, rank: int) -> tuple[State, int]:
    """Where it is, and how many attempts have begun."""
    row = store.db.execute("SELECT failures + losses FROM running WHERE id = ?", (id,)).fetchone()
    if row is not None:
        return "running", row[0] + 1
    row = store.db.execute(
        "SELECT failures + losses FROM ready WHERE lane = ? AND rank = ? AND id = ?", (lane, rank, id)
    ).fetchone()
    if row is not None:
        return "waiting", row[0]
    row = store.db.execute("SELECT is_group FROM blocked WHERE id = ?", (id,)).fetchone()
    if row is not None:
        return ("running" if row[0] else "blocked"), 0
    row = store.db.execute(_SCHEDULED, {"id": id}).fetchone()
    return "scheduled", 0 if row is None else row[0]


def _last_error(store: Store, id: int) -> bytes | None:
    row = store.db.execute("SELECT error FROM failure WHERE id = ? ORDER BY attempt DESC LIMIT 1", (id,)).fetchone()
    return None if row is None else row[0]


def revoke(store: Store, text: str, *, running: bool = False) -> bool:
    """Have a task that has not begun not begin, within a transaction; False where it has, or is not known.

    ``running``: have one that has begun end, as well; its server sees that in a moment.
    """
    id = parse_id(text)
    row = store.db.execute("SELECT lane, rank, state FROM task WHERE id = ?", (id,)).fetchone()
    if id is None or row is None or row[2] != OPEN:
        return False
    lane, rank, _ = row
    members = store.composer.members(id)
    if members is not None:
        revoked = _revoke_members(store, members, running)
        closed = store.composer.close(id)  # where nobody came back to do it
        return store.composer.give_up(id) or closed or revoked
    state, attempts = _open_state(store, id, lane, rank)
    if state == "running":
        if running:
            store.revoking.mark(id)
        return running
    store.composer.unblock(id)
    store.db.execute("DELETE FROM ready WHERE lane = ? AND rank = ? AND id = ?", (lane, rank, id))
    store.db.execute(_FORGET_MOMENT, {"id": id})
    store.end_without(REVOKED, id, attempts)
    return True


def revoke_running(store: Store, text: str) -> bool:
    """The same, of one that may run."""
    return revoke(store, text, running=True)


def _revoke_members(store: Store, members: list[int], running: bool) -> bool:
    """Have those of a group not begin that have not, or end; whether there were any."""
    revoked = False
    for member in members:
        one: int | None = member
        while one is not None:  # with those before it that it waits for
            before = store.composer.before(one)
            revoked |= revoke(store, id_text(one), running=running)
            one = before
    return revoked


def retry(store: Store, text: str) -> bool:
    """Have a dead letter wait for its turn again, as if it had never been tried, within a transaction.

    False where it has failed with one that it waits for: then it is that one's turn; or with what came of that, which
    it can't take now either. False also where it is a singleton, and another one waits or runs in its place.
    """
    id = parse_id(text)
    row = store.db.execute("SELECT lane, single FROM task WHERE id = ? AND state = ?", (id, FAILED)).fetchone()
    if id is None or row is None:
        return False
    could_not_take = store.composer.could_not_take(id)
    if store.composer.is_blocked(id) and not could_not_take:
        return False
    lane, single = row
    if single is not None and store.keys.claim_single(lane, single, id, sys.maxsize) is not None:
        return False
    store.db.execute("UPDATE task SET state = 0, ended = NULL, attempts = NULL, expires = NULL WHERE id = ?", (id,))
    store.db.execute("DELETE FROM failure WHERE id = ?", (id,))
    store.revoking.take([id])  # of a server of an older version, which knows of no marks
    store.composer.reopened(id)
    if could_not_take:
        return store.composer.take_again(id)
    store.put_back(id, 0, 0, 0.0)
    return True


def purge(store: Store, text: str) -> bool:
    """Forget a task that has ended, within a transaction."""
    id = parse_id(text)
    row = store.db.execute(
        "SELECT state, id, lane, key, single FROM task WHERE id = ? AND state <> ?", (id, OPEN)
    ).fetchone()
    if row is None or store.composer.kept([row[1]]):
        return False
    store.cleaner.purge(Keyed(*row[1:]), is_dead=row[0] == FAILED)
    return True


def dead(store: Store, limit: int, after: str | None = None, *, most_bytes: int | None = None) -> list[dict[str, Any]]:
    """Dead letters, the oldest first, from behind ``after`` on: each with its payload and every attempt's error.

    Not so many, but at least one, where their payloads and errors are more than ``most_bytes``.
    """
    letters: list[dict[str, Any]] = []
    size = 0
    found = store.db.execute(
        "SELECT id, lane, enqueued, ended, attempts, body FROM task WHERE state = 2 AND id > ? ORDER BY id LIMIT ?",
        (0 if after is None else parse_id(after) or 0, limit),
    )
    for id, lane, enqueued, ended, attempts, body in found:
        errors = store.db.execute(
            "SELECT attempt, at, error FROM failure WHERE id = ? ORDER BY attempt", (id,)
        ).fetchall()
        size += len(body) + sum(len(error) for *_, error in errors)
        if letters and most_bytes is not None and size > most_bytes:
            found.close()
            break
        letters.append(
            {
                "task": id_text(id),
                "name": store.name(lane),
                "enqueued": enqueued,
                "ended": ended,
                "attempts": attempts,
                "payload": body,
                "errors": errors,
            }
        )
    return letters
