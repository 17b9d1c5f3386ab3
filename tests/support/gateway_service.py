"""A task server and a gateway in one program: prints the gateway's URL when both listen, and stops at SIGTERM."""

from gevent import monkey

monkey.patch_all()

import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

from greentask import Client, Gateway, Server, Tasks, current  # noqa: E402

tasks = Tasks()


@tasks.task
def echo(value: object) -> object:
    return value


@tasks.task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


class NoStock(Exception):
    pass


@tasks.task
def fail_in_own_way(text: str) -> None:
    raise NoStock(text)


@tasks.task
def fail(text: str) -> None:
    raise ValueError(text)


@tasks.task
def count(to: int, pause: float = 0.0) -> int:
    for done in range(1, to + 1):
        current().progress(done, to)
        time.sleep(pause)
    return to


@tasks.task
def large(size: int) -> str:
    return "x" * size


@tasks.task
def deep(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@tasks.task
def hidden() -> str:
    return "nobody may call this"


def main() -> None:
    server = Server(tasks, "127.0.0.1:0")
    server.start()
    offered = ["echo", "nap", "fail", "fail_in_own_way", "count", "large", "deep"]
    client = Client(str(server.addresses[0]))
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    gateway = Gateway(
        client,
        offered,
        "127.0.0.1:0",
        page=page,
        max_message=100_000,
        max_in_flight=4,
        origins=["https://shop.example"],
    )

    def stop() -> None:
        gateway.stop(2.0)
        server.stop(2.0)

    gateway.start()
    gevent.signal_handler(signal.SIGTERM, lambda: gevent.spawn(stop))
    print(gateway.url, flush=True)
    gateway.serve_forever()


if __name__ == "__main__":
    main()
