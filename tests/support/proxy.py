"""A bad network, as a program: `python -m support.proxy SEED PORT...` stands before each of these ports.

What passes is delayed, split into pieces, held up for a while or for good, and cut off in the midst, at random. Its
first line of output has the ports where it listens, its last one (on SIGTERM) what it did.
"""

import json
import random
import signal
import struct
import sys
from collections import Counter

import gevent
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed so is reset, and loses what was on its way

#: What becomes of each piece that comes, with how likely that is.
FATES = {"whole": 0.6, "delayed": 0.25, "split": 0.13, "stalled": 0.016, "cut": 0.003, "held": 0.001}


class Proxy:
    """One server's: its connections share the generator, and so the seed."""

    def __init__(self, chance: random.Random, port: int, did: "Counter[str]") -> None:
        self._chance = chance
        self._upstream = ("127.0.0.1", port)
        self._did = did
        self.server = StreamServer(("127.0.0.1", 0), self._pass_on)
        self.server.start()

    def _pass_on(self, client: socket.socket, _: object) -> None:
        try:
            server = socket.create_connection(self._upstream, timeout=5)
        except OSError:
            self._did["refused"] += 1
            _reset(client)
            return
        both = [gevent.spawn(self._pump, client, server), gevent.spawn(self._pump, server, client)]
        gevent.joinall(both, count=1)
        gevent.killall(both)
        _reset(client)
        _reset(server)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        """Pass on what comes from one side, until that ends or is cut off."""
        source.settimeout(None)
        try:
            while data := source.recv(65536):
                fate = self._chance.choices(list(FATES), list(FATES.values()))[0]
                self._did[fate] += 1
                if fate == "delayed":
                    gevent.sleep(self._chance.uniform(0.001, 0.05))
                elif fate == "stalled":
                    gevent.sleep(self._chance.uniform(0.1, 0.8))
                elif fate == "held":
                    Event().wait()  # as if the cable were pulled
                elif fate == "cut":
                    target.sendall(data[: self._chance.randrange(len(data))])
                    return
                while fate == "split" and len(data) > 1:
                    size = self._chance.randint(1, len(data))
                    target.sendall(data[:size])
                    data = data[size:]
                    gevent.sleep(self._chance.choice([0, 0.002]))
                target.sendall(data)
        except OSError:
            pass  # the other side has ended


def _reset(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass  # it is closed
    sock.close()


def main(seed: str, *ports: str) -> None:
    did: Counter[str] = Counter()
    proxies = [Proxy(random.Random(f"{seed} {port}"), int(port), did) for port in ports]
    over = Event()
    gevent.signal_handler(signal.SIGTERM, over.set)
    print(*(proxy.server.server_port for proxy in proxies), flush=True)
    over.wait()
    print(json.dumps(did), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
