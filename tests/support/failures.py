"""What failed, and what was run once more, a line each, in a file: for `.ci/run`, which says it at its very end.

Each line is written as soon as it is known, so that a run that hangs or crashes afterwards has told it.
"""

from pathlib import Path
from typing import Any

import pytest

__all__ = ["Failures"]

_MOST = 300  # characters of an error


class Failures:
    """A plugin of pytest."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome in ("failed", "rerun"):
            self._note(report.outcome, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note("failed", report)

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._write(f"FAILED pytest itself: {excinfo.exconly()}")

    def _note(self, outcome: str, report: pytest.TestReport | pytest.CollectReport) -> None:
        moment = f" ({report.when})" if report.when in ("setup", "teardown", "collect") else ""
        self._write(f"{outcome.upper()} {report.nodeid}{moment}: {_why(report)}")

    def _write(self, line: str) -> None:
        with self._file.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(" ".join(line.split()) + "\n")


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The first line of its error, and where that was raised."""
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        first, *_ = str(crash.message).splitlines() or [""]
        return f"{first[:_MOST]} ({crash.path}:{crash.lineno})"
    lines = [line.removeprefix("E ").strip() for line in str(report.longrepr).splitlines()]
    return (lines or ["it does not say why"])[0 if isinstance(report, pytest.TestReport) else -1][:_MOST]
