"""A server with fronts and task processes, and what is done to it."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.common import ROOT
from greentask.queue.beside import Beside

from .clients import Line
from .tasks import set_clock

__all__ = ["LEASE", "Strike", "Victims"]

LEASE = 2.0  # seconds
_LATE = 5.0  # seconds after it goes on in which a front that was stopped may still begin what others have
_READY = 60.0  # seconds that a server may take for its start, on a busy machine
_GONE = 60.0  # seconds in which a front ends whose master is gone
_HOURS = 6

#: How often each is done, of sixteen times.
DECK = ("process",) * 4 + ("front",) * 3 + ("all",) * 2 + ("master",) * 2 + ("stop",) * 2 + ("full", "clock", "clock")


@dataclass
class Strike:
    """Something that cut off what these processes did, at some time from ``began`` to ``ended`` (monotonic)."""

    kind: str
    began: float
    ended: float
    pids: frozenset[int]


class Victims:
    """The server. ``small_disk``: the queue's folder is one that can be filled up; else its files are limited."""

    def __init__(self, folder: Path, address: tuple[str, int], chance: random.Random, *, small_disk: bool) -> None:
        self.strikes: list[Strike] = []
        self.log = folder / "log"
        self._queue = folder / "disk" / "tasks.db"
        self._clock = str(folder / "clock")
        self._address, self._chance, self._small_disk = address, chance, small_disk
        self._deck: list[str] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._limit: int | None = None  # bytes of a file, while the disk is full
        self._process: subprocess.Popen[bytes] | None = None
        self._log_at = 0  # where its log begins
        set_clock(self._clock, 0.0)

    # ---- Life

    def keep_alive(self) -> None:
        """Start it where it doesn't run, and wait until it answers."""
        until = time.monotonic() + _READY
        while time.monotonic() < until:
            self.undo()
            if self._process is None or self._process.poll() is not None:
                self._start()
            if b" serves " in self.log.read_bytes()[self._log_at :]:  # all fronts do: where one fails, it ends them
                try:
                    with Line(self._address, 1.0) as line:  # it may be one who is stopped
                        line.call("greentask.ping")
                    return
                except OSError:
                    pass
            time.sleep(0.05)
        raise TimeoutError(f"the server doesn't answer within {_READY:g} s; its log: {self.log}")

    def _start(self) -> None:
        host, port = self._address
        command = [sys.executable, "-m", "greentask", "serve", "benchmarks.tortured.tasks", "-l", f"{host}:{port}"]
        command += ["-p", "2", "--fronts", "2", "--queue", str(self._queue), "--queue-lease", str(LEASE)]
        with self.log.open("ab") as log:
            self._log_at = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TORTURE_CLOCK": self._clock},
            )
        if self._limit is not None:
            self._limit_files(self._limit)

    def end(self) -> None:
        """End it, in good order."""
        self.undo(now=True)
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_GONE)
            except subprocess.TimeoutExpired:
                self._kill_all()
                raise

    # ---- What is done to it

    def strike(self) -> None:
        """Do the next thing to it."""
        if not self._deck:
            self._deck = list(DECK)
            self._chance.shuffle(self._deck)
        kind = self._deck.pop()
        getattr(self, f"_strike_{kind}")()

    def undo(self, *, now: bool = False) -> None:
        """Undo what has lasted long enough; with ``now``, everything."""
        due = [one for one in self._later if now or one[0] <= time.monotonic()]
        for one in due:
            self._later.remove(one)
            one[1]()
        if now:
            set_clock(self._clock, 0.0)

    def _strike_process(self) -> None:
        front = self._chance.choice(self._fronts() or [None])
        below = [] if front is None else _below(front)
        if below:
            self._kill("process", [victim := self._chance.choice(below), *_below(victim)])

    def _strike_front(self) -> None:
        front = self._chance.choice(self._fronts() or [None])
        if front is not None:
            self._kill("front", [front, *_below(front)], 1)

    def _strike_all(self) -> None:
        self._kill_all()

    def _kill_all(self) -> None:
        assert self._process is not None
        everybody = self._everybody()
        self._kill("all", everybody, len(everybody))
        self._process.wait()

    def _strike_master(self) -> None:
        """The fronts then end in good order: nothing is cut off, unless there is no room to write down what ended."""
        assert self._process is not None
        everybody = self._everybody()
        strike = Strike("master", time.monotonic(), float("inf"), _pids(everybody if self._is_full() else ()))
        self.strikes.append(strike)
        self._process.kill()
        self._process.wait()
        self._wait_gone(strike, everybody)

    def _strike_stop(self) -> None:
        front = self._chance.choice(self._fronts() or [None])
        if front is None:
            return
        strike = Strike("stop", time.monotonic(), float("inf"), _pids([front, *_below(front)]))
        self.strikes.append(strike)
        self._stop(front, is_writing=self._chance.random() < 0.3)

        def go_on() -> None:
            _signal(front, signal.SIGCONT)
            strike.ended = time.monotonic() + _LATE

        self._later.append((time.monotonic() + LEASE + self._chance.uniform(0.5, 2.0), go_on))

    def _stop(self, front: psutil.Process, *, is_writing: bool) -> None:
        """Stop it: in the midst of writing, where the others wait for it, or so that they can take what it has."""
        beside = Beside(str(self._queue))
        until = time.monotonic() + 1.0
        _signal(front, signal.SIGSTOP)
        while beside.is_held(0) != is_writing and time.monotonic() < until:
            _signal(front, signal.SIGCONT)
            time.sleep(0.001)
            _signal(front, signal.SIGSTOP)
        beside.close()

    def _strike_full(self) -> None:
        if self._is_full():
            return
        self.strikes.append(Strike("full", time.monotonic(), time.monotonic(), frozenset()))
        files = list(self._queue.parent.glob("tasks.db*"))
        self._limit = max((file.stat().st_size for file in files), default=0)
        ballast = self._queue.with_name("ballast")
        if self._small_disk:
            _fill(ballast)
        else:
            self._limit_files(self._limit)

        def make_room() -> None:
            self._limit = None
            ballast.unlink(missing_ok=True)
            if not self._small_disk:
                self._limit_files(resource.RLIM_INFINITY)

        self._later.append((time.monotonic() + self._chance.uniform(0.5, LEASE + 2.0), make_room))

    def _strike_clock(self) -> None:
        self.strikes.append(Strike("clock", time.monotonic(), time.monotonic(), frozenset()))
        set_clock(self._clock, 3600 * self._chance.uniform(-_HOURS, _HOURS))

    # ---- How

    def _is_full(self) -> bool:
        return self._limit is not None

    def _limit_files(self, size: int) -> None:
        """Those of the master and the fronts, and of whatever they start meanwhile."""
        master, fronts = self._master(), self._fronts()
        below = [one for front in fronts for one in _below(front)] if size == resource.RLIM_INFINITY else []
        for process in (*master, *fronts, *below):
            try:
                process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            except psutil.NoSuchProcess:
                pass

    def _kill(self, kind: str, hit: list[psutil.Process], signals: int = 1) -> None:
        """Kill the first so many of them, of which the others die as well."""
        strike = Strike(kind, time.monotonic(), float("inf"), _pids(hit))
        self.strikes.append(strike)
        for process in hit[:signals]:
            _signal(process, signal.SIGKILL)
        self._wait_gone(strike, hit)

    def _wait_gone(self, strike: Strike, hit: list[psutil.Process]) -> None:
        until = time.monotonic() + _GONE
        while hit := psutil.wait_procs(hit, 0.1)[1]:
            self.undo()  # one that is stopped can't end
            if time.monotonic() > until:
                raise TimeoutError(f"{_GONE:g} s after a SIGKILL ({strike.kind}) there still are {hit}")
        strike.ended = time.monotonic()

    def _master(self) -> list[psutil.Process]:
        try:
            return [] if self._process is None else [psutil.Process(self._process.pid)]
        except psutil.NoSuchProcess:
            return []

    def _fronts(self) -> list[psutil.Process]:
        return [front for master in self._master() for front in _below(master, recursive=False)]

    def _everybody(self) -> list[psutil.Process]:
        return [one for master in self._master() for one in (master, *_below(master))]


def _below(process: psutil.Process, *, recursive: bool = True) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=recursive))
    except psutil.NoSuchProcess:
        return []


def _pids(processes: Iterable[psutil.Process]) -> frozenset[int]:
    return frozenset(process.pid for process in processes)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass


def _fill(file: Path) -> None:
    """Fill up its disk."""
    with file.open("wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12):
            try:
                while ballast.write(bytes(size)) == size:
                    pass
            except OSError:
                pass
