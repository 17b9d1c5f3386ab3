"""Large lines: written and read in steps, between which everybody else has a turn."""

from __future__ import annotations

import re
from collections.abc import Callable

import gevent
from gevent import getcurrent
from gevent._hub_local import get_hub_if_exists  # the one way to ask without making a hub

from ..errors import InvalidMessage
from ..hub.steps import run_in_turns
from ..wire.message import Call, encode_call, encode_call_in_steps, encode_plain_call, has_large
from ..wire.reply import Reply, decode_reply_in_steps
from ..wire.writing import is_large
from .carrier import Carrier

__all__ = ["LARGE_ANSWER", "LargeAnswers", "encode"]

#: Bytes from which an answer is large: to read it in one go takes some milliseconds.
LARGE_ANSWER = 256 * 1024

_IS_ALL = re.compile(rb'\{"id":\d+,"(?:result|error)":')  # there is nothing else to come about its call


def encode(carrier: Carrier, call: Call) -> bytes:
    """The line of a call, as ``encode_call``; a large one in turns with others, where the caller may let them run."""
    if call.batch is not None:
        large = is_large(call.batch)
    else:
        large = bool(call.args) and has_large(call.args or [])
    if not large:
        id, args = call.id, call.args
        if args is None or type(id) is not int or call.progress or call.stream or call.enqueue is not None:
            return encode_call(call)
        return encode_plain_call(call.function, args, id, call.timeout)
    steps = encode_call_in_steps(call)
    if _may_switch(carrier):
        return run_in_turns(steps)
    while True:  # in steps all the same: other threads run between two of them, and not in the encoder
        try:
            next(steps)
        except StopIteration as end:
            line: bytes = end.value
            return line


def _may_switch(carrier: Carrier) -> bool:
    hub = get_hub_if_exists()
    if hub is None or getcurrent() is hub:
        return False
    try:
        carrier.check_may_wait()
    except RuntimeError:  # the answers that are here would not be read meanwhile
        return False
    return True


class LargeAnswers:
    """Those of a connection that are being read, each in a greenlet of its own, while the connection is read on.

    At most ``most`` bytes of them; then what comes next waits. ``heard`` is told what they say; ``failed``, why one
    can't be read.
    """

    def __init__(
        self, most: int, heard: Callable[[Reply], None], failed: Callable[[InvalidMessage | None], None]
    ) -> None:
        self._most = most
        self._heard = heard
        self._failed = failed
        self._size = 0  # bytes of those that are being read
        self._reading: set[gevent.Greenlet[..., None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether some are being read."""
        return bool(self._reading)

    def take(self, text: bytes) -> Reply | None:
        """Read it, or have it read: None where it is heard later."""
        if _IS_ALL.match(text) is None:
            return run_in_turns(decode_reply_in_steps(text))
        while self._reading and self._size + len(text) > self._most:
            gevent.joinall(list(self._reading), count=1)
        self._size += len(text)
        one = gevent.spawn(self._read, text)
        self._reading.add(one)
        one.rawlink(lambda _: self.mend())
        return None

    def wait(self) -> None:
        """Let others run until all have been heard."""
        gevent.joinall(list(self._reading))

    def mend(self) -> None:
        """Tell of a greenlet that has ended, and not as it should: a Ctrl-C may hit it anywhere."""
        for one in list(self._reading):
            if one.dead:
                self._reading.discard(one)
                self._failed(None)

    def _read(self, text: bytes) -> None:
        try:
            reply = run_in_turns(decode_reply_in_steps(text))
        except InvalidMessage as error:
            self._failed(error)
        else:
            self._heard(reply)
        self._size -= len(text)
        self._reading.discard(getcurrent())  # last: where a Ctrl-C came before, somebody finds us dead
