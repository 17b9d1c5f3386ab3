"""What Prometheus would read of a server, at the address that its first line tells."""

import re
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.conditions import PATIENCE
from support.servers import RunningServer

__all__ = ["Scraped", "metrics_url", "scrape"]


class Scraped:
    """All samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels; 0 where there are none."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def counters(self) -> dict[Any, float]:
        """What may only rise."""
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }


def metrics_url(server: RunningServer) -> str:
    """Where it says that its metrics are."""
    found = re.search(r"metrics on (http://\S+)\)", server.output())
    assert found is not None, server.output()
    return found[1]


def scrape(where: RunningServer | str) -> Scraped:
    """Read them, over HTTP."""
    url = where if isinstance(where, str) else metrics_url(where)
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return Scraped(answer.read().decode())
