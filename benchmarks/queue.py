"""What do durable tasks cost, every one of them synced to the disk?

`python -m benchmarks queue` measures all parts, `python -m benchmarks queue commits rates` those two. `peers` needs a
redis-server, and what `pip install -e '.[bench]'` brings. A goal that is missed is said so, and the program then ends
with 1.
"""

from collections.abc import Callable

from benchmarks.durable import commits, peers, rates, waiting
from benchmarks.load.figures import Figure, run_parts

PARTS: dict[str, Callable[[], list[Figure]]] = {
    "commits": commits.measure,
    "rates": rates.measure,
    "waiting": waiting.measure,
    "peers": peers.measure,
}


def main(*names: str) -> None:
    run_parts("queue", "durable tasks", PARTS, names)
