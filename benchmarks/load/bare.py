"""The measure of all: a bare blocking echo of the same JSON lines. Nothing in Python that reads JSON lines is simpler.

`python -m benchmarks.load.bare` serves one connection after another, and prints its address.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.common import ROOT

__all__ = ["bare_echo"]


@contextmanager
def bare_echo() -> Iterator[str]:
    """Its address."""
    command = [sys.executable, "-m", "benchmarks.load.bare"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print("tcp://{}:{}".format(*listener.getsockname()), flush=True)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with sock, sock.makefile("rb") as lines:
                for line in lines:
                    sock.sendall(json.dumps(json.loads(line)).encode() + b"\n")
        except ConnectionError:
            pass


if __name__ == "__main__":
    main()
