"""The calls of a client: over which connection each goes, and what becomes of it when that is lost or refuses it.

A call that certainly did not run goes to another server by itself, within its deadline: one that could not be sent, or
was refused because the server is going away (``Draining``), has too much to do (``Overloaded``), or other code than its
caller (``UnknownTask``, ``InvalidArguments``, ``InvalidMessage``). One that may have run is given to another server
only where its caller says that it is idempotent. Where no server can be reached, and one could be a moment ago, calls
wait for it to be back.
"""

from __future__ import annotations

import random
import time
from typing import Any

import gevent
from gevent import getcurrent
from gevent.event import Event

from ..errors import (
    CallError,
    ConnectionLost,
    Draining,
    InvalidArguments,
    InvalidMessage,
    Overloaded,
    Unauthenticated,
    UnknownTask,
    WorkerLost,
    from_wire,
)
from ..hub.bell import Bell
from ..hub.home import Home
from ..wire.message import Call, Reply, encode_call
from .balance import Balance, Missing, Name, RetryBudget, Target
from .carrier import Receiver
from .link import PING_ID, Link, LinkOptions
from .mending import MENDED_EVERY, Mending
from .names import Where
from .parking import Parking
from .sent import NOT_HERE, Sent, could_not_be_sent, error_of
from .upkeep import Upkeep

__all__ = ["Router"]

#: Seconds that a server has, past a call's timeout, for telling whether the task had begun.
_ANSWER_MARGIN = 0.5
_SENT_WITHIN = 1.0  # seconds, on closing
#: Seconds before each further try of a call that a server refused because it is going away, about.
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
#: Seconds after which nobody waits for a connection while another server may be had ("happy eyeballs", RFC 8305).
_SLOW = 0.25
#: Calls in flight on one connection from which on another one is opened, and how many there are to one server. A server
#: reads no further while a connection has max_in_flight (1,000) calls in flight, pings among it.
_MANY_IN_FLIGHT, _MOST_LINKS = 500, 4
_NO_PLACE_TO_WAIT = (
    "a callback of the client (or one of gevent's hub) can't wait for a call: no answer would be read meanwhile. "
    "Use submit there, or wait in a greenlet or thread of your own"
)
_chance = random.SystemRandom()  # the program's own generator may have been seeded, and is its own


class Router:
    """Connects at the first call, and again at the next one after a connection was lost.

    Belongs to its home's thread; every method but ``check_may_wait`` is called there, and none blocks.
    """

    def __init__(self, home: Home, balance: Balance, options: LinkOptions) -> None:
        self.home = home
        self.dropped = 0  # lines that nobody waited for
        self._balance = balance
        self._budget = RetryBudget()
        self._missing = Missing()
        self._options = options
        self._calls: dict[int, Sent] = {}
        self._links: list[Link] = []
        self._waiting: dict[Link, list[int]] = {}  # calls for a link that is being opened
        self._parked = Parking(self._send)
        self._changed = Event()  # a link has opened, or ended
        self._is_left = False
        self._upkeep = Upkeep(
            balance,
            resolve_after=options.resolve_after,
            idle_after=options.idle_after,
            found=self._found,
            connect=self._link_to,
        )
        self._mending = Mending(self)

    def check_may_wait(self) -> None:
        """Raise ``RuntimeError`` where waiting for a call would keep its answer from being read."""
        if not self.home.is_ours():
            raise RuntimeError("this call is of the process that this one was forked from, and ends only there")
        current = getcurrent()
        if current is self.home.hub:
            raise RuntimeError(_NO_PLACE_TO_WAIT)
        for link in self._links:
            if link.greenlet is current:
                raise RuntimeError(_NO_PLACE_TO_WAIT)

    # ---- What callers ask for

    def start(
        self,
        id: int,
        data: bytes,
        receiver: Receiver,
        timeout: float | None,
        idempotent: bool = False,
        size: int = 1,
    ) -> None:
        """Send a call's line, or that of a batch of ``size`` calls; ``receiver`` hears what comes of it."""
        if id in self._calls:
            return  # a thread has posted it, and it is run again for a Ctrl-C, which may have come after it was sent
        self._budget.made += size
        self._start(id, Sent(data, receiver, size, idempotent), timeout)

    def start_alone(
        self, id: int, data: bytes, receiver: Receiver, timeout: float | None, batch: int, error: BaseException
    ) -> bool:
        """Send an item of a batch as a call of its own, if a call could be sent again after that error.

        To be asked while the batch's receiver is told: the item goes on from where the batch was, as to servers that
        were tried, and how often.
        """
        before = self._calls.get(batch)
        if before is None:
            return False
        sent = Sent(data, receiver, 1, before.idempotent)
        if isinstance(error, (Overloaded, InvalidArguments)):
            sent.avoid = before.avoid
            if before.link is not None:
                sent.avoid |= {before.link.target}
                if isinstance(error, Overloaded):
                    self._upkeep.is_full(before.link.target)
            sent.refusal = error
            may_go = self._has_another(sent) and self._budget.spend()
        elif isinstance(error, WorkerLost) or (isinstance(error, ConnectionLost) and error.sent):
            sent.repeats = before.repeats
            may_go = sent.may_repeat(self._budget)
            sent.repeats += 1
        else:
            may_go = isinstance(error, (Draining, InvalidMessage))
        if may_go:
            self._start(id, sent, timeout)
        return may_go

    def _start(self, id: int, sent: Sent, timeout: float | None) -> None:
        if not self._calls:
            self._mending.begin()
        self._calls[id] = sent
        if timeout is not None:
            self._end_after(timeout, id, sent, timeout)
        if self._upkeep.is_needed:
            self._upkeep.called()
            if self._missing:
                self._avoid_missing(sent)
        self._send(id, sent)

    def _end_after(self, seconds: float, id: int, sent: Sent, timeout: float) -> None:
        before = sent.timer
        timer = self.home.hub.loop.timer(seconds, MENDED_EVERY)  # and then again, until it was heard
        timer.start(self._out_of_time, id, sent, timeout, update=True)
        sent.timer = timer
        if before is not None:
            before.stop()
            before.close()

    def has(self, id: int) -> bool:
        """Whether a call of that id was made, and has not ended."""
        return id in self._calls

    def forget(self, id: int) -> None:
        """Nobody waits any more: cancel the call, and drop what comes."""
        sent = self._take(id)
        if sent is not None:
            if sent.link is not None and sent.link.is_open:  # a Ctrl-C may have come before it was noted as sent
                sent.link.write(encode_call(Call("greentask.cancel", {"id": id}, f"cancel-{id}")))
            self._end_if_left()

    def send(self, id: int, data: bytes) -> None:
        """Send a line about a call, if that was sent."""
        sent = self._calls.get(id)
        if sent is not None and sent.link is not None and sent.was_sent:
            sent.link.write(data)

    def flush(self, done: Bell) -> None:
        """Ring when what is to be sent has left."""
        if self._waiting or self._parked or any(link.unsent for link in self._links):
            gevent.spawn(self._flush, done)
        else:
            done.ring()

    def finish(self, closed: Bell) -> None:
        """Close the connections when what is to be sent has left; then ring ``closed``."""

        def run() -> None:
            self._flush()
            self.close()
            closed.ring()

        gevent.spawn(run)

    def leave(self) -> None:
        """There will be no more calls: close the connections when none is in flight."""
        self._is_left = True
        self._upkeep.rest()
        self._end_if_left()

    def close(self, why: str = "the client was closed") -> None:
        """Close the connections; calls in flight fail with ``ConnectionLost``."""
        links, self._links = self._links, []
        self._waiting.clear()
        self._parked.clear()
        self._upkeep.rest()
        for link in links:
            link.close()
        for id in list(self._calls):
            self._fail(id, why)
        if not self._calls:
            self._mending.end()
        self._changed.set()

    def abandon(self) -> None:
        """In a forked child: drop our copies of the connections, without a word to the servers.

        The parent's greenlets that wait for calls are here as well, in a patched program. They go on waiting: what they
        would do then is done in the parent.
        """
        calls, self._calls = self._calls, {}
        if self.home.is_here():
            for sent in calls.values():
                sent.stop_timer()
            self._mending.end()
        self._parked.clear()
        for link in self._links:
            link.abandon()
        self._links = []
        self._upkeep.rest()  # or a probe would connect

    def _flush(self, done: Bell | None = None) -> None:
        gevent.with_timeout(_SENT_WITHIN, self._wait_sent, timeout_value=None)
        if done is not None:
            done.ring()

    def _wait_sent(self) -> None:
        while self._waiting or self._parked:
            self._changed.clear()
            self._changed.wait()
        for link in list(self._links):
            link.wait_sent()

    # ---- Which way a call goes

    def _send(self, id: int, sent: Sent) -> None:
        if sent.is_late:  # it was sent in time, and has not run: now it must not begin
            self._end(id, sent, sent.too_late())
            return
        target = self._balance.pick(sent.avoid)
        if target is None:
            self._tried_all(id, sent)
            return
        if target.failures and target.retry_at > time.monotonic():
            self._parked.park(id, sent, target.retry_at)
            return
        link = self._link_to(target)
        sent.link = link
        link.in_flight += sent.size
        target.outstanding += sent.size
        if link.write(sent.data):
            sent.was_sent = True
        else:
            self._waiting.setdefault(link, []).append(id)

    def _send_later(self, id: int, sent: Sent, pause: float) -> None:
        def send() -> None:
            if self._calls.get(id) is sent and sent.link is None:
                self._send(id, sent)

        sent.due = time.monotonic() + pause
        gevent.spawn_later(pause, send)

    def _link_to(self, target: Target) -> Link:
        best, count = None, 0
        for link in self._links:
            if link.target is target and link.greenlet is not None and not link.is_leaving:
                count += 1
                if best is None or link.in_flight < best.in_flight:
                    best = link
        if best is None or (best.in_flight >= _MANY_IN_FLIGHT and best.is_open and count < _MOST_LINKS):
            best = Link(self.home, target, self._options, self)
            self._links.append(best)
            self._waiting[best] = []
            if len(self._balance.targets) > 1:
                gevent.spawn_later(_SLOW, self._hurry, best)
        return best

    def _hurry(self, link: Link) -> None:
        """Let nobody wait for a link that takes its time, where another server may be had. It goes on for later."""
        ids = self._waiting.get(link)
        if ids is not None:
            link.target.is_slow = True
            self._waiting[link] = []
            self._send_waiting(link, ids)

    def _unlink(self, sent: Sent) -> None:
        """It is no longer with the link that it was given to."""
        link, sent.link = sent.link, None
        sent.was_sent = False
        if link is not None:
            link.in_flight -= sent.size
            link.target.outstanding -= sent.size

    def _try_elsewhere(self, id: int, sent: Sent, error: Exception) -> None:
        """The server that it was given to can't have run it, or that does no harm."""
        link = sent.link
        self._unlink(sent)
        sent.refusal = error
        if link is not None:
            sent.avoid |= {link.target}
        self._send(id, sent)

    def _try_once_more(self, id: int, sent: Sent, error: Exception) -> None:
        """It may have run, and does no harm: on another server, or else on the same one."""
        sent.repeats += 1
        if self._has_another(sent):
            self._try_elsewhere(id, sent, error)
        else:
            self._unlink(sent)
            sent.refusal = error
            sent.avoid = frozenset()
            self._send(id, sent)

    def _tried_all(self, id: int, sent: Sent) -> None:
        """Try all once more, in a while, where one is about to start again perhaps; else that is the end of it."""
        error = sent.refusal or ConnectionLost("there is no server to be tried", sent=False)
        may_wait = isinstance(error, (ConnectionLost, Draining))
        if may_wait and self._balance.may_come_back(time.monotonic(), self._options.gone_after):
            sent.avoid = frozenset()
            self._send(id, sent)
        else:
            self._end(id, sent, error)

    def _has_another(self, sent: Sent) -> bool:
        current = None if sent.link is None else sent.link.target
        return any(target is not current and target not in sent.avoid for target in self._balance.targets)

    def _avoid_missing(self, sent: Sent) -> None:
        """Ask no server that has no such task, if there is another that is well."""
        without = sent.avoid | self._missing.of(sent.task, time.monotonic())
        if any(not target.failures and target not in without for target in self._balance.targets):
            sent.avoid = without

    def _may_do_elsewhere(self, sent: Sent, target: Target, error: Exception) -> bool:
        """Whether another server is asked, after what this one said. (One that has the task is asked for free.)"""
        if not self._has_another(sent):
            return False
        if not isinstance(error, UnknownTask):
            return self._budget.spend(sent.size)
        now, task = time.monotonic(), sent.task
        self._missing.add(task, target, now)
        sent.avoid |= self._missing.of(task, now)
        return self._has_another(sent)

    def _try_again(self, id: int, sent: Sent, refusal: CallError) -> None:
        """Its server goes away, and has not run it: another one may, or that server's next front."""
        if sent.tries == len(_PAUSES):
            self._end(id, sent, refusal)
            return
        self._unlink(sent)
        sent.refusal = refusal
        pause = _PAUSES[sent.tries]
        sent.tries += 1
        if pause:
            self._send_later(id, sent, pause * _chance.uniform(0.5, 1.5))
        else:
            self._send(id, sent)

    # ---- What links say

    def link_found(self, link: Link, addresses: list[Where]) -> bool:
        assert link.target.name is not None
        self._found(link.target.name, addresses)
        if link.target in self._balance.targets:
            return True
        self._send_waiting(link, self._waiting.pop(link, []))
        # Last: where a Ctrl-C comes in between, we are told of its end.
        self._links = [one for one in self._links if one is not link]
        self._changed.set()
        return False

    def _found(self, name: Name, addresses: list[Where]) -> None:
        gone = self._balance.found(name, addresses)
        for link in self._links:
            if link.target in gone:
                link.is_leaving = True  # what is in flight there ends there

    def link_opened(self, link: Link) -> None:
        if link not in self._links:
            link.close()  # it was hardly made when a Ctrl-C came
            return
        self._balance.works(link.target)
        if link.target.doubts and self._upkeep.is_needed:
            link.ask()  # the kernel also takes connections for a server that was stopped
        for id in self._waiting.pop(link, ()):
            sent = self._calls.get(id)
            if sent is not None and sent.link is link:  # else it was cancelled before it could be sent
                link.write(sent.data)
                sent.was_sent = True
        for other, ids in self._waiting.items():  # which need not wait for a server that may not be there
            if other.target.failures and ids:
                self._waiting[other] = []
                self._send_waiting(other, ids)
        if self._parked:
            self._parked.wake()
        self._changed.set()

    def _send_waiting(self, link: Link, ids: list[int]) -> None:
        """Calls need not wait any longer for a link: each may have another one."""
        for id in ids:
            sent = self._calls.get(id)
            if sent is not None and sent.link is link:
                self._unlink(sent)
                self._send(id, sent)

    def link_heard(self, link: Link, reply: Reply) -> None:
        if link.target.doubts:
            self._balance.answered(link.target)
        if reply.id is None and reply.kind == "error":
            error = from_wire(reply.value)
            if isinstance(error, Draining):  # it has not read what we sent since, and never will
                link.is_leaving = True
                for unread, its in [(id, sent) for id, sent in self._calls.items() if sent.link is link]:
                    if not its.has_begun:
                        self._try_again(unread, its, error)
            return
        id = reply.id if type(reply.id) is int else None  # ours are
        sent = None if id is None else self._calls.get(id)
        if id is None or sent is None or sent.link is not link:
            self.dropped += not (reply.id == PING_ID or str(reply.id).startswith("cancel-"))
        elif reply.kind == "result" and reply.index is None:
            self._end(id, sent, None, reply.value)
        elif reply.index is not None:  # about an item of a batch: it ends no call
            self._heard_of_item(sent, reply, link)
        elif reply.kind == "progress":
            sent.has_begun = True
            sent.receiver.progress(reply.value if isinstance(reply.value, dict) else {"note": reply.value})
        elif reply.kind == "item":
            sent.has_begun = True
            sent.receiver.item(reply.value)
        else:
            self._refused(id, sent, link, error_of(reply.value, link.target))

    def _heard_of_item(self, sent: Sent, reply: Reply, link: Link) -> None:
        assert reply.index is not None
        sent.has_begun = True
        if reply.kind == "result":
            is_awaited = sent.receiver.part(reply.index, reply.value, None)
        elif reply.kind == "error":
            is_awaited = sent.receiver.part(reply.index, None, error_of(reply.value, link.target))
        else:
            is_awaited = False
        self.dropped += not is_awaited

    def _refused(self, id: int, sent: Sent, link: Link, error: Exception) -> None:
        if isinstance(error, Draining):
            link.is_leaving = True
        elif isinstance(error, Overloaded):
            self._upkeep.is_full(link.target)
        if sent.has_begun:
            self._end(id, sent, error)
        elif isinstance(error, Draining):
            self._try_again(id, sent, error)
        elif isinstance(error, NOT_HERE) and self._may_do_elsewhere(sent, link.target, error):
            self._try_elsewhere(id, sent, error)
        elif isinstance(error, WorkerLost) and sent.may_repeat(self._budget):
            self._try_once_more(id, sent, error)
        elif isinstance(error, UnknownTask) and isinstance(sent.refusal, Overloaded):
            self._end(id, sent, sent.refusal)  # by one that may have the task
        else:
            self._end(id, sent, error)

    def link_ended(self, link: Link, why: str | Unauthenticated) -> None:
        if link not in self._links:
            return
        was_opened = self._waiting.pop(link, None) is None
        if why and not link.is_leaving:
            self._balance.failed(link.target, time.monotonic())
            self._upkeep.probe_later(link.target)
        for id, sent in [(id, sent) for id, sent in self._calls.items() if sent.link is link]:
            if self._calls.get(id) is not sent:  # the end of another one was its end
                continue
            if not was_opened:
                self._try_elsewhere(id, sent, could_not_be_sent(sent.refusal, why, sent.repeats > 0))
            elif isinstance(why, Unauthenticated) and not sent.has_begun:  # it runs nothing for us
                self._try_elsewhere(id, sent, Unauthenticated(str(why)))
            elif sent.may_repeat(self._budget):
                self._try_once_more(id, sent, ConnectionLost(str(why), sent=True))
            else:
                self._end(id, sent, ConnectionLost(str(why), sent=sent.was_sent))
        # Last: where a Ctrl-C comes in between, we are told once more.
        self._links = [one for one in self._links if one is not link]
        self._changed.set()

    # ---- The ends of calls

    def _take(self, id: int) -> Sent | None:
        sent = self._calls.pop(id, None)
        if sent is not None:
            if sent.timer is not None:
                sent.stop_timer()
            link = sent.link
            if link is not None:
                link.in_flight -= sent.size
                link.target.outstanding -= sent.size
            else:
                self._parked.forget(id)
                self._changed.set()
        return sent

    def _end(self, id: int, sent: Sent, error: Exception | None, value: Any = None) -> None:
        # Told first: where a Ctrl-C comes in between, the end of the link finds the call, and tells its receiver again.
        sent.receiver.ended(value, error)
        self._take(id)
        if self._is_left:
            self._end_if_left()

    def _fail(self, id: int, why: str) -> None:
        sent = self._calls.get(id)
        if sent is not None:
            self._end(id, sent, ConnectionLost(why, sent=sent.was_sent))

    def _out_of_time(self, id: int, sent: Sent, timeout: float) -> None:
        if self._calls.get(id) is not sent:
            sent.stop_timer()
        elif sent.was_sent and not sent.is_late:
            sent.is_late = True
            self._end_after(_ANSWER_MARGIN, id, sent, timeout)
        else:
            error = sent.no_answer(timeout)
            sent.receiver.ended(None, error)
            self.forget(id)

    def _end_if_left(self) -> None:
        if self._is_left and not self._calls:
            self.finish(Bell())
