"""A real task server for tests: ``greentask serve`` in a process of its own, and the clients pointed at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..client.carrier import carried_by
from ..client.client import Client
from ..client.core import pointed_at
from ..client.default import replaced_default
from ..errors import ConfigurationError
from .calls import Calls
from .known import Known
from .watching import Watching

__all__ = ["LocalServer", "ServerCalls"]

# `python -m greentask`, which ends when we do. (With a preexec_fn Python would warn where there are threads.)
_PROGRAM = (
    "from greentask.pool.linux import die_with_parent; die_with_parent(); "
    "import runpy; runpy.run_module('greentask', run_name='__main__', alter_sys=True)"
)
_STEP = 0.02  # seconds between two looks at whether it serves
_ENDED_WITHIN = 5.0  # seconds


class LocalServer:
    """One ``greentask serve`` of these APPs, on a free port of this machine.

    apps
        What it serves, as on the command line: modules must be importable here.
    processes
        Task processes, for ``process=True`` tasks.
    options
        Further arguments of ``greentask serve``, such as ``["--max-tasks", "1000"]``.
    variables
        What is to be in its environment besides what is in ours.
    timeout
        Seconds for starting. Raises ``ConfigurationError``, with what it wrote, where it doesn't serve by then.

    Its tasks find it as their own server by ``GREENTASK_URL``. It ends with this process, whatever becomes of that.
    """

    def __init__(
        self,
        *apps: str,
        processes: int = 1,
        options: Iterable[str] = (),
        variables: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        if not apps:
            raise ConfigurationError("a server has tasks: name their module, as in 'shop.tasks'")
        self.apps = apps
        self._folder = tempfile.TemporaryDirectory(prefix="greentask-")
        self._output = Path(self._folder.name, "output")
        own, ready = f"unix://{self._folder.name}/tasks", Path(self._folder.name, "ready")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "GREENTASK_URL": own,
            **(variables or {}),
        }
        given = ["--listen", own, "--listen", "127.0.0.1:0", "--ready-file", str(ready), "--drain-timeout", "1"]
        command = [sys.executable, "-c", _PROGRAM, "serve", *apps, "--processes", str(processes), *given, *options]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the tests
            )
        self.pid = self._process.pid
        try:
            self._wait_ready(ready, timeout)
            #: Where it is: ``tcp://127.0.0.1:PORT``.
            self.address = ready.read_text().split()[1]
        except BaseException:
            self.stop()
            raise

    def __repr__(self) -> str:
        return f"<LocalServer {getattr(self, 'address', 'that does not serve')} (pid {self.pid})>"

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def output(self) -> str:
        """What it has written so far, to stdout and stderr."""
        return self._output.read_text("utf-8", "backslashreplace")

    @contextmanager
    def used(self) -> Iterator[ServerCalls]:
        """While inside, tasks are called on it, unless they are told another client. Gives the calls.

        The default client is one for it; so are all clients that were given no address, also those that were made
        before (``client = Client()`` in a module). ``GREENTASK_URL`` names it to programs that are started meanwhile.
        """
        calls = ServerCalls(self)
        before = os.environ.get("GREENTASK_URL")
        os.environ["GREENTASK_URL"] = self.address
        try:
            with (
                Client(self.address) as client,
                replaced_default(client),
                pointed_at(client.addresses),
                carried_by(lambda router: Watching(calls, router())),
            ):
                yield calls
        finally:
            if before is None:
                os.environ.pop("GREENTASK_URL", None)
            else:
                os.environ["GREENTASK_URL"] = before

    def stop(self) -> None:
        """End it; calls that are left have a second for ending."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
                try:
                    self._process.wait(_ENDED_WITHIN)
                except subprocess.TimeoutExpired:
                    continue
        self._folder.cleanup()

    def _wait_ready(self, ready: Path, timeout: float) -> None:
        until = time.monotonic() + timeout
        while not ready.exists():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > until:
                how = "could not start" if ended else f"did not serve within {timeout:g} s (timeout=)"
                raise ConfigurationError(f"the task server {how}. It wrote:\n{self.output()}")
            time.sleep(_STEP)


class ServerCalls(Calls):
    """The calls of a program whose default server is that of a test."""

    def __init__(self, server: LocalServer) -> None:
        super().__init__(lambda name: Known(server.apps, ()).task(name), lambda: Known(server.apps, ()).names())
        #: Where the tasks run.
        self.server = server
