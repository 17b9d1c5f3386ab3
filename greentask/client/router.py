"""The calls of a client, each from its start to its end: given to a server, waited for, given to the next one perhaps.

To which server: see ``balance``; over which connection: ``links``; whether once more, after a refusal or a loss:
``retrying``. Where no server can be reached, and one could be a moment ago, calls wait for it to be back: ``parking``.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import gevent
from gevent import getcurrent
from gevent.event import Event

from ..errors import ConnectionLost, Draining, Overloaded, Unauthenticated, from_wire
from ..hub.bell import Bell
from ..hub.home import Home
from ..hub.mending import MENDED_EVERY, Mending
from ..wire.reply import Reply
from .balance import Balance, Name, Target
from .carrier import Receiver
from .link import Link, LinkOptions
from .links import Links
from .mending import mend
from .names import Where
from .pacing import Pacing
from .parking import Parking
from .retrying import Retrying, Verdict
from .sent import Sent, error_of
from .upkeep import Upkeep

__all__ = ["Router"]

#: Seconds that a server has, past a call's timeout, for telling whether the task had begun.
_ANSWER_MARGIN = 0.5
_SENT_WITHIN = 1.0  # seconds, on closing
#: Seconds after which nobody waits for a connection while another server may be had ("happy eyeballs", RFC 8305).
_SLOW = 0.25
_NO_PLACE_TO_WAIT = (
    "a callback of the client (or one of gevent's hub) can't wait for a call: no answer would be read meanwhile. "
    "Use submit there, or wait in a greenlet or thread of your own"
)


class Router:
    """Connects at the first call, and again at the next one after a connection was lost.

    Belongs to its home's thread; every method but ``check_may_wait`` is called there, and none blocks.
    """

    def __init__(self, home: Home, balance: Balance, options: LinkOptions) -> None:
        self.home = home
        self.dropped = 0  # lines that nobody waited for
        self._balance = balance
        self._retrying = Retrying(balance, options.gone_after)
        self._budget = self._retrying.budget
        self._options = options
        self._calls: dict[int, Sent] = {}
        self._links = Links(self._make_link, self._link_made)
        self._parked = Parking(self._send)
        self._pacing = Pacing(home, self._send)
        self._paced = self._pacing.lines
        self._changed = Event()  # a link has opened, or ended
        self._is_left = False
        self._upkeep = Upkeep(
            balance,
            resolve_after=options.resolve_after,
            idle_after=options.idle_after,
            found=self._found,
            connect=self._links.to,
        )
        self._mending = Mending(home.hub.loop if home.is_interrupted() else None, partial(mend, self))

    def check_may_wait(self) -> None:
        """Raise ``RuntimeError`` where waiting for a call would keep its answer from being read."""
        if not self.home.is_ours():
            raise RuntimeError("this call is of the process that this one was forked from, and ends only there")
        current = getcurrent()
        if current is self.home.hub:
            raise RuntimeError(_NO_PLACE_TO_WAIT)
        for link in self._links.all:
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

        To be asked while the batch's receiver is told.
        """
        before = self._calls.get(batch)
        if before is None:
            return False
        if isinstance(error, Overloaded) and before.link is not None:
            self._upkeep.is_full(before.link.target)
        sent = Sent(data, receiver, 1, before.idempotent)
        may_go = self._retrying.may_go_alone(sent, before, error)
        if not may_go and isinstance(error, Overloaded) and receiver.is_patient:
            may_go = True
            sent.avoid = frozenset()
            self._pacing.begin(sent.task)  # it joins the others
        if may_go:
            self._start(id, sent, timeout)
        return may_go

    def _start(self, id: int, sent: Sent, timeout: float | None) -> None:
        if not self._calls:
            self._mending.begin()
        sent.is_being_sent = True
        try:
            self._calls[id] = sent
            if timeout is not None:
                self._end_after(timeout, id, sent, timeout)
            if self._upkeep.is_needed:
                self._upkeep.called()
                if self._retrying.missing:
                    self._retrying.avoid_missing(sent)
            if self._paced and sent.receiver.is_patient and self._pacing.join(id, sent):
                return
            self._send(id, sent)
        finally:
            sent.is_being_sent = False

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
                sent.link.cancel(id)
            self._end_if_left()

    def send(self, id: int, data: bytes) -> None:
        """Send a line about a call, if that was sent."""
        sent = self._calls.get(id)
        if sent is not None and sent.link is not None and sent.was_sent:
            sent.link.write(data)

    def flush(self, done: Bell) -> None:
        """Ring when what is to be sent has left."""
        if self._links.waiting or self._parked or self._links.have_unsent():
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
        self._parked.clear()
        self._pacing.clear()
        self._upkeep.rest()
        self._links.close()
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
            self._pacing.clear()
            self._mending.end()
        self._parked.clear()
        self._links.abandon()
        self._upkeep.rest()  # or a probe would connect

    def _flush(self, done: Bell | None = None) -> None:
        gevent.with_timeout(_SENT_WITHIN, self._wait_sent, timeout_value=None)
        if done is not None:
            done.ring()

    def _wait_sent(self) -> None:
        while self._links.waiting or self._parked:
            self._changed.clear()
            self._changed.wait()
        self._links.wait_sent()

    # ---- Which way a call goes

    def _send(self, id: int, sent: Sent) -> None:
        if sent.is_late:  # it was sent in time, and has not run: now it must not begin
            self._end(id, sent, sent.too_late())
            return
        target = self._balance.pick(sent.avoid)
        if target is None:
            self._go_on(id, sent, self._retrying.after_all(sent))
            return
        if target.failures and target.retry_at > time.monotonic():
            self._parked.park(id, sent, target.retry_at)
            return
        sent.is_being_sent = True
        try:
            link = self._links.to(target)
            sent.link = link
            link.in_flight += sent.size
            target.outstanding += sent.size
            if link.write(sent.data):
                sent.was_sent = True
            else:
                self._links.waiting.setdefault(link, []).append(id)
        finally:
            sent.is_being_sent = False

    def _send_later(self, id: int, sent: Sent, pause: float) -> None:
        def send() -> None:
            if self._calls.get(id) is sent and sent.link is None:
                self._send(id, sent)

        sent.due = time.monotonic() + pause
        gevent.spawn_later(pause, send)

    def _go_on(self, id: int, sent: Sent, verdict: Verdict) -> None:
        """Its last try has come to nothing: send it again, or that is its end."""
        if isinstance(verdict, Exception):
            if isinstance(verdict, Overloaded) and sent.receiver.is_patient and not sent.has_begun:
                self._wait_for_room(id, sent, verdict)
            else:
                self._end(id, sent, verdict)
            return
        self._unlink(sent)
        if verdict:
            self._send_later(id, sent, verdict)
        else:
            self._send(id, sent)

    def _wait_for_room(self, id: int, sent: Sent, refusal: Overloaded) -> None:
        if sent.is_late:
            self._end(id, sent, sent.too_late())
            return
        self._unlink(sent)
        sent.refusal = refusal
        sent.avoid = frozenset()
        self._pacing.refused(id, sent)

    def _make_link(self, target: Target) -> Link:
        return Link(self.home, target, self._options, self)

    def _link_made(self, link: Link) -> None:
        if len(self._balance.targets) > 1:
            gevent.spawn_later(_SLOW, self._hurry, link)

    def _hurry(self, link: Link) -> None:
        """Let nobody wait for a link that takes its time, where another server may be had. It goes on for later."""
        ids = self._links.waiting.get(link)
        if ids is not None:
            link.target.is_slow = True
            self._links.waiting[link] = []
            self._send_waiting(link, ids)

    def _unlink(self, sent: Sent) -> None:
        """It is no longer with the link that it was given to."""
        link, sent.link = sent.link, None
        sent.was_sent = False
        if link is not None:
            link.in_flight -= sent.size
            link.target.outstanding -= sent.size

    # ---- What links say

    def link_found(self, link: Link, addresses: list[Where]) -> bool:
        assert link.target.name is not None
        self._found(link.target.name, addresses)
        if link.target in self._balance.targets:
            return True
        self._send_waiting(link, self._links.waiting.pop(link, []))
        self._links.drop(link)  # last: where a Ctrl-C comes in between, we are told of its end
        self._changed.set()
        return False

    def _found(self, name: Name, addresses: list[Where]) -> None:
        self._links.leave(self._balance.found(name, addresses))

    def link_opened(self, link: Link) -> None:
        if link not in self._links:
            link.close()  # it was hardly made when a Ctrl-C came
            return
        self._balance.works(link.target)
        if link.target.doubts and self._upkeep.is_needed:
            link.ask()  # the kernel also takes connections for a server that was stopped
        waiting = self._links.waiting
        for id in waiting.pop(link, ()):
            sent = self._calls.get(id)
            if sent is not None and sent.link is link:  # else it was cancelled before it could be sent
                link.write(sent.data)
                sent.was_sent = True
        for other, ids in waiting.items():  # which need not wait for a server that may not be there
            if other.target.failures and ids:
                waiting[other] = []
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
                        self._go_on(unread, its, self._retrying.after_draining(its, error))
            return
        id = reply.id if type(reply.id) is int else None  # ours are
        sent = None if id is None else self._calls.get(id)
        if id is None or sent is None or sent.link is not link:
            self.dropped += not link.heard_other(reply.id)
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
            if self._paced:
                self._pacing.has_room(sent.task)
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
        self._go_on(id, sent, self._retrying.after_refusal(sent, link.target, error))

    def link_ended(self, link: Link, why: str | Unauthenticated) -> None:
        if link not in self._links:
            return
        was_opened = self._links.waiting.pop(link, None) is None
        if why and not link.is_leaving:
            self._balance.failed(link.target, time.monotonic())
            self._upkeep.probe_later(link.target)
        for id, sent in [(id, sent) for id, sent in self._calls.items() if sent.link is link]:
            if self._calls.get(id) is sent:  # else the end of another one was its end
                self._go_on(id, sent, self._retrying.after_loss(sent, why, was_opened))
        self._links.drop(link)  # last: where a Ctrl-C comes in between, we are told once more
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
                self._pacing.forget(id, sent)
                self._changed.set()
        return sent

    def _end(self, id: int, sent: Sent, error: Exception | None, value: Any = None) -> None:
        # Told first: where a Ctrl-C comes in between, the end of the link finds the call, and tells its receiver again.
        sent.receiver.ended(value, error)
        self._take(id)
        if self._paced and sent.link is not None and not isinstance(error, Overloaded):
            self._pacing.has_room(sent.task)
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
