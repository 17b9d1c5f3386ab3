"""Signal handlers that call, wherever they come in the main thread: they run in the midst of anything."""

from support.programs import run_at_once, run_source
from support.servers import RunningServer

GUARDED = """
import faulthandler, sys
faulthandler.dump_traceback_later(20, exit=True)  # what hangs is told
import greentask
from greentask import Client, as_completed
from greentask.client import default
from support.server_tasks import nap
client = Client(sys.argv[1])
"""

ANYWHERE = (
    GUARDED
    + """
import signal
handled = 0
is_busy = False

def handle(number, frame):
    global handled, is_busy
    if not is_busy:  # else they would come one above the other, as deep as Python's stack
        is_busy = True
        assert client.call("add", handled, 1) == handled + 1
        assert client.submit("echo", handled).result() == handled
        handled += 1
        is_busy = False

client.call("add", 1, 2)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
number = 0
while handled < 400:
    number += 1
    assert client.call("echo", number) == number
    futures = [client.submit("echo", number) for _ in range(3)]
    assert [future.result() for future in as_completed(futures)] == [number] * 3
    assert list(client.map("echo", range(5))) == list(range(5))
signal.setitimer(signal.ITIMER_REAL, 0)
print("all")
"""
)

# What the thread holds in the moment of the signal, while the future that it is of ends.
HOLDING = (
    GUARDED
    + """
def in_the_midst_of(lock, future):
    with lock:
        assert client.call("nap", 0.1) == 0.1  # as a handler would; the future's answer comes meanwhile
    assert future.result() == 0.05
    print("ended")

future = client.submit("nap", 0.05)
in_the_midst_of(future._condition, future)

first = client.submit("nap", 0.05)
chain = first.then("nap")
in_the_midst_of(chain._condition, chain)
in_the_midst_of(first._condition, first)

greentask.configure(client)
future = client.submit("nap", 0.05)
future.add_done_callback(lambda _: nap.submit(0.0))
in_the_midst_of(default._lock, future)

executor = client.executor()
future = executor.submit("nap", 0.05)
in_the_midst_of(executor._lock, future)
executor.shutdown()
"""
)


def test_a_signal_handler_may_call_in_the_midst_of_anything(server: RunningServer) -> None:
    assert run_source(ANYWHERE, server.address) == ["all"]


def test_the_background_waits_for_no_lock_that_the_main_thread_may_hold(server: RunningServer) -> None:
    """It would wait for a handler's end, and that for an answer that the background has to bring."""
    assert run_source(HOLDING, server.address) == ["ended"] * 5


# A patched program's handler lets other greenlets run while it waits: who looks after the calls must leave
# alone the one in whose midst it came.
WHILE_SENDING = """
import signal
import sys
from greentask import Client
from greentask.client.balance import Balance
from greentask.client.link import Link

client = Client(sys.argv[1])
owner, name = {"before": (Balance, "pick"), "while": (Link, "write")}[sys.argv[2]]
sent = []
write, function = Link.write, getattr(owner, name)

def handle(*_):
    assert client.call("nap", 1.3) == 1.3  # and meanwhile somebody has looked after the calls

def interrupted(*args):
    setattr(owner, name, recorded if name == "write" else function)
    signal.raise_signal(signal.SIGALRM)
    return getattr(owner, name)(*args)

def recorded(link, data):
    sent.append(data)
    return write(link, data)

client.call("echo", 0)
signal.signal(signal.SIGALRM, handle)
Link.write = recorded
setattr(owner, name, interrupted)
assert client.call("echo", 1) == 1
print(sum(b'"echo"' in data for data in sent))
"""


def test_a_call_in_whose_sending_a_handler_waits_is_sent_once_and_answered(server: RunningServer) -> None:
    each = [(server.address, when) for when in ("before", "while")]
    assert run_at_once(WHILE_SENDING, each, patched=True) == [["1"], ["1"]]
