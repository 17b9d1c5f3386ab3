"""What became of it: who ran, who was promised to, and whether what ran twice had been cut off."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from .clients import Acknowledged
from .victims import Strike

__all__ = ["Marks", "Run", "judge"]

_ACKNOWLEDGED_WITHIN = 15.0  # seconds after its effect in which a run that nothing cuts off is written down
_SOONER = 0.01  # seconds: the clocks of a client and of the queue are read one after the other


class Run(NamedTuple):
    """One line of the file."""

    attempt: int
    task: str
    at: float
    pid: int
    parent: int


class Marks:
    """The file to which the tasks append, as far as it has been read."""

    def __init__(self, file: Path) -> None:
        self.runs: dict[int, list[Run]] = defaultdict(list)
        self._file = file
        self._read = 0

    def read(self) -> None:
        """Read what is new."""
        if not self._file.exists():
            return
        with self._file.open("rb") as opened:
            opened.seek(self._read)
            data = opened.read()
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        for line in data.split(b"\n"):
            words = line.split()
            if len(words) == 7 and words[-1] == b".":  # else it was cut
                number, attempt, pid, parent = (int(words[at]) for at in (0, 1, 4, 5))
                self.runs[number].append(Run(attempt, words[2].decode(), float(words[3]), pid, parent))


@dataclass(frozen=True)
class Verdict:
    """``breaches`` of a promise, each with the number and what happened; and how many runs were one too many."""

    breaches: list[str]
    again: int


def judge(
    acknowledged: Mapping[int, Acknowledged],
    runs: Mapping[int, list[Run]],
    found: Mapping[int, dict[str, Any]],
    strikes: Iterable[Strike],
) -> Verdict:
    """Compare what was promised with what ran, and with what the queue says (``found``, of each number)."""
    strikes = list(strikes)
    breaches = []
    for number, promised in acknowledged.items():
        told, ran = found[number], runs.get(number, [])
        if not ran:
            breaches.append(f"{number} never ran: {told}")
        elif told.get("state") != "done" or told.get("result") != number:
            breaches.append(f"{number} ran, and is said to be {told}")
        elif len(ran) > told["attempts"]:
            breaches.append(f"{number} ran after it was acknowledged: {told['attempts']} attempts, {ran}")
        if any(run.task != promised.task for run in ran):
            breaches.append(f"{number} was enqueued twice under one key: {promised.task}, {ran}")
        if any(run.at < promised.not_before - _SOONER for run in ran):
            breaches.append(f"{number} ran before its time, {promised.not_before:.3f}: {ran}")
    again = 0
    for number, ran in runs.items():
        again += len(ran) - 1
        ran = sorted(ran)
        for run, following in pairwise(ran):
            if run.attempt == following.attempt:
                breaches.append(f"{number} ran twice at one attempt: {ran}")
            elif not any(_cuts(strike, run, following) for strike in strikes):
                breaches.append(f"{number} ran again, and nothing had cut it off: {ran}")
    return Verdict(breaches, again)


def _cuts(strike: Strike, run: Run, following: Run) -> bool:
    """Whether the strike may have come between a run's effect and its acknowledgement."""
    return (
        (run.pid in strike.pids or run.parent in strike.pids)
        and strike.began <= following.at
        and strike.began - _ACKNOWLEDGED_WITHIN <= run.at <= strike.ended
    )
