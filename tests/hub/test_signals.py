"""Stopping at a signal, and what a program has of its own for signals afterwards."""

import pytest

from support.programs import run_source


@pytest.mark.parametrize("patched", [False, True])
def test_afterwards_the_programs_own_handlers_are_there_again(patched: bool) -> None:
    program = """
import gevent, os, signal, time
from gevent.event import Event
from greentask.hub.signals import stop_at_signals
told = Event()
signal.signal(signal.SIGTERM, lambda *_: print("own"))
with stop_at_signals(lambda drain: print("stop", drain) or told.set(), 7.0):
    os.kill(os.getpid(), signal.SIGTERM)
    assert told.wait(20)
os.kill(os.getpid(), signal.SIGTERM)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run_source(program, patched=patched) == ["stop", "7.0", "own", "interrupted"]
