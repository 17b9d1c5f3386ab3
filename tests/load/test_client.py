"""The client on a bad network, with servers that are killed: every call ends in time, in its result or a true error."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from support.programs import environment, program, run_source
from support.servers import free_port, serving

pytestmark = [pytest.mark.load, pytest.mark.timeout(300)]

SECONDS = 60


def test_a_bad_network_and_dying_servers_cost_no_call_its_end() -> None:
    """50 greenlets and 50 threads over three servers, each behind a proxy, one of which is killed every 2 s."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ports = [free_port() for _ in range(3)]
    with ExitStack() as servers:
        running = [servers.enter_context(ExitStack()) for _ in ports]

        def start(number: int) -> Any:
            return running[number].enter_context(
                serving(apps=["support.proxied_tasks"], listen=[f"127.0.0.1:{ports[number]}"])
            )

        started = [start(number) for number in range(3)]
        line, proxy = servers.enter_context(program("-m", "support.proxy", str(seed), *map(str, ports)))
        addresses = ",".join(f"127.0.0.1:{port}" for port in line.split())
        callers = [
            servers.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "support.callers", kind, "50", str(SECONDS), str(seed), addresses],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=environment(),
                )
            )
            for kind in ("greenlets", "threads")
        ]
        until = time.monotonic() + SECONDS
        kills = 0
        while (now := time.monotonic()) < until:
            victim = chance.randrange(3)
            started[victim].signal_all(signal.SIGKILL)
            kills += 1
            running[victim].close()
            started[victim] = start(victim)
            time.sleep(max(0.0, now + 2 - time.monotonic()))
        seen: Counter[str] = Counter()
        for caller in callers:
            output, complaints = caller.communicate(timeout=120)
            assert (caller.returncode, complaints) == (0, "")
            seen.update(json.loads(output))
        proxy.send_signal(signal.SIGTERM)
        assert proxy.stdout is not None
        did = json.loads(proxy.stdout.read())
    print(f"{kills} kills, on the way {did}; calls: {dict(seen)}")
    assert min(did.get(fate, 0) for fate in ("delayed", "split", "stalled", "cut", "held")) > 0, did

    assert seen["answers to other calls"] == 0
    assert seen["overdue"] == 0
    assert seen["stuck"] == 0
    idempotent = {kind: count for kind, count in seen.items() if kind.startswith("idempotent ")}
    assert seen["plain results"] > 1000
    assert seen["idempotent results"] / sum(idempotent.values()) >= 0.999, idempotent


LONG_MAP = """
import sys
import psutil
from greentask import Client

MANY = 70_000
process = psutil.Process()
with Client(sys.argv[1]) as client:
    results = client.map("add", range(MANY), range(MANY), unordered=sys.argv[2] == "unordered")
    total = sum(next(results) for _ in range(20_000))
    before = most = process.memory_info().rss
    for number, result in enumerate(results):
        total += result
        if number % 10_000 == 0:
            most = max(most, process.memory_info().rss)
assert total == MANY * (MANY - 1), total
print((most - before) / 2**20)
"""


@pytest.mark.parametrize(("order", "patched"), [("ordered", False), ("unordered", True)])
def test_a_long_map_takes_no_more_memory_than_its_beginning(order: str, patched: bool) -> None:
    with serving(apps=["support.server_tasks"]) as server:
        began = psutil.Process(server.pid).memory_info().rss
        (grown,) = run_source(LONG_MAP, server.address, order, patched=patched)
        assert float(grown) < 4, "MB of the client, for 50,000 more"
        assert psutil.Process(server.pid).memory_info().rss - began < 40 * 2**20
