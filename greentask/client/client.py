"""``Client``: calls tasks on a server, from greenlets or threads, as if they were functions here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import LineTooLong, out_of_time
from ..tasks.checks import check_count, check_seconds
from ..tasks.context import current
from ..tasks.enqueueing import with_options
from ..tasks.remote import BatchReceipt, ProgressCallback, Receipt, TaskFuture
from ..tasks.steps import Step, wire_chain
from ..tasks.task import DEFAULT_WINDOW, each_arguments, known_length, zip_arguments
from ..wire.address import Address
from ..wire.enqueue import Enqueue, EnqueueOptions
from ..wire.message import DEFAULT_STREAM_WINDOW, Args, Call, encode_plain_call, has_large
from ..wire.text import DEFAULT_MAX_LINE
from .bar import counted, showing, streamed
from .batch import ClientBatch
from .batching import Batching, one_by_one
from .carrier import Carrier, Receiver, carrier_of
from .chain import PatientFuture, SubmittedFuture
from .enqueueing import enqueue_group
from .large import encode
from .mapping import Start, map_calls
from .receipt import ClientReceipt
from .receivers import WaitingGreenlet
from .settings import core_of
from .target import Target, arguments_of, name_of
from .waiting import forget, wait_reporting, wait_streaming

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .executor import TaskExecutor

__all__ = ["Client", "Target"]


class Client:
    """Connections to one or more servers, shared by all greenlets and threads that use the client.

    address
        Where the server is; None: where ``GREENTASK_URL`` says, or 127.0.0.1:12345 (see ``client.environment``). Of
        several (comma separated, or a list) each call goes to the one with the fewest calls that it has not answered,
        and to one that can't be reached only when it is back.
    timeout
        Seconds that a call may take unless it says otherwise; None: as long as it takes.
    connect_timeout
        Seconds for one attempt at connecting.
    max_line
        Bytes of one line, in either direction: a longer call is ``LineTooLong``, a longer answer ``InvalidResult``.
    weights
        How much each server can do, as against the others: one with 2 gets twice the calls of one with 1.
    dead_after
        Seconds of silence after which a connection is given up; a silent server is asked for a sign of life before.
    idle_after
        Seconds without a call after which a connection is closed.
    gone_after
        Seconds for which calls wait for servers to be back that were there, and of which none can be reached now:
        a restart. After that, and where none was there before, they fail at once. 0: they don't wait.
    resolve_after
        Seconds after which the addresses of a server's name are asked for again; so they are too where one was lost.
        Each address is a server of its own; they share the weight of their name.
    secret, secret_file
        The secret that client and server prove to each other when it connects, or the file in whose first line it is
        (which is read anew when it has changed). Without either it calls only servers that ask for no proof, with
        one only servers that do.

    tls_ca
        Servers at ``tls://`` addresses must have a certificate of this authority's, and not of one that the system
        trusts; in any case one for the name or IP address by which they are called.
    tls_cert, tls_key
        Our own certificate and its key, for a server that wants to see one. The files are read anew when they have
        changed.

    It connects at the first call, opens another connection where hundreds of calls are in flight on one, and connects
    anew when a connection was lost. A call that certainly did not run (its server could not be reached, goes away, or
    has too much to do) goes to another server by itself, or waits a while for its own to be back. In a task, a call has
    no more time than is left to that task. In a forked child it connects anew. Not used, it costs nothing. At the
    program's end what was submitted is still sent, but not waited for.

    >>> client = Client("127.0.0.1:12345")
    >>> client.call("add", 1, 2)                              # doctest: +SKIP
    3
    """

    def __init__(
        self,
        address: str | Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        connect_timeout: float = 5.0,
        max_line: int = DEFAULT_MAX_LINE,
        weights: Iterable[float] | None = None,
        dead_after: float = 15.0,
        idle_after: float = 60.0,
        gone_after: float = 5.0,
        resolve_after: float = 30.0,
        secret: str | bytes | None = None,
        secret_file: str | os.PathLike[str] | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
    ) -> None:
        self._timeout = _check_timeout(timeout)
        self._progress: ProgressCallback | bool | None = None
        self._idempotent = False
        self._durable: Enqueue | None = None
        self._core = core_of(
            address,
            weights,
            connect_timeout=connect_timeout,
            max_line=max_line,
            dead_after=dead_after,
            idle_after=idle_after,
            gone_after=gone_after,
            resolve_after=resolve_after,
            secret=secret,
            secret_file=secret_file,
            tls=(tls_cert, tls_key, tls_ca),
        )

    def __repr__(self) -> str:
        return f"<Client of {', '.join(map(str, self.addresses))}>"

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it calls."""
        return self._core.addresses

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Send what is to be sent, and close the connection; calls in flight fail with ``ConnectionLost``.

        A later call connects again. The background thread of a plain program isn't waited for: it ends half a second
        after the last connection of all clients.
        """
        self._core.close()

    def using(
        self,
        *,
        timeout: float | None = None,
        progress: ProgressCallback | bool | None = None,
        idempotent: bool | None = None,
        **durable: Unpack[EnqueueOptions],
    ) -> Client:
        """This client (and its connections), with a timeout in seconds or a progress callback for its calls.

        ``idempotent`` calls do no harm when they run twice: one whose connection or task process was lost is sent
        again. At most a tenth of all calls are, with ten in reserve, or a struggling server would get still more to do.

        ``progress`` gets ``{"done": …, "total": …, "note": …}``: with ``call`` and ``stream`` in the caller's greenlet
        or thread, with ``submit`` and ``map`` in the thread of the I/O, where it must be quick and must not block.

        What is to be enqueued has further options: ``delay`` in seconds or ``at`` as a Unix time, ``priority`` from -10
        to 10, a ``key`` under which it is enqueued once, and ``key_ttl``, the seconds for which that holds when it is
        forgotten, a ``singleton`` of which one waits or runs, ``retries`` in place of what the task says, and ``ttl``,
        the seconds within which it must have begun. Seconds may be a ``timedelta``, and a time a ``datetime``.

        >>> client.using(timeout=5).call("add", 1, 2)         # doctest: +SKIP
        >>> client.using(delay=60, key="order 5").enqueue("send_mail", to="b@example.org")    # doctest: +SKIP
        """
        other = Client.__new__(Client)
        other._timeout = self._timeout if timeout is None else _check_timeout(timeout)
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise TypeError(f"progress is a function that takes reports, or True for a bar, not {progress!r:.200}")
        other._progress = self._progress if progress is None else progress
        other._idempotent = self._idempotent if idempotent is None else idempotent
        also = ("timeout", "progress", "idempotent")
        other._durable = with_options(self._durable, durable, also) if durable else self._durable
        other._core = self._core
        return other

    # ---- Calls

    def call(self, function: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Run a task on the server and wait for its result; other greenlets (or threads) go on meanwhile.

        Raises what the task raised, as the builtin exception of that name or else as ``TaskError``; the protocol's
        own errors (``UnknownTask``, ``WorkerLost``, ``DeadlineExceeded`` …); ``ConnectionLost``.
        """
        return self.call_args(name_of(function), arguments_of(function, args, kwargs))

    def submit(self, function: Target, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Start a task on the server; the future has its result. Cancelling the future cancels the task."""
        return self.submit_args(name_of(function), arguments_of(function, args, kwargs))

    def map(
        self,
        function: Target,
        /,
        *iterables: Iterable[Any],
        unordered: bool = False,
        window: int = DEFAULT_WINDOW,
        return_exceptions: bool = False,
        progress: bool | None = None,
    ) -> Iterator[Any]:
        """Like the builtin ``map``, on the server: an iterator over the results, at most ``window`` calls in flight.

        The iterables are read only as results are taken. ``unordered`` gives results as they come. An error is raised
        in its turn, and ends the iteration; with ``return_exceptions`` it is given like a result. ``progress=True``
        draws a bar on stderr, where that is a terminal.
        """
        return self.map_args(
            name_of(function),
            map(list, zip_arguments(iterables)),
            unordered=unordered,
            window=window,
            return_exceptions=return_exceptions,
            progress=progress,
            total=known_length(iterables),
        )

    def stream(
        self, function: Target, /, *args: Any, window: int = DEFAULT_STREAM_WINDOW, **kwargs: Any
    ) -> Iterator[Any]:
        """The items of a generator task, one by one. The generator is at most ``window`` items ahead of the reader.

        Closing the iterator cancels the task.
        """
        return self.stream_args(name_of(function), arguments_of(function, args, kwargs), window=window)

    def enqueue(self, function: Target, /, *args: Any, **kwargs: Any) -> Receipt[Any]:
        """Have a server with a queue keep a task, and run it later; returns when it is on disk.

        It runs at least once, whatever dies meanwhile. Raises ``QueueFull`` where there is no room, ``UnknownTask`` and
        ``InvalidArguments`` as ``call`` does; after ``ConnectionLost`` with ``sent`` it may have been kept. With a
        ``key`` it is then sent again by itself.
        """
        return self.enqueue_args(function, arguments_of(function, args, kwargs))

    def enqueue_many(self, function: Target, items: Iterable[Args], /) -> BatchReceipt[Any]:
        """As ``enqueue``, for many: each item is one call's arguments, a dict by name or a sequence by position.

        A thousand of them are one transaction, and much quicker than one by one. Where it raises, those of earlier
        thousands have been kept, and what follows them (``using(then=…)``) never runs.
        """
        return self.enqueue_many_args(function, each_arguments(items))

    def receipt(self, id: str | None = None, *, key: str | None = None) -> Receipt[Any]:
        """The receipt of a task that was enqueued somewhere else, by its id or by the ``key`` that it was given.

        By a key the server is asked at once. Raises ``QueueError`` where it knows no task with it (any more).
        """
        if (id is None) == (key is None):
            raise TypeError("a receipt is found by an id, or by a key")
        return ClientReceipt(self, self.call("greentask.result", key=key)["task"] if id is None else id)

    def executor(self, *, window: int = DEFAULT_WINDOW) -> TaskExecutor:
        """A ``concurrent.futures.Executor`` of this client: what is submitted runs on the server.

        What was written for a pool of processes or threads moves to another machine by its first line. Functions are
        tasks, their names, or functions that the server offers; ``window`` of their calls are in flight at once, and
        the others wait for their turn. Timeouts and the like are the client's: ``client.using(timeout=5).executor()``.

        >>> with client.executor() as executor:               # doctest: +SKIP
        ...     for size in executor.map(os.path.getsize, paths): ...
        """
        from .executor import TaskExecutor

        return TaskExecutor(self, window=window)

    def call_args(
        self,
        function: str,
        args: Args,
        *,
        timeout: float | None = None,
        progress: ProgressCallback | bool | None = None,
    ) -> Any:
        """``call``, with the arguments as the wire has them: a dict by name, or a list by position."""
        report = self._progress if progress is None else progress
        core = self._core
        id, left = core.next_id(), self._time_left(timeout)
        if report:
            call = Call(function, args, id, left, True)
            with showing(function) if report is True else nullcontext(report) as tell:
                carrier = carrier_of(core.router)
                return wait_reporting(carrier, id, partial(self._start, carrier, call), tell)
        carrier = carrier_of(core.router)
        if not carrier.home.is_here():
            return self._wait(self._submit(Call(function, args, id, left), None))
        carrier.check_may_wait()
        receiver = WaitingGreenlet(carrier.home.hub)
        if args and has_large(args):
            data = encode(carrier, Call(function, args, id, left))
        else:
            data = encode_plain_call(function, args, id, left)
        if self._durable is not None or len(data) > core.max_line:
            self._check(function, data)
        try:
            carrier.start(id, data, receiver, left, self._idempotent)
            return receiver.get()
        except BaseException:
            forget(carrier, id)
            raise

    def submit_args(
        self,
        function: str,
        args: Args,
        *,
        timeout: float | None = None,
        progress: ProgressCallback | bool | None = None,
    ) -> TaskFuture[Any]:
        """``submit``, with the arguments as the wire has them."""
        return self._submit_patiently(function, args, timeout, progress, patient=False)

    def map_args(
        self,
        function: str,
        items: Iterable[Args],
        *,
        timeout: float | None = None,
        unordered: bool = False,
        window: int = DEFAULT_WINDOW,
        return_exceptions: bool = False,
        progress: ProgressCallback | bool | None = None,
        total: int | None = None,
    ) -> Iterator[Any]:
        """``map``, each item being one call's arguments as the wire has them. ``total`` is how many, for the bar."""
        window = check_count("window", window)
        wanted = self._progress if progress is None else progress
        report = wanted if callable(wanted) else None

        def submit(item: Args) -> Future[Any]:
            return self._try_submit(function, item, timeout, report)

        if report is None:
            time_left = partial(self._time_left, timeout)
            start: Start[Args] = Batching(
                self._core, function, submit, time_left, idempotent=self._idempotent, patient=True
            ).start
        else:  # reports are of calls, and a batch is one
            start = one_by_one(submit)
        results = map_calls(iter(items), start, window, unordered=unordered, return_exceptions=return_exceptions)
        return counted(results, function, total) if wanted is True else results

    def stream_args(
        self,
        function: str,
        args: Args,
        *,
        timeout: float | None = None,
        window: int = DEFAULT_STREAM_WINDOW,
        progress: ProgressCallback | bool | None = None,
    ) -> Iterator[Any]:
        """``stream``, with the arguments as the wire has them."""
        window = check_count("window", window)
        report = self._progress if progress is None else progress
        call = Call(function, args, self._core.next_id(), self._time_left(timeout), bool(report), stream=window)
        return self._stream(call, window, report)

    def enqueue_args(self, function: Target, args: Args, *, timeout: float | None = None) -> Receipt[Any]:
        """``enqueue``, with the arguments as the wire has them: a dict by name, or a list by position."""
        durable = self._durable or Enqueue()
        call = Call(name_of(function), args, self._core.next_id(), self._time_left(timeout), enqueue=durable)
        kept = self._wait(self._submit(call, None, idempotent=self._idempotent or durable.key is not None))
        return ClientReceipt(self._plain(), kept["task"], kept.get("then"))

    def enqueue_many_args(
        self, function: Target, items: Iterable[Args], *, timeout: float | None = None
    ) -> BatchReceipt[Any]:
        """``enqueue_many``, each item being one call's arguments as the wire has them."""
        durable = self._durable or Enqueue()
        if durable.key is not None:
            raise TypeError("a key is one task's: enqueue those that have one by themselves")
        group, tasks, then = enqueue_group(self, name_of(function), items, durable, timeout)
        return ClientBatch(self._plain(), group, tasks, then)

    def _enqueue_after(
        self, id: str, function: Target | Step, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Receipt[Any]:
        """Enqueue one behind another."""
        if isinstance(function, Step) and (args or kwargs):
            raise TypeError("a Step has its arguments itself")
        (step,) = wire_chain(function if isinstance(function, Step) else Step(function, *args, **kwargs))
        takes, errors = step.get("takes", True), step.get("errors", False)
        other = self.using()
        other._durable = Enqueue(after=id, takes=takes, errors=errors, **step.get("enqueue", {}))
        return other.enqueue_args(step["function"], step.get("args", []))

    # ---- How

    def _plain(self) -> Client:
        """For calls about what was enqueued, which ask only, and so may be asked again."""
        other = self.using(idempotent=True)
        other._durable = None
        return other

    def _time_left(self, timeout: float | None) -> float | None:
        """Seconds that a call has, which is made now."""
        timeout = self._timeout if timeout is None else _check_timeout(timeout)
        running = current()  # the task that makes this call
        if running.deadline is None:
            return timeout
        left = running.remaining()
        if left is not None and (timeout is None or left < timeout):
            if left <= 0:
                raise out_of_time(started=False)
            timeout = left
        return timeout

    def _start(self, carrier: Carrier, call: Call, receiver: Receiver, *, idempotent: bool = False) -> None:
        data = encode(carrier, call)
        self._check(call.function, data, call.enqueue)
        assert isinstance(call.id, int)
        carrier.home.run(carrier.start, call.id, data, receiver, call.timeout, idempotent or self._idempotent)

    def _check(self, function: str, data: bytes, enqueue: Enqueue | None = None) -> None:
        if self._durable is not None and enqueue is None:
            told = self._durable.to_json()
            given = "what using() was given" if isinstance(told, bool) else ", ".join(f"{name}=" for name in told)
            raise TypeError(f"{given} of using() is for what is enqueued, and this is a call: use enqueue")
        if len(data) > self._core.max_line:
            raise LineTooLong(
                f"the call of {function} is {len(data)} bytes long, and max_line is {self._core.max_line}: "
                "send less at once, or raise max_line here and on the server"
            )

    def _submit_patiently(
        self,
        function: str,
        args: Args,
        timeout: float | None,
        progress: ProgressCallback | bool | None = None,
        *,
        patient: bool = True,
    ) -> SubmittedFuture:
        """``submit_args``; where it is ``patient``, it waits for a server that has no room for it."""
        report = self._progress if progress is None else progress
        if not (report is None or callable(report)):
            raise TypeError("progress=True draws a bar while a call or a map is waited for: give submit a function")
        call = Call(function, args, self._core.next_id(), self._time_left(timeout), report is not None)
        return self._submit(call, report, patient=patient)

    def _submit(
        self, call: Call, progress: ProgressCallback | None, *, idempotent: bool = False, patient: bool = False
    ) -> SubmittedFuture:
        carrier = carrier_of(self._core.router)
        assert isinstance(call.id, int)
        future = (PatientFuture if patient else SubmittedFuture)(carrier, self.submit, call.id, progress)
        try:
            self._start(carrier, call, future, idempotent=idempotent)
        except BaseException:  # a Ctrl-C, when it was sent: nobody has its future
            forget(carrier, call.id)
            raise
        return future

    def _try_submit(
        self,
        function: str,
        item: Args,
        timeout: float | None,
        report: ProgressCallback | None,
    ) -> Future[Any]:
        """``submit_args``, where an error has its turn like that of a task."""
        try:
            call = Call(function, item, self._core.next_id(), self._time_left(timeout), report is not None)
            return self._submit(call, report, patient=True)
        except Exception as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed

    def _wait(self, future: SubmittedFuture) -> Any:
        try:
            return future.result()
        except BaseException:
            future.cancel()  # of no effect where it has ended
            raise
        finally:
            del future  # or its error would keep this frame, and this frame the error

    def _stream(self, call: Call, window: int, report: ProgressCallback | bool | None) -> Iterator[Any]:
        carrier = carrier_of(self._core.router)
        assert isinstance(call.id, int)
        stream = partial(wait_streaming, carrier, call.id, partial(self._start, carrier, call), window)
        yield from streamed(stream, call.function) if report is True else stream(report or None)


def _check_timeout(timeout: float | None) -> float | None:
    return None if timeout is None else check_seconds("timeout", timeout)
