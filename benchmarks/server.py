"""Does `greentask serve` stay quick and small under load?

`python -m benchmarks server` measures all parts, `python -m benchmarks server rates idle` those two. What is compared
is measured by turns in one run; figures are medians of the rounds. A goal that is missed is said so, and the program
then ends with 1.
"""

import sys
from collections.abc import Callable

from rich.console import Console

from benchmarks.common import tell
from benchmarks.load import descriptors, flat, hostile, idle, large, rates
from benchmarks.load.figures import Figure
from greentask.pool.linux import raise_descriptors

PARTS: dict[str, Callable[[], list[Figure]]] = {
    "rates": rates.measure,
    "idle": idle.measure,
    "flat": flat.measure,
    "hostile": hostile.measure,
    "large": large.measure,
    "descriptors": descriptors.measure,
}


def main(*names: str) -> None:
    unknown = set(names) - PARTS.keys()
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    raise_descriptors()
    measured: dict[str, list[Figure]] = {}
    for name in names or PARTS:
        Console(stderr=True).print(f"{name} …", highlight=False)
        measured[name] = PARTS[name]()
    rows = [[name, *figure.row()] for name, figures in measured.items() for figure in figures]
    told = {name: {figure.name: figure.as_json() for figure in figures} for name, figures in measured.items()}
    tell("server", "`greentask serve` under load", ["part", "figure", "value", "goal", ""], rows, told)
    if any(not figure.is_reached for figures in measured.values() for figure in figures):
        sys.exit(1)
