"""Ctrl-C at any moment, caught by the main greenlet: every call of the others ends, and the client goes on."""

import json
import random
import threading
import time
from collections import deque
from functools import partial
from typing import Any

import pytest

from greentask import Client, ConnectionLost, InvalidArguments
from greentask.client import batching, executor, flow, future, mailbox
from greentask.client.batching import BatchReceiver
from greentask.hub import future as hub_future
from support.interrupting import at_each_moment
from support.peers import peer
from support.programs import run_source, starting
from support.servers import LineClient, RunningServer, wait_until

# ---- Looking for what has not been done


def test_somebody_looks_while_there_are_calls_and_nobody_where_there_are_none(server: RunningServer) -> None:
    program = """
import os, sys
from greentask.hub import mending
mending.MENDED_EVERY = 0.02
from greentask import Client
from support.conditions import wait_until
with Client(sys.argv[1]) as client:
    looks = client._core.router()._mending._timer
    for turn in range(3):
        key = f"looked at {turn} {os.getpid()}"
        future = client.submit("hold", key)
        wait_until(lambda: looks.active, "somebody looks")
        client.call("release", key)
        print(future.result() == key, looks.active)
        wait_until(lambda: not looks.active, "nobody looks any more")
    client.submit("nap", 1)
    print(looks.active)
print(looks.active)
"""
    assert run_source(program, server.address, patched=True) == ["True", "True"] * 3 + ["True", "False"]


# ---- At random moments

INTERRUPTED = """
import random, sys, traceback
import gevent, greentask
from greentask import Client
from support.ctrl_c import call_under_ctrl_c
addresses, seed, seconds = sys.argv[1].split(","), int(sys.argv[2]), float(sys.argv[3])
client, wrong, where = Client(addresses), [], {}
chances = [random.Random(seed * 1000 + number) for number in range(12)]

def through_executor(what):
    with client.executor(window=3) as executor: return list(executor.map("echo", [what] * 8, chunksize=4))

def as_completed(what):
    return [done.result() for done in greentask.as_completed([client.submit("echo", what) for _ in range(3)])]

ways = [
    (1, lambda what: client.call("echo", what)),
    (1, lambda what: client.submit("echo", what).result()),
    (1, lambda what: client.using(timeout=30).call("echo", what)),
    (1, lambda what: client.submit("echo", what).then("echo").result()),
    (20, lambda what: list(client.map("echo", [what] * 20))),
    (8, through_executor),
    (3, as_completed),
]

def call(number, turn):
    chance = chances[number]
    what = f"{number} {turn} " + "x" * chance.choice([0, 10, 400_000 if chance.random() < 0.1 else 0])
    count, way = chance.choice(ways)
    where[number] = (turn, ways.index((count, way)))
    got = way(what)
    if got != (what if count == 1 else [what] * count): wrong.append((what[:50], str(got)[:50]))

def wait():
    if random.random() < 0.5: gevent.sleep(0.001)
    else:
        try: client.call("echo", "main")
        except Exception: pass

left = call_under_ctrl_c(len(chances), call, wait, seed=seed, seconds=seconds)
for number, greenlet in left.items():
    print("left:", where[number])
    traceback.print_stack(greenlet.gr_frame, file=sys.stdout)
def goes_on():
    try: return client.using(timeout=10).call("echo", "after") == "after"
    except Exception: return False  # the server has cut the connection again
print("left", len(left), "wrong", wrong, "goes on", any(goes_on() for _ in range(20)), flush=True)
"""


def refusing_now_and_then(connection: LineClient) -> None:
    """Answers, goes away or has too much to do now and then, and cuts a connection."""
    chance = random.Random()
    for line in connection.socket.makefile("rb"):
        call = json.loads(line) if line.endswith(b"\n") else None
        if call is None or chance.random() < 0.005:
            return
        id, args = call["id"], call.get("args")
        if "batch" not in call:
            answers: list[dict[str, Any]] = [{"id": id, "result": args[0] if isinstance(args, list) else True}]
        else:
            answers = [{"id": id, "index": number, "result": args[0]} for number, args in enumerate(call["batch"])]
            answers.append({"id": id, "result": None})
        if call["function"] == "echo" and chance.random() < 0.12:
            kind = chance.choice(["Draining", "Draining", "Overloaded"])
            answers = [{"id": id, "error": {"type": kind, "message": "not now"}}]
        connection.send(*answers)


@pytest.mark.parametrize("runs", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_every_call_of_other_greenlets_ends_and_the_client_goes_on(server: RunningServer, runs: int) -> None:
    seconds = 1.2 if runs == 1 else 3.0
    for _ in range(runs):
        seed = random.randrange(10**6)
        with peer(refusing_now_and_then) as wild:
            each = [server.address, f"{wild.address},{wild.address.replace('127.0.0.1', 'localhost')}"]
            arguments = [[addresses, str(seed), str(seconds)] for addresses in each]
            with starting(INTERRUPTED, arguments, patched=True) as started:
                for program in started:
                    output, complaints = program.communicate(timeout=60)
                    assert output == "left 0 wrong [] goes on True\n", f"seed {seed}: {output} {complaints}"
    wait_until(lambda: server.status()["in_flight"] == 0, "the server is idle")


# ---- At each moment, one after the other


class _MakesRoom(deque[Any]):
    """What waits in an executor. A call has ended at the very moment at which one more is put there."""

    def __init__(self, tasks: Any) -> None:
        super().__init__(tasks._waiting)
        self._tasks = tasks

    def append(self, chunk: Any) -> None:
        super().append(chunk)
        self._tasks._window = 1


def test_an_executor_starts_what_waits_or_says_that_it_did_not(client: Client) -> None:
    for run in at_each_moment(executor):
        tasks: Any = client.executor(window=1)
        first, second, third = (tasks.submit("echo", number) for number in range(3))
        assert first.result(20) == 0
        assert second.result(20) == 1
        tasks._window = 0  # until then the others are to wait
        assert third.result(20) == 2
        waiting = [tasks.submit("echo", number) for number in range(3)]
        lost = tasks.submit("echo", {1})
        tasks._waiting = _MakesRoom(tasks)
        run(partial(tasks.submit, "echo", 3))
        if not tasks._window:  # it came before that one was there
            tasks._window = 1
            tasks._go_on()
        for number, one in enumerate(waiting):
            error = one.exception(20)
            assert one.result() == number if error is None else "Ctrl-C" in str(error)
        assert isinstance(lost.exception(20), (InvalidArguments, ConnectionLost))
        done = threading.Thread(target=tasks.shutdown)
        done.start()
        done.join(20)
        assert not done.is_alive()


EXECUTED = """
import sys
import gevent
import greentask
from greentask import Client
from greentask.client import executor, future
from greentask.hub import future as hub_future, home as home_module
from support.interrupting import at_each_moment
client = Client(sys.argv[1])
large, moments = "x" * 300_000, 0
home = client._core.router().home
ways = [
    lambda future: future.exception(20),
    lambda future: next(greentask.as_completed([future], timeout=20)).exception(0),
    lambda future: greentask.wait([future], timeout=20).done.pop().exception(0),
]

for run in at_each_moment(*[executor, future, hub_future, home_module][: int(sys.argv[2])]):
    tasks = client.executor(window=1)
    one = tasks.submit("nap", 60)
    others = [tasks.submit("echo", what) for what in (large, {1}, 3, 4)]  # no line can carry the second
    waiting = [gevent.spawn(ways[(moments + number) % 3], other) for number, other in enumerate([one, *others])]
    gevent.sleep(0)
    call = one._call
    again = gevent.spawn(call.ended, "one", None)  # as the end of its connection would, in the first one's midst
    run(lambda: call.ended("one", None))
    again.get()
    errors = [each.get(timeout=30) for each in waiting]
    assert one.result(0) == "one"
    for other, error, what in zip(others, errors[1:], (large, {1}, 3, 4)):
        if error is None:
            assert other.result(0) == what
        else:
            assert "Ctrl-C" in str(error) or (what == {1} and "JSON" in str(error)), error
    client._core.router().forget(call._id)
    shut = gevent.spawn(tasks.shutdown)
    shut.get(timeout=20)
    moments += 1
print(moments)
"""


@pytest.mark.parametrize("modules", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_whoever_waits_for_an_executors_future_hears_of_its_end(server: RunningServer, modules: int) -> None:
    (moments,) = run_source(EXECUTED, server.address, str(modules), patched=True)
    assert int(moments) > 40


def test_what_a_ctrl_c_kept_from_being_told_is_told_where_somebody_relied_on_it(client: Client) -> None:
    heard: list[str] = []
    one = future.HomeFuture(client._core.router().home)

    def hit(_: object) -> None:
        if not heard:
            heard.append("hit")
            one.ended(1, None)  # somebody else tells it as well, finds that it is being told, and leaves it to us
            raise KeyboardInterrupt

    one.add_done_callback(hit)
    one.add_done_callback(lambda _: heard.append("told"))
    with pytest.raises(KeyboardInterrupt):
        one.ended(1, None)
    wait_until(lambda: heard == ["hit", "told"], "the second one is told, too")


class _Told:
    """A router as far as a batch needs one."""

    def __init__(self, home: Any) -> None:
        self.home = home

    def has(self, _id: int) -> bool:
        return False

    def check_may_wait(self) -> None:
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_the_items_of_a_batch_are_all_told_by_its_second_end(client: Client, fails: bool) -> None:
    home: Any = client._core.router().home
    for run in at_each_moment(batching, future, hub_future):
        told: Any = _Told(home)
        batch = BatchReceiver(told, 1, 3, lambda future, error, _: future.ended(None, error))
        items = batch.pending

        def end(batch: BatchReceiver = batch) -> None:
            for index in range(3):
                batch.part(index, index, LookupError(str(index)) if fails else None)

        run(end)
        batch.ended(None, ConnectionError("lost"))
        for item in items:
            assert item.done()
            assert item.exception() is None or fails or isinstance(item.exception(), ConnectionError)
        assert not batch.pending


POSTED = """
import sys
from gevent import get_hub
from greentask import Client
from greentask.client import balance, link, links, retrying, router
from greentask.hub import home as home_module, outlet
from support.interrupting import at_each_moment
client = Client(sys.argv[1])
client.call("echo", 0)
home, futures = client._core.router().home, []
for run in at_each_moment(home_module, router, balance, link, links, retrying, outlet):
    home._wake.stop()  # we look
    futures.append(get_hub().threadpool.apply(client.submit, ("echo", len(futures))))
    run(home._run_posted)
    home._wake.start(home._run_posted)
    home._wake.send()
errors = [future.exception(20) for future in futures]
assert [future.result() for future, error in zip(futures, errors) if not error] == [
    number for number, error in enumerate(errors) if not error]
print(len(futures) > 20, {type(error).__name__ for error in errors} <= {"NoneType", "ConnectionLost"})
"""


def test_what_a_real_thread_of_a_patched_program_submits_ends(server: RunningServer) -> None:
    assert run_source(POSTED, server.address, patched=True) == ["True", "True"]


def test_who_waits_for_several_hears_of_each_by_the_second_end(client: Client) -> None:
    home: Any = client._core.router().home
    for run in at_each_moment(flow, hub_future, mailbox):
        told: Any = _Told(home)
        batch = BatchReceiver(told, 1, 2, lambda future, error, _: future.ended(None, error))
        waiting = flow.as_completed(batch.pending, timeout=20)
        items = set(batch.pending)

        def end(batch: BatchReceiver = batch) -> None:
            for index in range(2):
                batch.part(index, index, None)

        waiter = flow._Waiter(items)
        run(end)
        batch.ended(None, ConnectionError("lost"))
        assert {waiter.next(time.monotonic() + 20) for _ in items} == items
        assert not waiter.pending
        assert set(waiting) == items


CHAINED = """
import sys
from concurrent.futures import Future
import gevent
from greentask import Client
from greentask.client import chain
from greentask.client.carrier import carrier_of
from greentask.hub import bell, future as hub_future
from support.interrupting import at_each_moment
client = Client(sys.argv[1])
home, moments = client._core.router().home, 0
for run in at_each_moment(chain, hub_future, bell):
    for fails in (True, False):
        first = Future()
        chained = chain.ChainedFuture(carrier_of(client._core.router), client.submit, first, "echo", (), {})
        waiting = gevent.spawn(chained.exception)
        gevent.sleep(0)
        first.set_exception(LookupError("no stock")) if fails else first.set_result(1)
        run(home._run_soon)  # and again in the loop's next turn
        error = waiting.get(timeout=20)
        assert type(error) is LookupError if fails else error is None or "Ctrl-C" in str(error), error
        moments += 1
print(moments > 30)
"""


def test_who_waits_for_a_chain_hears_of_its_end(server: RunningServer) -> None:
    assert run_source(CHAINED, server.address, patched=True) == ["True"]
