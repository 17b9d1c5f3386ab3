"""A real Chromium, driven through its DevTools protocol."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websocket import create_connection

from support.parts import require

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--window-size=900,700",
)


class Page:
    """One page. Everything that is asked is answered within ``patience`` seconds, or fails."""

    def __init__(self, url: str, patience: float = 30.0) -> None:
        self._devtools = create_connection(url, timeout=patience)
        self._ids = itertools.count(1)
        self._patience = patience
        self.errors: list[str] = []
        self._command("Runtime.enable")
        self._command("Page.enable")

    def close(self) -> None:
        self._devtools.close()

    def open(self, url: str) -> None:
        """Go there, and wait until it has loaded."""
        self._command("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """The value of some JavaScript."""
        answer = self._command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until some JavaScript is true; its value."""
        give_up = time.monotonic() + self._patience
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < give_up, f"never true: {expression}"
            time.sleep(0.02)
        return value

    def _command(self, method: str, **params: Any) -> dict[str, Any]:
        id = next(self._ids)
        self._devtools.send(json.dumps({"id": id, "method": method, "params": params}))
        while True:
            message = json.loads(self._devtools.recv())
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"]["text"])
            if message.get("id") == id:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Start Chromium with a profile in ``folder``; its page."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    require(path, "no Chromium here (on Debian: apt-get install chromium)")
    browser = subprocess.Popen(
        [str(path), *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    page = None
    try:
        page = Page(_page_url(folder))
        yield page
        assert page.errors == [], "errors of the page's scripts"
    finally:
        if page is not None:
            page.close()
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()


def _page_url(folder: Path) -> str:
    give_up = time.monotonic() + 30
    while True:
        try:
            port = (folder / "DevToolsActivePort").read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                for target in json.load(answer):
                    if target["type"] == "page":
                        return str(target["webSocketDebuggerUrl"])
        except (OSError, IndexError, ValueError):
            pass
        assert time.monotonic() < give_up, "Chromium did not open its DevTools port"
        time.sleep(0.05)
