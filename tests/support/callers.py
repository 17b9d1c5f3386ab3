"""Callers without pause, as a program: `python -m support.callers greenlets|threads COUNT SECONDS SEED ADDRESS`.

Prints what became of their calls as one line of JSON. Each call has a value of its own, which has to come back.
"""

import json
import random
import sys
import time
from collections import Counter
from typing import Any

if sys.argv[1] == "greenlets":
    from gevent import monkey

    monkey.patch_all()

import threading

from greentask import CallError, Client, ConnectionLost

TIMEOUT = 5.0
#: What a call may take past its timeout: the server's last word is waited for, on a busy machine.
MARGIN = 2.0


def call(client: Client, value: str, chance: random.Random) -> Any:
    """One of several kinds of task, which give the value back."""
    kind = chance.random()
    if kind < 0.7:
        return client.call("echo", value)
    if kind < 0.85:
        return client.call("echo_in_process", value)
    return client.submit("echo_later", value, chance.uniform(0, 0.05)).result()


def main(kind: str, count: str, seconds: str, seed: str, address: str) -> None:
    client = Client(address, timeout=TIMEOUT, dead_after=2.0, connect_timeout=2.0)
    seen: Counter[str] = Counter()
    until = time.monotonic() + float(seconds)

    def run(number: int) -> None:
        chance = random.Random(f"{seed} {kind} {number}")
        idempotent = number % 2 == 0
        mine = client.using(idempotent=idempotent)
        group = "idempotent" if idempotent else "plain"
        turn = 0
        while time.monotonic() < until:
            turn += 1
            value = f"{kind} {number} {turn}"
            began = time.monotonic()
            try:
                result = call(mine, value, chance)
            except (CallError, ConnectionLost) as error:
                seen[f"{group} {type(error).__name__}"] += 1
            else:
                seen[f"{group} results" if result == value else "answers to other calls"] += 1
            seen["overdue"] += time.monotonic() - began > TIMEOUT + MARGIN

    threads = [threading.Thread(target=run, args=[number]) for number in range(int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(float(seconds) + 60)
    seen["stuck"] = sum(thread.is_alive() for thread in threads)
    print(json.dumps(seen), flush=True)
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
