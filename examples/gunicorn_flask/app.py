"""A Flask application whose slow work is done by tasks."""

from flask import Flask
from tasks import report, send_mail

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "quick"


@app.get("/report")
def make_report() -> dict[str, int]:
    return {"rounds": report.call(2.0)}


@app.get("/mail/<to>")
def mail(to: str) -> dict[str, str]:
    return {"mail": send_mail.call(to)}
