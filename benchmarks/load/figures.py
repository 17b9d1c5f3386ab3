"""What a part comes to: figures, each with its goal."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Figure"]


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
