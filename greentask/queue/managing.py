"""What people ask of a queue as a whole: which tasks are there, and what is to become of those that fit a filter.

Each step looks at a bounded number of tasks, and says from where to go on: it is taken by the thread that writes for a
server, or in a transaction beside servers, and holds nobody up. Everything that goes in or out is plain JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from ..errors import InvalidArguments
from ..wire.chain import GROUP
from ..wire.json import loads
from .ids import id_text, parse_id
from .interface import State
from .looking import purge, retry, revoke, revoke_running, state_of
from .moments import in_later
from .offers import not_offered
from .pausing import paused
from .store import DONE, FAILED, OPEN, Store
from .timetable import next_ticks

__all__ = ["CHANGES", "STATES", "Filter", "change", "change_some", "list_tasks", "select", "show", "stats"]

STATES: tuple[State, ...] = get_args(State)

_SCANNED = 2000  # tasks that are looked at in one step
_MOST_TEXT = 1024 * 1024  # characters of errors that are told in one step
_CHANGED = 500  # tasks that are changed in one step

#: What can be done to a task, and in which states that makes sense.
CHANGES: dict[str, tuple[Callable[[Store, str], bool], frozenset[State]]] = {
    "retry": (retry, frozenset({"failed"})),
    "purge": (purge, frozenset({"done", "failed", "revoked", "expired"})),
    "revoke": (revoke, frozenset({"blocked", "waiting", "scheduled"})),
    "revoke_running": (revoke_running, frozenset({"blocked", "waiting", "scheduled", "running"})),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tasks: in one of these ``states`` (none: any), of that ``name``, enqueued at least ``older`` and at most
    ``younger`` seconds ago, and whose last attempt ended with an ``error`` of that type.
    """

    states: frozenset[State] = frozenset()
    name: str | None = None
    error: str | None = None
    older: float | None = None
    younger: float | None = None

    @classmethod
    def decode(cls, given: dict[str, Any]) -> Filter:
        """From what JSON carries. Raises ``InvalidArguments``."""
        states = given.get("states") or ()
        if not isinstance(states, (list, tuple)) or any(state not in STATES for state in states):
            raise InvalidArguments(f"states is a list of some of {', '.join(STATES)}, not {states!r:.80}")
        for name in ("name", "error"):
            if not isinstance(given.get(name), (str, type(None))):
                raise InvalidArguments(f"{name} is a string, not {given[name]!r:.80}")
        for name in ("older", "younger"):
            value = given.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
                raise InvalidArguments(f"{name} is a number of seconds, not {value!r:.80}")
        return cls(frozenset(states), given.get("name"), given.get("error"), given.get("older"), given.get("younger"))


class _Row(NamedTuple):
    id: int
    lane: int
    rank: int
    state: int
    enqueued: float
    ended: float | None
    attempts: int | None
    key: str | None


_COLUMNS = ", ".join(_Row._fields)


def _rows(store: Store, wanted: Filter, after: int) -> list[_Row]:
    """The next few tasks that may be wanted."""
    if wanted.states == {"failed"}:
        where = "state = 2 AND id > ?"
    elif wanted.states == {"running"}:
        where = "id IN (SELECT id FROM running WHERE id > ?)"
    else:
        where = "id > ?"
    found = store.db.execute(f"SELECT {_COLUMNS} FROM task WHERE {where} ORDER BY id LIMIT {_SCANNED}", (after,))
    return [_Row(*row) for row in found]


def select(store: Store, wanted: Filter, after: str | None, most: int) -> tuple[list[dict[str, Any]], str | None]:
    """Tasks that are wanted, from behind one on, and behind which one to go on; None: there are no more."""
    rows = _rows(store, wanted, 0 if after is None else parse_id(after) or 0)
    lane = None if wanted.name is None else store.find_lane(wanted.name)
    if wanted.name is not None and lane is None:
        return [], None
    now = store.clock.wall()
    found: list[dict[str, Any]] = []
    room = _MOST_TEXT
    for row in rows:
        if lane is not None and row.lane != lane:
            continue
        if wanted.older is not None and now - row.enqueued < wanted.older:
            continue
        if wanted.younger is not None and now - row.enqueued > wanted.younger:
            continue
        state, attempts = state_of(store, row.id, row.lane, row.rank, row.state, row.attempts)
        if wanted.states and state not in wanted.states:
            continue
        error = _last_error(store, row.id)
        if wanted.error is not None and (error is None or error.get("type") != wanted.error):
            continue
        found.append(_told(store, row, state, attempts, error))
        room -= 0 if error is None else len(str(error.get("message")))
        if len(found) == most or room <= 0:
            return found, id_text(row.id)
    return found, id_text(rows[-1].id) if len(rows) == _SCANNED else None


def _told(store: Store, row: _Row, state: State, attempts: int, error: dict[str, Any] | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "task": id_text(row.id),
        "name": store.name(row.lane),
        "state": state,
        "enqueued": row.enqueued,
        "ended": row.ended,
        "priority": -row.rank,
        "attempts": attempts,
        "key": row.key,
    }
    if error is not None:
        told["error"] = {"type": error.get("type"), "message": error.get("message")}
    return told


def _last_error(store: Store, id: int) -> dict[str, Any] | None:
    row = store.db.execute("SELECT error FROM failure WHERE id = ? ORDER BY attempt DESC LIMIT 1", (id,)).fetchone()
    return None if row is None else loads(row[0])


# ---- Looking


def list_tasks(store: Store, wanted: Filter, after: str | None, limit: int) -> dict[str, Any]:
    """``tasks``, the oldest first, and ``next``: where to go on, which may bring more even where these are none."""
    tasks, following = select(store, wanted, after, limit)
    return {"tasks": tasks, "next": following}


def show(store: Store, text: str) -> dict[str, Any] | None:
    """All that is known of a task: its arguments, every attempt's error with its traceback, its result."""
    id = parse_id(text)
    found = store.db.execute(f"SELECT {_COLUMNS}, retries, expires, body FROM task WHERE id = ?", (id,)).fetchone()
    if id is None or found is None:
        return None
    row, (retries, expires, body) = _Row(*found[:-3]), found[-3:]
    state, attempts = state_of(store, row.id, row.lane, row.rank, row.state, row.attempts)
    told = _told(store, row, state, attempts, None)
    if row.state in (OPEN, FAILED) and told["name"] != GROUP:
        told["args"] = loads(body).get("args")
    if row.state == DONE:
        told["result"] = loads(body)
    if retries is not None:
        told["retries"] = retries
    if expires is not None and row.state == OPEN:
        told["expires_in"] = expires - store.time.now()
    if state == "scheduled":
        told["due_in"] = _due_in(store, id)
    before = store.composer.before(id)
    if before is not None:
        told["waits_for"] = id_text(before)
    if state == "failed" and (cause := store.composer.cause(id)) is not None:
        told["failed_with"] = id_text(cause)
    if told["name"] == GROUP and (progress := store.composer.progress(id)) is not None and row.state == OPEN:
        told["progress"] = loads(progress)
    holder = store.db.execute(
        "SELECT h.name FROM running r JOIN holder h ON h.id = r.holder WHERE r.id = ?", (id,)
    ).fetchone()
    if holder is not None:
        told["server"] = holder[0]
        if store.revoking.is_marked(id):
            told["is_revoked"] = True  # it is being ended
    errors = store.db.execute("SELECT attempt, at, error FROM failure WHERE id = ? ORDER BY attempt", (id,))
    told["errors"] = [{"attempt": attempt, "at": at, **loads(error)} for attempt, at, error in errors]
    return told


def _due_in(store: Store, id: int) -> float | None:
    row = store.db.execute(f"SELECT clock, due FROM later WHERE {in_later(':id')}", {"id": id}).fetchone()
    if row is None:
        return None
    return float(row[1] - (store.clock.wall() if row[0] else store.time.now()))


def stats(store: Store, is_alive: Callable[[int], bool] = lambda _holder: True) -> dict[str, Any]:
    """How many tasks are in which state, by name as well, what is paused, what no server offers, and how large the file
    is. ``is_alive`` says of a holder whether it is.
    """
    db = store.db
    counts = {
        name: db.execute(f"SELECT count(*) FROM {source}").fetchone()[0]
        for name, source in (
            ("waiting", "ready"),
            ("scheduled", "later"),
            ("blocked", "blocked b JOIN task t ON t.id = b.id AND t.state = 0 WHERE b.is_group = 0"),
            ("running", "running"),
            ("failed", "task WHERE state = 2"),
        )
    }
    counts["ended"] = store.cleaner.ended()
    tasks: dict[str, dict[str, int]] = {}
    for state, grouped in (
        ("waiting", "SELECT lane, count(*) FROM ready GROUP BY lane"),
        ("running", "SELECT lane, count(*) FROM running GROUP BY lane"),
        ("failed", "SELECT lane, count(*) FROM task WHERE state = 2 GROUP BY lane"),
    ):
        for lane, count in db.execute(grouped):
            tasks.setdefault(store.name(lane), {})[state] = count
    oldest = db.execute("SELECT enqueued FROM task WHERE id = (SELECT min(id) FROM ready)").fetchone()
    now_paused = paused(db)
    page, pages, free = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    return {
        **counts,
        "tasks": tasks,
        "oldest": None if oldest is None else max(0.0, store.clock.wall() - oldest[0]),
        "next_ticks": next_ticks(store),
        "paused": now_paused.all,
        "paused_tasks": sorted(now_paused.tasks),
        "not_offered": not_offered(db, is_alive),
        "bytes": page * pages,
        "free_bytes": page * free,
    }


# ---- Changing


def change(store: Store, action: str, tasks: Iterable[str]) -> list[str]:
    """Do it to each of these tasks, within a transaction; to which of them that made sense."""
    one, _ = CHANGES[action]
    return [task for task in tasks if one(store, task)]


def change_some(store: Store, action: str, wanted: Filter, after: str | None) -> tuple[int, str | None]:
    """Do it to some of those that fit, within a transaction: to how many, and from where to go on; None: that's all."""
    _, states = CHANGES[action]
    if not wanted.states:
        wanted = Filter(states, wanted.name, wanted.error, wanted.older, wanted.younger)
    elif wanted.states - states:
        raise InvalidArguments(
            f"{action.partition('_')[0]} is for tasks that are {', '.join(sorted(states))}, not "
            f"{', '.join(sorted(wanted.states - states))}"
        )
    found, following = select(store, wanted, after, _CHANGED)
    return len(change(store, action, [task["task"] for task in found])), following
