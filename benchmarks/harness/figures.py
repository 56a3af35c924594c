"""Samples by what they measure, and what the report says about several rounds: median, spread, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

OURS = "prefect_lite"
STEAL_LIMIT = 5.0
"""Percent of all cores' time that others may steal from a sample before it is marked."""
OTHER_CPU_LIMIT = 15.0
"""The same for processes outside the measurement."""

Rounds = dict[int, float]
"""A value per round."""
Key = tuple[str, str, str]
"""Case, variant, metric."""


@dataclass(frozen=True)
class Figure:
    """A metric over all rounds.

    Attributes:
        median: Of the rounds.
        low: The smallest.
        high: The largest.
        rounds: How many there are.
        noisy: Whether the machine was busy with something else in one of them.
    """

    median: float
    low: float
    high: float
    rounds: int = 1
    noisy: bool = False


class Measurements:
    """The samples of a run, found by peer and key.

    Args:
        results: ``meta``, ``peers`` and ``samples``, as `harness.run` stores them.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self._values: dict[str, dict[Key, Rounds]] = {}
        self._noisy: set[tuple[str, Key]] = set()
        self.skipped: list[dict[str, Any]] = []
        self.measured: list[dict[str, Any]] = []
        for sample in results["samples"]:
            if sample["metric"] == "skipped":
                self.skipped.append(sample)
            else:
                self._take(sample)

    def _take(self, sample: dict[str, Any]) -> None:
        self.measured.append(sample)
        key = (sample["case"], sample["variant"], sample["metric"])
        self._values.setdefault(sample["peer"], {}).setdefault(key, {})[sample["round"]] = sample["value"]
        if is_noisy(sample):
            self._noisy.add((sample["peer"], key))

    def peers(self, case: str) -> list[str]:
        """Who has a sample of this case, in the order of the samples."""
        return [peer for peer, values in self._values.items() if any(key[0] == case for key in values)]

    def keys(self, peer: str, case: str) -> list[Key]:
        """What this peer has of this case, in the order of the samples."""
        return [key for key in self._values.get(peer, {}) if key[0] == case]

    def rounds(self, peer: str, key: Key) -> Rounds:
        """Empty where nothing was measured."""
        return self._values.get(peer, {}).get(key, {})

    def best(
        self, peer: str, keys: Iterable[Key], choose: Callable[[Iterable[float]], float] = max
    ) -> Rounds:
        """In each round the best value of these keys."""
        found: dict[int, list[float]] = {}
        for key in keys:
            for number, value in self.rounds(peer, key).items():
                found.setdefault(number, []).append(value)
        return {number: choose(values) for number, values in sorted(found.items())}

    def figure(self, peer: str, key: Key) -> Figure | None:
        """None where nothing was measured."""
        rounds = self.rounds(peer, key)
        return figure_of(rounds, self.is_noisy(peer, [key])) if rounds else None

    def is_noisy(self, peer: str, keys: Iterable[Key]) -> bool:
        return any((peer, key) in self._noisy for key in keys)


def is_noisy(sample: Mapping[str, Any]) -> bool:
    """Whether the machine did too much else meanwhile."""
    return sample.get("steal", 0.0) > STEAL_LIMIT or sample.get("other_cpu", 0.0) > OTHER_CPU_LIMIT


def figure_of(rounds: Rounds, noisy: bool = False) -> Figure:
    """Median and spread of at least one round."""
    values = list(rounds.values())
    return Figure(statistics.median(values), min(values), max(values), len(values), noisy)


def ratio(ours: Rounds, theirs: Rounds, noisy: bool = False) -> Figure | None:
    """Ours by theirs, divided inside each round that both have; None without such a round, or by zero."""
    shared = {number: ours[number] / theirs[number] for number in ours if theirs.get(number)}
    return figure_of(shared, noisy) if shared else None


def amount(value: float) -> str:
    """Three digits that say something, with thousands separated: 12,300, 45.6, 0.0123."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{value:.3g}"


def spread(figure: Figure) -> str:
    """``median (low to high)``, with a star where a round was disturbed."""
    text = amount(figure.median)
    if figure.rounds > 1:
        text += f" ({amount(figure.low)} to {amount(figure.high)})"
    return text + ("*" if figure.noisy else "")


def brief(figure: Figure) -> str:
    """``median ±n%``, where n is half of the spread; for tables in a terminal."""
    text = amount(figure.median)
    if figure.rounds > 1 and figure.median:
        text += f" ±{50 * (figure.high - figure.low) / figure.median:.0f}%"
    return text + ("*" if figure.noisy else "")
