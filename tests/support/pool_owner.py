"""A program that owns a pool: prints what it has, in one line of JSON, and stays until it is killed.

Its arguments: a folder for notes, and perhaps ``fork``: then it forks a child of its own, which tries to use the pool
and stays too; or ``import``: then the pool is one whose processes never come to an end of importing.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import psutil

from greentask.errors import GreentaskError
from greentask.pool.processes import Processes
from greentask.pool.setup import Setup
from support import process_tasks
from support.pools import Asked, ask, processes, wait_for_lines
from support.waiting import wait_until


def main() -> None:
    told: dict[str, Any] = {}
    notes = Path(sys.argv[1], "notes")
    if "import" in sys.argv:
        gevent.spawn(Processes(Setup("support.raw_handlers:wait_at_import", (str(notes),))).start)
        print(json.dumps({"template": [int(wait_for_lines(notes)[0])]}), flush=True)
        gevent.sleep(3600)
    with processes(2) as pool:
        told["template"] = [child.pid for child in psutil.Process().children()]
        told["forked by a task"] = [ask(pool, process_tasks.fork_child, str(notes)).result()]
        ask(pool, process_tasks.daemonize, str(notes)).result()
        forked = wait_for_lines(notes, 2)
        told["daemons"] = [int(line) for line in forked if int(line) not in told["forked by a task"]]
        if "fork" in sys.argv:
            busy = [ask(pool, process_tasks.nap, 0.5) for _ in range(2)]
            late = ask(pool, process_tasks.nap, 0, deadline=time.monotonic() + 0.1)
            fork(pool, told, late)
            told["calls that were running"] = [each.result() for each in busy]
            told["a call that was out of time"] = str(late.error())
            told["the parent's next call"] = ask(pool, process_tasks.echo, "goes on").result()
            told["the parent's next calls"] = [ask(pool, process_tasks.echo, number).result() for number in range(20)]
        told["processes"] = pool.pids()
        ask(pool, process_tasks.spin, str(notes))
        print(json.dumps(told), flush=True)
        while True:
            wait_until(lambda: False, 3600)


def fork(pool: Any, told: dict[str, Any], late: Asked) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ask(pool, process_tasks.echo, "from the child")
            heard = "nothing was raised"
        except GreentaskError as error:
            heard = f"{type(error).__name__}: {error}"
        pool.close()  # must not end the parent's processes
        gevent.sleep(0.3)  # the child's copy of the loop runs: what is the parent's is not told here as well
        os.write(write, json.dumps([heard, len(late.answers)]).encode())
        os.close(write)
        while True:
            signal.pause()
    os.close(write)
    with open(read) as pipe:
        told["the child heard"], told["and of the parent's call"] = json.load(pipe)
    told["child"] = child


if __name__ == "__main__":
    main()
