"""The demo's WebSocket service: ``python -m greentask.demo.service LISTEN SERVER``. Prints its URL when it listens."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - patching comes first
from pathlib import Path  # noqa: E402

from greentask.client import Client  # noqa: E402
from greentask.gateway import Gateway  # noqa: E402

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM."""
    listen, server = sys.argv[1:]
    page = Path(__file__).with_name("page.html")
    gateway = Gateway(Client(server), ["send_mail", "report"], listen, page=page)
    gateway.start()
    print(gateway.url, flush=True)
    gateway.serve_forever()


if __name__ == "__main__":
    main()
