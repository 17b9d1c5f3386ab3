"""What stands before what carries calls while a test looks on: records them, and does to them what was planned."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..client.carrier import Carrier, Receiver
from ..errors import Cancelled, WorkerLost, out_of_time
from ..hub.home import Home, find_home
from ..wire.message import Call, decode_request
from .callers_home import CallersHome
from .calls import Calls, Plan, RecordedCall

__all__ = ["Watching"]

#: How often an idempotent call that loses its process is made again: a client has that many in reserve.
_MOST_TRIES = 10


class Watching:
    """A ``Carrier`` before another one, for one call (or whatever a client does in one go)."""

    def __init__(self, calls: Calls, inner: Carrier) -> None:
        self._calls = calls
        self._inner = inner
        self._carried: dict[int, _Carried] = {}
        self._home = CallersHome(inner.home)

    @property
    def home(self) -> Home:
        return self._home

    def check_may_wait(self) -> None:
        self._inner.check_may_wait()

    def start(self, id: int, data: bytes, receiver: Receiver, timeout: float | None, idempotent: bool = False) -> None:
        call = decode_request(data.rstrip(b"\n"))
        assert isinstance(call, Call)
        args, kwargs = ((), call.args) if isinstance(call.args, dict) else (tuple(call.args or ()), {})
        recorded = RecordedCall(call.function, args, kwargs, timeout, idempotent, find=self._calls.find)
        self._calls.record(recorded)
        plan = self._plan(call.function, idempotent=idempotent)
        carried = self._carried[id] = _Carried(receiver, recorded, plan.seconds, timeout)
        if plan.outcome is not None:
            carried.tell(call, *plan.outcome)
            return
        try:
            self._inner.home.run(self._inner.start, id, data, carried, timeout, idempotent)
        except BaseException as error:  # of the test's own setup, or Ctrl-C in a task that runs in place
            recorded.ended, recorded.error = True, error
            raise

    def send(self, id: int, data: bytes) -> None:
        self._inner.home.run(self._inner.send, id, data)

    def forget(self, id: int) -> None:
        carried = self._carried.pop(id, None)
        if carried is not None:
            self._inner.home.run(self._inner.forget, id)  # of no effect where it has ended, or was never passed on
            carried.forget()

    def _plan(self, name: str, *, idempotent: bool) -> Plan:
        plan = self._calls.plan(name)
        for _ in range(_MOST_TRIES):
            if not (idempotent and plan.outcome is not None and isinstance(plan.outcome[1], WorkerLost)):
                break
            plan = self._calls.plan(name)
        return plan


class _Carried(Receiver):
    """The receiver of a call in place of its own, which hears everything from it: ``seconds`` late, if need be."""

    def __init__(self, receiver: Receiver, recorded: RecordedCall, seconds: float, timeout: float | None) -> None:
        self._receiver = receiver
        self._recorded = recorded
        # Until then what comes is held back. Belongs to the thread of the home where the timer is.
        self._home = find_home() if seconds else None
        self._held: deque[Callable[[], None]] = deque()
        self._timer: Any = None
        if self._home is not None:
            late = timeout is not None and timeout <= seconds
            self._home.run(self._wait, timeout if timeout is not None and late else seconds, late)

    def tell(self, call: Call, value: Any, error: BaseException | None) -> None:
        """It ends with this, and did not run."""
        if call.stream and error is None:
            items = value if isinstance(value, list) else [value]
            for item in items:
                self.item(item)
            value = {"items": len(items)}
        self.ended(value, error)

    def ended(self, value: Any, error: BaseException | None) -> None:
        self._pass_on(partial(self._end, value, error))

    def progress(self, report: dict[str, Any]) -> None:
        self._pass_on(partial(self._receiver.progress, report))

    def item(self, item: Any) -> None:
        self._pass_on(partial(self._give, item))

    def forget(self) -> None:
        if not self._recorded.ended:
            self._recorded.ended, self._recorded.error = True, Cancelled("cancelled by its caller")
        if self._home is not None:
            self._home.run(self._stop)

    def _pass_on(self, event: Callable[[], None]) -> None:
        if self._home is None:
            event()
        else:
            self._home.run(self._hold, event)

    def _hold(self, event: Callable[[], None]) -> None:
        if self._timer is None:
            event()
        else:
            self._held.append(event)

    def _wait(self, seconds: float, late: bool) -> None:
        assert self._home is not None
        self._timer = self._home.hub.loop.timer(seconds)
        self._timer.start(self._out_of_time if late else self._open, update=True)

    def _open(self) -> None:
        self._stop()
        while self._held:
            self._held.popleft()()

    def _out_of_time(self) -> None:
        self._stop()
        self._held.clear()
        self._end(None, out_of_time(started=True))

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    def _give(self, item: Any) -> None:
        if not self._recorded.ended:
            self._recorded.items.append(item)
            self._receiver.item(item)

    def _end(self, value: Any, error: BaseException | None) -> None:
        if not self._recorded.ended:  # else it was cancelled, or is out of time
            self._recorded.result, self._recorded.error, self._recorded.ended = value, error, True
            self._receiver.ended(value, error)
