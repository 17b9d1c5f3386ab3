"""What does ``Client`` add to a bare socket?

`python -m benchmarks client`: 200 greenlets on one connection beside a bare pipelined socket, one call at a time beside
a bare socket with the same JSON, and `map`. By turns in one run; figures are medians of the rounds.
"""

from gevent import monkey

if __name__ == "__main__":  # the child, which is a gevent program; the parent is a plain one
    monkey.patch_all()

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import gevent

from benchmarks.common import server, tell
from benchmarks.load.clients import call_line, one_at_a_time, pipelined
from benchmarks.load.figures import Figure
from greentask import Client

_MAIL = {"from": "shop@example.com", "to": "customer@example.com", "contents": "Your parcel is on its way."}
GREENLETS, MANY, SINGLE, ROUNDS = 200, 20_000, 3_000, 5


def main() -> None:
    speeds: dict[str, list[float]] = {"bare": [], "greenlets": [], "map": []}
    times: dict[str, list[float]] = {"bare": [], "client": []}
    with server("benchmarks.load.tasks", processes=1) as address:
        lines = [call_line("echo", _MAIL, number) for number in range(MANY)]
        child = [sys.executable, "-m", "benchmarks.client", address]
        with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as caller:
            assert caller.stdin is not None
            assert caller.stdout is not None
            for number in range(ROUNDS + 1):  # the first one is for getting warm
                bare = pipelined(address, lines), statistics.median(one_at_a_time(address, lines[:SINGLE])) * 1000
                print("go", file=caller.stdin, flush=True)
                told = json.loads(caller.stdout.readline())
                if number:
                    speeds["bare"].append(bare[0])
                    times["bare"].append(bare[1])
                    speeds["greenlets"].append(told["greenlets"])
                    speeds["map"].append(told["map"])
                    times["client"].append(told["single"])
            caller.stdin.close()
    figures = [
        *(Figure(f"calls of {name}", statistics.median(values), "per second") for name, values in speeds.items()),
        *(Figure(f"one at a time, {name}, p50", statistics.median(values), "µs") for name, values in times.items()),
        Figure(f"{GREENLETS} greenlets / bare", _ratio(speeds["greenlets"], speeds["bare"]), "times", least=0.8),
        Figure("map / bare", _ratio(speeds["map"], speeds["bare"]), "times"),
        Figure("one at a time, client / bare", _ratio(times["client"], times["bare"]), "times", most=1.5),
    ]
    told = {figure.name: figure.as_json() for figure in figures}
    tell("client", "`Client` beside bare sockets", ["figure", "value", "goal", ""], [f.row() for f in figures], told)
    if any(not figure.is_reached for figure in figures):
        sys.exit(1)


def _ratio(values: list[float], others: list[float]) -> float:
    return statistics.median(value / other for value, other in zip(values, others))


# ---- The child


def measure(address: str) -> None:
    """For each line of input, one round: prints its figures as a line of JSON."""
    with Client(address) as client:
        for _ in sys.stdin:
            print(
                json.dumps(
                    {
                        "greenlets": MANY / _seconds(lambda: _call_from_greenlets(client)),
                        "map": MANY / _seconds(lambda: _map(client)),
                        "single": _single(client) * 1e6,
                    }
                ),
                flush=True,
            )


def _call_from_greenlets(client: Client) -> None:
    def call() -> None:
        for _ in range(MANY // GREENLETS):
            client.call_args("echo", _MAIL)

    gevent.joinall([gevent.spawn(call) for _ in range(GREENLETS)], raise_error=True)


def _map(client: Client) -> None:
    for _ in client.map_args("echo", [_MAIL] * MANY):
        pass


def _single(client: Client) -> float:
    return statistics.median(_seconds(lambda: client.call_args("echo", _MAIL)) for _ in range(SINGLE))


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


if __name__ == "__main__":
    measure(sys.argv[1])
