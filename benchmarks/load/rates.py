"""Small calls, pipelined and one at a time, beside a bare echo of the same lines."""

import statistics

from benchmarks.common import server

from .bare import bare_echo
from .clients import call_line, one_at_a_time, pipelined
from .figures import Figure

__all__ = ["measure"]

APP = "benchmarks.load.tasks"
_MAIL = {"from": "shop@example.com", "to": "customer@example.com", "contents": "Your parcel is on its way."}


def measure(rounds: int = 5, many: int = 20_480, single: int = 3_000) -> list[Figure]:
    """``many`` calls pipelined and ``single`` ones one at a time, by turns; medians of the rounds' ratios."""
    speeds: dict[str, list[float]] = {"bare": [], "greenlet": [], "process": []}
    times: dict[str, list[float]] = {"bare": [], "greenlet": [], "process": []}
    with bare_echo() as bare, server(APP, processes=2) as ours:
        peers = {"bare": (bare, "echo"), "greenlet": (ours, "echo"), "process": (ours, "echo_in_process")}
        lines = {
            function: [call_line(function, _MAIL, number) for number in range(many)] for _, function in peers.values()
        }
        for number in range(rounds + 1):  # the first one is for getting warm
            for name, (address, function) in peers.items():
                speed = pipelined(address, lines[function])
                time = statistics.median(one_at_a_time(address, lines[function][:single]))
                if number:
                    speeds[name].append(speed)
                    times[name].append(time * 1000)
    figures = []
    for name in peers:
        figures.append(Figure(f"pipelined, {name}", statistics.median(speeds[name]), "lines/s"))
        figures.append(Figure(f"one at a time, {name}, p50", statistics.median(times[name]), "µs"))
    for name, least, most in (("greenlet", 0.8, 4.0), ("process", 0.5, 7.0)):
        figures.append(Figure(f"pipelined, {name} / bare", _ratio(speeds, name), "times", least=least))
        figures.append(Figure(f"one at a time, {name} / bare", _ratio(times, name), "times", most=most))
    return figures


def _ratio(values: dict[str, list[float]], name: str) -> float:
    return statistics.median(ours / bare for ours, bare in zip(values[name], values["bare"]))
