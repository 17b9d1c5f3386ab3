"""The mailing example, as its README says to run it, with a browser's part played by a WebSocket client."""

import json
from pathlib import Path

from websocket import create_connection

from support.programs import ROOT, program

FOLDER = ROOT / "examples" / "mailing"


def test_a_mailing_reports_progress_and_ends_with_the_closing_message() -> None:
    with (
        program("-m", "greentask.demo.smtp", "127.0.0.1", "0") as (relay, smtp),
        program("-m", "greentask", "serve", "tasks", "--listen", "127.0.0.1:0", cwd=FOLDER, RELAY=relay) as (line, _),
        program("service.py", cwd=FOLDER, GREENTASK_URL=address_in(line), LISTEN="127.0.0.1:0") as (opened, _),
    ):
        url = opened.removeprefix("open ")
        browser = create_connection(url.replace("http", "ws"), timeout=30)
        to = [f"customer{number}@example.org" for number in range(100)]
        browser.send(json.dumps({"id": 1, "function": "send_mail", "args": {"from": "a@x", "to": to, "contents": "é"}}))
        messages = [json.loads(browser.recv())]
        while "result" not in messages[-1]:
            messages.append(json.loads(browser.recv()))
        browser.close()
        *reports, closing = messages
        assert closing == {"id": 1, "result": {"sent": 100, "refused": {}}, "message": "tâche terminée"}
        assert reports
        assert all(report["progress"]["total"] == 100 for report in reports)

        assert smtp.stdin is not None
        assert smtp.stdout is not None
        smtp.stdin.write("\n")
        smtp.stdin.flush()
        assert json.loads(smtp.stdout.readline()) == {"mails": 100, "recipients": 100, "twice": 0}


def address_in(line: str) -> str:
    return next(word for word in line.split() if word.startswith("tcp://"))


def test_the_readme_names_each_file() -> None:
    text = (FOLDER / "README.md").read_text()
    for file in Path(FOLDER).iterdir():
        if file.is_file() and file.name != "README.md":
            assert f"`{file.name}`" in text
