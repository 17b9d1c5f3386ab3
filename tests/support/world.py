"""Run pytest in another kind of program: `python world.py patched|greenlet ARGUMENTS`.

patched
    gevent has patched the standard library: every thread of the tests is a greenlet of the main thread.
greenlet
    It hasn't, but each test runs in a greenlet beside the main thread's hub.
"""

# ruff: noqa: E402 - patching comes before every import that it is for
import sys

KIND, ARGUMENTS = sys.argv[1], sys.argv[2:]

if KIND == "patched":
    from gevent import monkey

    monkey.patch_all()

from collections.abc import Generator

import gevent
import pytest


class InGreenlet:
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        run = item.runtest
        item.runtest = lambda: gevent.spawn(run).get()  # type: ignore[method-assign]
        return (yield)


class Witness:
    """Says at the end where the client's I/O has been, so that nobody takes one kind of program for another."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        from greentask.hub.home import find_home

        terminalreporter.write_line(f"home: {'here' if find_home().is_here() else 'in the background'}")


if __name__ == "__main__":
    sys.exit(pytest.main(ARGUMENTS, plugins=[Witness(), *([InGreenlet()] if KIND == "greenlet" else [])]))
