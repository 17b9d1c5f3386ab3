"""Runs what a queue hands out: asks for as many deliveries as can be run soon, and says how each ended.

Tasks that share something that is scarce share its slots: those of one group of task processes, those that run in
greenlets; and one that says ``max_running`` or ``rate`` has its own. There are as many slots as can run at once, and as
many more as were done in the last tenth of a second: tiny tasks come hundreds in one commit, and a long one is not
taken before it can begin. What was taken and does not begin within a second (plain calls may have all processes, too)
is given back, for others may be idle: so they have a moment for taking it, in which it is not asked for again. Where it
comes back all the same, it may wait for four times as long: there may always be plain calls that came before it.

Everything here happens in the hub.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gevent.event import Event
from gevent.hub import get_hub

from ..errors import (
    CallError,
    Cancelled,
    Draining,
    GreentaskError,
    InvalidArguments,
    Overloaded,
    WorkerLost,
    from_wire,
    refusal,
)
from ..pool.frames import Body, whole
from ..runner import QUEUE, Runner, Running
from ..tasks.task import Task
from ..wire.json import dumps, loads, loads_checked
from ..wire.message import Args, Call
from .holders import pause_after_loss
from .interface import Delivery, Ending, Limit, Source, Want
from .limits import DEFAULT_GREENLETS, DEFAULT_MAX_LOST_PROCESSES

__all__ = ["Consumer"]

logger = logging.getLogger(__name__)

_AHEAD = 0.1  # seconds of work that is taken ahead
_MOST_AHEAD = 1000  # tasks
_QUICK = 100  # tasks a second: those with a lower rate are not taken ahead
_MEASURED_OVER = 0.02  # seconds
_PATIENCE = 1.0  # seconds that what was taken may wait, for the first time
_MOST_PATIENCE = 600.0
_REMEMBERED = 1000  # tasks of which it is known that they have been given back
_REST = 0.1  # seconds in which others may take what was given back
_MOST_TEXT = 20_000  # characters of an error's message, and of its traceback
_PAUSE = 1.0  # seconds until a task is tried again that could not be run at all


class Place:
    """Slots that some tasks share: ``size`` says how many of them run at once."""

    def __init__(
        self, tasks: frozenset[str], size: Callable[[], int], *, takes_ahead: bool, is_rated: bool = False
    ) -> None:
        self.tasks = tasks
        self.size = size
        self.is_rated = is_rated  # when it begins is not to be long after it was counted
        self.attempts: dict[Attempt, None] = {}  # that run or wait here, in the order in which they came
        self.asked = 0  # slots that were asked for and are not filled yet
        self.rests = False  # what was given back is for others at the moment
        self._takes_ahead = takes_ahead
        self._ended = 0  # since the last measuring
        self._measured_at = time.monotonic()
        self._ahead = 0

    def ended(self, attempt: Attempt) -> None:
        """One has ended."""
        if self.attempts.pop(attempt, self) is None:
            self._ended += 1

    def free(self, now: float) -> int:
        """How many more may be asked for; less than 0 where there are too many."""
        if self._takes_ahead and now - self._measured_at >= _MEASURED_OVER:
            self._ahead = min(_MOST_AHEAD, int(self._ended / (now - self._measured_at) * _AHEAD))
            self._ended, self._measured_at = 0, now
        if self.rests:
            return -self.asked
        return self.size() + self._ahead - len(self.attempts) - self.asked


class Consumer:
    """Runs the deliveries of a source with a runner. ``greenlets``: how many run in greenlets at once.

    ``max_lost_processes``: so many may die while they run one task; then it is a dead letter. ``progress`` hears of the
    progress of an attempt: the task's id, and the report in JSON.
    """

    def __init__(
        self,
        source: Source,
        runner: Runner,
        *,
        greenlets: int = DEFAULT_GREENLETS,
        max_lost_processes: int = DEFAULT_MAX_LOST_PROCESSES,
        progress: Callable[[str, bytes], object] = lambda _id, _report: None,
    ) -> None:
        self.source = source
        self.runner = runner
        self.max_lost_processes = max_lost_processes
        self.progress = progress
        self.places = _places(runner, greenlets)
        self._place_of = {name: place for place in self.places for name in place.tasks}
        self._loop: Any = get_hub().loop
        self._scheduled = self._stopping = self._leaves = False
        self._idle = Event()
        self._idle.set()
        self._timer: Any = None
        self._rest: Any = None
        self._here = 0  # deliveries that have not ended
        self._patience: dict[str, float] = {}  # of those that were given back, by their ids
        self.reports: dict[str, bytes] = {}  # the newest one of each attempt that has told any
        self.counts = {"done": 0, "failed": 0, "retried": 0, "lost": 0, "released": 0, "revoked": 0}

    def start(self) -> None:
        """Begin to take."""
        self.source.consume(self._deliver, self._lost, _limits(self.runner), self._revoked)
        self.source.offer(frozenset(self._place_of))
        self._timer = self._loop.timer(_PATIENCE, _PATIENCE, ref=False)
        self._timer.start(self._give_back)
        self._rest = self._loop.timer(_REST, ref=False)
        self._refill()

    def stop(self) -> None:
        """Take no more, and give back what has not begun."""
        if not self._stopping:
            self._stopping = True
            self.source.want_none()
            self._give_back()

    def join(self, timeout: float) -> bool:
        """Wait until what runs has ended; False where that takes longer.

        Then what is cut off is given back when the queue is closed and not before: until all processes have ended,
        one of them may go on with it, and it is not to run twice at the same time.
        """
        if self._idle.wait(timeout):
            return True
        self._leaves = True
        return False

    def close(self) -> None:
        """Cancel what runs; it is for others to run again."""
        self.stop()
        for timer in (self._timer, self._rest):
            if timer is not None:
                timer.stop()
                timer.close()
        self._timer = self._rest = None
        self._cancel_all()

    @property
    def running(self) -> int:
        """How many deliveries are here."""
        return self._here

    # ---- Taking

    def _schedule(self) -> None:
        if not self._scheduled and not self._stopping:
            self._scheduled = True
            self._loop.run_callback(self._refill)

    def _refill(self) -> None:
        self._scheduled = False
        if self._stopping:
            return
        now, wants = time.monotonic(), []
        for place in self.places:
            free = max(place.free(now), -place.asked)  # what has been asked for can be taken back
            if free:
                place.asked += free
                wants.append(Want(place.tasks, free))
        if wants:
            self.source.want(wants)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        now = time.monotonic()
        for delivery in deliveries:
            place = self._place_of[delivery.task]
            place.asked -= 1
            if self._stopping:
                self.source.settle(delivery, Ending("released"))
                continue
            if not self._here:
                self._idle.clear()
            self._here += 1
            attempt = Attempt(self, place, delivery, now)
            if self._patience:
                attempt.patience = self._patience.pop(delivery.id, _PATIENCE)
            try:
                attempt.start()
            except Exception:  # or nobody would ever say how it ended
                logger.exception("a durable task could not be started: %s", delivery.task)
                attempt.give_up()

    def _give_back(self) -> None:
        """Give back what has been here for a while and has not begun; all of that at the end."""
        now, late = time.monotonic(), list[Attempt]()
        for place in self.places:
            waiting = [one for one in place.attempts if self._is_late(one, now) and one.is_waiting]
            place.rests = bool(waiting)
            late += waiting
        self._refill()  # where it has become slow as well, or they would come back at once
        for attempt in late:
            if attempt.is_waiting:
                if not attempt.place.is_rated:
                    self._patience[attempt.delivery.id] = min(_MOST_PATIENCE, 4 * attempt.patience)
                attempt.cancel()
        while len(self._patience) > _REMEMBERED:  # others have run them, it may be
            del self._patience[next(iter(self._patience))]
        if late and not self._stopping:
            self._rest.start(self._end_rest)

    def _is_late(self, attempt: Attempt, now: float) -> bool:
        return self._stopping or now - attempt.came >= attempt.patience

    def _end_rest(self) -> None:
        for place in self.places:
            place.rests = False
        self._refill()

    def _lost(self) -> None:
        """Others have what is here: to run it on would be to do it twice."""
        logger.warning("this server was silent for too long: others run what it had (%d tasks)", self.running)
        self._cancel_all()

    def _revoked(self, ids: list[str]) -> None:
        """Somebody has revoked these, which may run."""
        wanted = set(ids)
        for place in self.places:
            for attempt in [one for one in place.attempts if one.delivery.id in wanted]:
                attempt.revoke()

    def _cancel_all(self) -> None:
        for place in self.places:
            for attempt in list(place.attempts):
                attempt.cancel()

    # ---- What attempts say

    def settle(self, attempt: Attempt, ending: Ending) -> None:
        """An attempt has ended."""
        delivery, how = attempt.delivery, ending.how
        attempt.place.ended(attempt)
        if self.reports:
            self.reports.pop(delivery.id, None)
        self.counts["revoked" if attempt.is_revoked and how != "done" else _COUNTED[how]] += 1
        if not (self._leaves and how == "released"):
            self.source.settle(delivery, ending)
        self._here -= 1
        if not self._here:
            self._idle.set()
        if not self._scheduled:
            self._schedule()


_COUNTED = {"done": "done", "failed": "failed", "retry": "retried", "lost": "lost", "released": "released"}


class Attempt:
    """The ``Listener`` of one delivery's call."""

    __slots__ = (
        "_consumer",
        "_is_cancelled",
        "_running",
        "_task",
        "came",
        "delivery",
        "is_revoked",
        "patience",
        "place",
    )

    def __init__(self, consumer: Consumer, place: Place, delivery: Delivery, now: float) -> None:
        self._consumer = consumer
        self._task: Task[..., Any] = consumer.runner.tasks.get(delivery.task)
        self._running: Running | None = None
        self.place = place
        self.delivery = delivery
        self.came = now
        self.patience = _PATIENCE
        self._is_cancelled = False  # by us: a task may raise CancelRequest by itself, which is an error of its own
        self.is_revoked = False  # it was cancelled for that
        place.attempts[self] = None

    def start(self) -> None:
        """Run it."""
        delivery, runner = self.delivery, self._consumer.runner
        id, attempt, payload = delivery.id, delivery.attempt, delivery.payload
        call = Call(delivery.task, None, id, None, True, None, 0, None, attempt)
        line = b""
        try:
            if self._task.process:
                line = b'{"id":"%b","attempt":%d,"call":%b}' % (id.encode(), attempt, payload)
            else:
                call.args = _args(payload)
            running = runner.start(call, line, self, None, QUEUE)
        except CallError as error:
            self.refuse(error)
        except GreentaskError as error:  # the pool is closed
            self.refuse(Cancelled(str(error), started=False))
        else:
            if self in self.place.attempts:
                self._running = running

    def give_up(self) -> None:
        """It could not be started."""
        self._end(Ending("released", delay=_PAUSE))

    @property
    def is_waiting(self) -> bool:
        """Whether it has not begun, and can be given back."""
        return bool(getattr(self._running, "is_waiting", False))

    def cancel(self) -> None:
        """End it."""
        if self._running is not None:
            self._is_cancelled = True
            self._running.cancel()

    def revoke(self) -> None:
        """End it for good, which the queue sees to."""
        if not self.is_revoked:
            self.is_revoked = self._running is not None
            self.cancel()

    # ---- What becomes of it

    def done(self, result: Body) -> None:
        self._end(Ending("done", whole(result)))

    def failed(self, error: bytes) -> None:
        described: dict[str, Any] = loads(error)
        if "retry" not in described:  # it was ended, and not by an exception of its own
            if self._is_cancelled and described["type"] == Cancelled.__name__:
                self._end(Ending("released"))
                return
            described["retry"] = self._task.policy.wants_retry(from_wire(described))
        self._fail(described)

    def refuse(self, error: CallError) -> None:
        if isinstance(error, WorkerLost) and error.started is not False:
            self._lose(error)
        elif isinstance(error, Cancelled) and self._is_cancelled:
            self._end(Ending("released"))
        elif isinstance(error, (Cancelled, WorkerLost, Overloaded, Draining)):
            self._end(Ending("released", delay=_PAUSE))
        else:
            self._fail({**refusal(error), "retry": self._task.policy.wants_retry(error)})

    def progress(self, report: bytes) -> None:
        self._consumer.reports[self.delivery.id] = report
        self._consumer.progress(self.delivery.id, report)

    def item(self, item: bytes) -> None:
        raise AssertionError("a durable task has no stream")

    def _fail(self, described: dict[str, Any]) -> None:
        delay = self._task.policy.delay(described, self.delivery.failures + 1, self.delivery.retries)
        described.pop("retry", None)
        body = dumps({name: _short(text) for name, text in described.items()})
        self._end(Ending("failed", body) if delay is None else Ending("retry", body, delay))

    def _lose(self, error: WorkerLost) -> None:
        lost, body = self.delivery.lost_processes + 1, dumps(refusal(error))
        if lost >= self._consumer.max_lost_processes:
            logger.warning(
                "task %s %s has killed %d processes: a dead letter", self.delivery.task, self.delivery.id, lost
            )
            self._end(Ending("failed", body))
        else:
            self._end(Ending("lost", body, pause_after_loss(lost)))

    def _end(self, ending: Ending) -> None:
        self._running = None
        if self in self.place.attempts:
            self._consumer.settle(self, ending)


def _args(payload: bytes) -> Args | None:
    try:
        args: Args | None = loads_checked(payload).get("args")
    except ValueError as error:  # Python's limit for integers was lowered
        raise InvalidArguments(f"this server can't read the arguments: {error}") from None
    return args


def _short(text: Any) -> Any:
    """What is kept of an error: the end of a traceback is what tells."""
    if not isinstance(text, str) or len(text) <= _MOST_TEXT:
        return text
    return f"{text[: _MOST_TEXT // 4]}\n…\n{text[-_MOST_TEXT * 3 // 4 :]}"


def _limits(runner: Runner) -> dict[str, Limit]:
    limits = {task.name: Limit(task.rate, _max_running(runner, task)) for task in runner.tasks}
    return {name: limit for name, limit in limits.items() if limit != Limit()}


def _max_running(runner: Runner, task: Task[..., Any]) -> int | None:
    return runner.max_running.get(task.name, task.max_running)


def _places(runner: Runner, greenlets: int) -> list[Place]:
    places: list[Place] = []
    shared: dict[str | None, set[str]] = {}
    for task in runner.tasks:
        most, size = _max_running(runner, task), _size(runner, task.group, greenlets)
        if size is None:
            continue
        if most is not None:
            places.append(
                Place(frozenset({task.name}), partial(int, most), takes_ahead=False, is_rated=task.rate is not None)
            )
        elif task.rate is not None:  # what is counted is to begin soon, but not at the price of its rate
            is_quick = task.rate.count >= _QUICK * task.rate.seconds
            places.append(Place(frozenset({task.name}), size, takes_ahead=is_quick, is_rated=True))
        else:
            shared.setdefault(task.group, set()).add(task.name)
    for group, names in shared.items():
        size = _size(runner, group, greenlets)
        assert size is not None
        places.append(Place(frozenset(names), size, takes_ahead=True))
    return places


def _size(runner: Runner, group: str | None, greenlets: int) -> Callable[[], int] | None:
    """How many tasks run at once in that group of task processes, or in greenlets; None where there is no group."""
    if group is None:
        return lambda: greenlets
    pool = runner.groups.get(group)
    return None if pool is None else lambda: pool.size
