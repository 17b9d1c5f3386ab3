"""A table that is slow to make and large, in the memory of a few task processes, who share it."""

import os
from array import array

from greentask import resource, task

ROWS = int(os.environ.get("LOOKUP_ROWS", "39_000_000"))  # of 8 bytes each: 300 MB


@resource(preload=True)
def prices() -> "array[float]":
    """Prices by article number: made once, in the process that the task processes are forked from."""
    table = array("d", bytes(8 * ROWS))
    for start in range(0, ROWS, 1_000_000):
        stop = min(start + 1_000_000, ROWS)
        table[start:stop] = array("d", ((number * 7919 % 100_000) / 100 for number in range(start, stop)))
    return table


@task(process="lookup", needs=[prices])
def price(article: int) -> float:
    return prices()[article]


@task(process="lookup", needs=[prices])
def mean(first: int, last: int) -> float:
    """Computes, over as much of the table as is asked for."""
    part = prices()[first:last]
    return sum(part) / len(part)
