"""The WebSocket service on port 8080: takes a browser's message, has the task run, and tells when it is done."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402 - patching comes first
from pathlib import Path  # noqa: E402

from greentask import Client, Gateway  # noqa: E402

gateway = Gateway(
    Client(os.environ.get("GREENTASK_URL", "Text://127.0.0.1:12345")),
    tasks=["send_mail"],
    listen=os.environ.get("LISTEN", "127.0.0.1:8080"),
    page=Path(__file__).with_name("page.html"),
    done="tâche terminée",
)

if __name__ == "__main__":
    gateway.start()
    print(f"open {gateway.url}", flush=True)
    gateway.serve_forever()
