"""What a durable queue is to the rest of greentask: one kind of it keeps a file, another could speak to a broker.

Everything here is called in the hub of the queue's owner, and tells him there; nothing blocks. A queue is asked for
three things that have nothing to do with each other, and one that only carries tasks to workers of its own has the
first only:

- ``Queue``: take messages, know what became of them;
- ``Source``: hand out deliveries, as many as there are free slots for, and be told how each ended;
- ``Timetable``: enqueue by itself what runs at certain times.

A *message* is enqueued once. A *delivery* is one attempt at running it; it is this server's until it is settled, or
until the queue takes it back from a server that is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from ..tasks.rates import Rate
from ..tasks.schedules import Schedule

__all__ = [
    "FINAL",
    "Chain",
    "Delivery",
    "Ending",
    "Fan",
    "Found",
    "How",
    "Limit",
    "Message",
    "Placed",
    "Queue",
    "Repeat",
    "Source",
    "State",
    "Step",
    "Timetable",
    "Want",
]

State = Literal["blocked", "waiting", "scheduled", "running", "done", "failed", "revoked", "expired"]
#: The states in which a task stays.
FINAL: frozenset[State] = frozenset({"done", "failed", "revoked", "expired"})

#: How an attempt ended: for good, with an error for good (a dead letter), to be tried again after an error, with the
#: process that ran it, or not at all.
How = Literal["done", "failed", "retry", "lost", "released"]


class Message(NamedTuple):
    """A task to be run, once it is on disk.

    task, payload
        Its name, and an object in JSON whose ``args`` are its arguments.
    priority
        From -10 to 10; a higher one goes first.
    delay, at
        Seconds from now, or a Unix time, before which it doesn't run.
    key
        While a task with this key is known, a second one is not enqueued.
    retries
        In place of what the task says.
    ttl
        Seconds within which it must have begun.
    key_ttl
        Seconds for which the key holds after its task is forgotten; None: as the queue says.
    singleton
        While a task of this name with this singleton waits or runs, a second one is not enqueued.
    """

    task: str
    payload: bytes
    priority: int = 0
    delay: float = 0.0
    at: float | None = None
    key: str | None = None
    retries: int | None = None
    ttl: float | None = None
    key_ttl: float | None = None
    singleton: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A message that is enqueued when what comes before it has ended well.

    takes
        Where what came of that goes, in place of the ``null`` that the payload has there: as the first argument (True,
        and ``args`` is an array), as the argument of that name (which is the first in ``args``, an object), or nowhere.
    errors
        It is enqueued also where that has failed. It takes ``{"result": …}`` or ``{"error": …}`` then.
    """

    message: Message
    takes: bool | str = True
    errors: bool = False


@dataclass(frozen=True, slots=True)
class Fan:
    """Chains beside one another. What comes behind them waits for all, and takes an array of what came of each."""

    chains: Sequence[Sequence[Step | Fan]]


#: Steps one after another. Of each the id, in the same shape: of a fan its own, and those of its chains.
Chain = Sequence[Step | Fan]
Placed = list[Any]


class Delivery(NamedTuple):
    """One attempt at running a task. ``handle`` is the queue's own: it knows by it whose delivery it is."""

    id: str
    task: str
    payload: bytes
    failures: int  # attempts that ended with an error
    losses: int  # attempts that ended with their process or server
    retries: int | None
    handle: Any
    lost_processes: int = 0  # of the losses, those of a process

    @property
    def attempt(self) -> int:
        """Which attempt it is, from 1."""
        return self.failures + self.losses + 1


class Ending(NamedTuple):
    """How an attempt ended: ``body`` is the result or the error object, in JSON; ``delay`` seconds until the next."""

    how: How
    body: bytes = b""
    delay: float = 0.0


class Limit(NamedTuple):
    """How often a task may begin, and how many of it run at once, on all servers together; None: as it comes."""

    rate: Rate | None = None
    max_running: int | None = None


class Repeat(NamedTuple):
    """A message that is enqueued at each tick of a schedule; ``catch_up``: once for those that were missed, too."""

    message: Message
    schedule: Schedule
    catch_up: bool = True


class Want(NamedTuple):
    """Free slots for deliveries of any of these tasks."""

    tasks: frozenset[str]
    slots: int


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a task. ``result`` and ``error`` are JSON; times are Unix times."""

    id: str
    task: str
    state: State
    enqueued: float | None = None
    ended: float | None = None
    attempts: int = 0
    result: bytes | None = None
    error: bytes | None = None
    progress: bytes | None = None  # of a group


#: Called with the ids of what was enqueued, or with the error.
Kept = Callable[[list[str] | None, BaseException | None], object]


class Queue(Protocol):
    """Where messages go."""

    def enqueue(self, messages: Sequence[Message]) -> Future[list[str]]:
        """Keep them, all or none; their ids, once they are on disk. Fails with ``QueueFull`` or ``QueueError``."""

    def keep(self, messages: Sequence[Message], then: Kept) -> None:
        """As ``enqueue``, without a future, of which there may be thousands a second: ``then`` is called once."""

    def compose(self, chain: Chain, after: str | None = None) -> Future[Placed]:
        """Keep tasks that wait for one another, all or none; ``after`` a task or group that is known, if any.

        Who waits for one that fails fails as well, with its error, unless he takes errors.
        """

    def enqueue_group(
        self, messages: Sequence[Message], then: Chain, group: str | None = None, *, is_open: bool = False
    ) -> Future[tuple[list[str], str, Placed]]:
        """Keep messages as a group of tasks, or of that group, to which more may come while it is open.

        It ends when it is closed and the last of them has ended; its result is ``{"total", "done", "failed"}``.
        ``then`` waits for it.
        """

    def find(self, id: str) -> Future[Found | None]:
        """What is known of a task; None: nothing (any more)."""

    def find_by_key(self, key: str) -> Future[Found | None]:
        """The same, of the task that has this key."""

    def revoke(self, id: str, *, running: bool = False) -> Future[bool]:
        """Have a task that has not begun not begin; False where it has, or is not known.

        ``running``: one that has begun is asked to end, on whichever server it runs; its attempt is the last one.
        """

    def follow(
        self, id: str, hear: Callable[[Found], None], progress: Callable[[bytes], None] = lambda _: None
    ) -> Callable[[], None]:
        """Have ``hear`` called once, when the task is in a final state; the function that is returned ends that.

        ``progress`` hears meanwhile how far it is, if it is a group.
        """


class Source(Protocol):
    """Where deliveries come from."""

    def consume(
        self,
        deliver: Callable[[list[Delivery]], None],
        lost: Callable[[], None],
        limits: Mapping[str, Limit],
        revoked: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        """Hand out deliveries to ``deliver``; call ``lost`` when all that were handed out have been taken back, and
        ``revoked`` with the ids of those that are to end; with the same ones again while they have not.

        ``limits``, by names of tasks, hold for what all servers are handed.
        """

    def offer(self, tasks: frozenset[str]) -> None:
        """Say which tasks are run here, so that it is known of others that nobody has them."""

    def want(self, wants: Iterable[Want]) -> None:
        """Say that there is room for so many more deliveries, or so many fewer, where ``slots`` is below 0."""

    def want_none(self) -> None:
        """Say that there is room for none any more; one that is on its way may still come."""

    def settle(self, delivery: Delivery, ending: Ending) -> None:
        """Say how an attempt ended. Kept until it is on disk; of no effect where the delivery was taken back."""


class Timetable(Protocol):
    """Where messages come from by themselves."""

    def repeat(self, repeats: Sequence[Repeat]) -> None:
        """Enqueue these at their ticks from now on, one of each task, instead of those that were named before.

        However many servers name the same, each tick comes once.
        """
