"""What a part comes to: figures, each with its goal."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from benchmarks.common import tell

__all__ = ["Figure", "run_parts"]


@dataclass(frozen=True)
class Figure:
    """One figure. ``most`` and ``least`` are its goal, in its unit; without either it is only told."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def is_reached(self) -> bool:
        """Whether it is within its goal."""
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def row(self) -> list[str]:
        """For the table."""
        goal = "" if self.most is None else f"≤ {self.most:g}"
        if self.least is not None:
            goal = f"≥ {self.least:g}"
        value = f"{self.value:,.0f}" if self.value >= 1000 else f"{self.value:.4g}"
        return [self.name, f"{value} {self.unit}".strip(), goal, "" if self.is_reached else "missed"]

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        told = {"value": round(self.value, 4), "unit": self.unit, "most": self.most, "least": self.least}
        return {key: value for key, value in told.items() if value not in (None, "")}


def run_parts(
    benchmark: str, title: str, parts: Mapping[str, Callable[[], list[Figure]]], names: Sequence[str]
) -> None:
    """Measure the parts of these names, or all; tell and keep the figures. Exits with 1 where a goal is missed."""
    unknown = set(names) - parts.keys()
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    measured: dict[str, list[Figure]] = {}
    for name in names or parts:
        Console(stderr=True).print(f"{name} …", highlight=False)
        measured[name] = parts[name]()
    rows = [[name, *figure.row()] for name, figures in measured.items() for figure in figures]
    told = {name: {figure.name: figure.as_json() for figure in figures} for name, figures in measured.items()}
    tell(benchmark, title, ["part", "figure", "value", "goal", ""], rows, told)
    if any(not figure.is_reached for figures in measured.values() for figure in figures):
        sys.exit(1)
