"""Does `greentask serve` stay quick and small under load?

`python -m benchmarks server` measures all parts, `python -m benchmarks server rates idle` those two. What is compared
is measured by turns in one run; figures are medians of the rounds. A goal that is missed is said so, and the program
then ends with 1.
"""

from collections.abc import Callable

from benchmarks.load import descriptors, flat, hostile, idle, large, rates
from benchmarks.load.figures import Figure, run_parts
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
    raise_descriptors()
    run_parts("server", "`greentask serve` under load", PARTS, names)
