"""The pages, in a real Chromium."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.browser import Page, chromium
from support.programs import ROOT, program

pytestmark = pytest.mark.browser

MAILING = ROOT / "examples" / "mailing"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path) as page:
        yield page


@contextmanager
def mailing(relay: str) -> Iterator[str]:
    """The example's two programs; the page's address."""
    with program("-m", "greentask", "serve", "tasks", "-l", "127.0.0.1:0", cwd=MAILING, RELAY=relay) as (line, _):
        server = next(word for word in line.split() if word.startswith("tcp://"))
        with program("service.py", cwd=MAILING, GREENTASK_URL=server, LISTEN="127.0.0.1:0") as (opened, _):
            yield opened.removeprefix("open ")


def test_the_demo_page_shows_the_bar_and_the_closing_message(page: Page) -> None:
    options = ("--keep", "--mails", "20", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0")
    with program("-m", "greentask", "demo", *options) as (_, demo):
        assert demo.stdout is not None
        address = next(filter(None, (re.search(r"up: open (\S+) in", line) for line in demo.stdout)))[1]
        page.open(address)
        page.wait_for("document.getElementById('ping').textContent.endsWith(' ms')")
        page.evaluate("document.getElementById('count').value = 500; document.getElementById('send').click()")
        page.wait_for("(bar => bar.value > 0 && bar.value < bar.max)(document.getElementById('bar'))")
        page.wait_for("document.getElementById('closing').textContent === 'tâche terminée'")
        assert page.evaluate("document.getElementById('done').textContent") == "500 sent, 0 refused"
        assert page.evaluate("document.getElementById('bar').value") == 500
        page.evaluate("document.getElementById('report').click()")
        page.wait_for("/primes up to/.test(document.getElementById('computed').textContent)")


def test_the_mailing_example_tells_when_the_task_is_done(page: Page) -> None:
    with program("-m", "greentask.demo.smtp", "127.0.0.1", "0") as (relay, _), mailing(relay) as address:
        page.open(address)
        page.evaluate("document.getElementById('send').click()")
        page.wait_for("document.getElementById('bar').value > 0")
        page.wait_for("document.getElementById('closing').textContent === 'tâche terminée'")
        assert page.evaluate("document.getElementById('bar').value") == 1000


def test_the_page_says_what_went_wrong(page: Page) -> None:
    with mailing("127.0.0.1:1") as address:
        page.open(address)
        page.evaluate("document.getElementById('send').click()")
        text = page.wait_for("document.getElementById('closing').textContent")
        assert text.startswith("ConnectionRefusedError: ")
