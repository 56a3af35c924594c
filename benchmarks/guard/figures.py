"""What the guard compares: named numbers, each the median of some rounds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import NamedTuple

from benchmarks.guard.counting import Counts

WARM_UPS = 2
"""Rounds that do not count: caches fill, shapes are learned, queues are made."""
ROUNDS = 3

TURNS = "loop turns"


class Figure(NamedTuple):
    """A number and how far it moved between rounds."""

    value: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """As a part of the value."""
        return (self.high - self.low) / self.value if self.value else 0.0


Figures = dict[str, Figure]


class Samples:
    """Collects the rounds of a group.

    Args:
        group: First part of the names of its figures.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, operation: str, unit: str, value: float) -> None:
        self._values[f"{self._group}: {operation}, {unit}"].append(value)

    def add_counts(self, operation: str, counts: Counts) -> None:
        self.add(operation, "instructions", counts.instructions)
        self.add(operation, "C calls", counts.c_calls)
        self.add(operation, "msgpack calls", counts.packs)

    def figures(self) -> Figures:
        """The warm-ups left out, where there were any."""
        found: Figures = {}
        for name, values in self._values.items():
            kept = values[WARM_UPS:] or values
            # Two events that happen to come together save a turn: it takes what each needs by itself.
            typical = max if name.endswith(TURNS) else statistics.median
            found[name] = Figure(typical(kept), min(kept), max(kept))
        return found
