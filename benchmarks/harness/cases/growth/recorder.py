"""Samples of a round: with what the machine did meanwhile, and a reason for what could not be measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Protocol

import psutil

from harness.machine import conditions_between, read_machine
from harness.samples import Emit, Sample, make_skip


class Take(Protocol):
    """Takes one figure."""

    def __call__(
        self, variant: str, metric: str, value: float, unit: str, count: int, note: str = ""
    ) -> None: ...


class Recorder:
    """Makes the samples of one case.

    Args:
        number: Of the round.
        emit: Takes each sample.
        peer: Whose figures they are.
        case: ``F`` or ``G``.
        scale: Of the counts; a note says so when it is not 1.
    """

    def __init__(self, number: int, emit: Emit, *, peer: str, case: str, scale: float) -> None:
        self._round = number
        self._emit = emit
        self._peer = peer
        self._case = case
        self._scale = scale

    @contextmanager
    def measuring(self) -> Iterator[Take]:
        """Figures taken inside belong to this time, and carry what the machine did in it."""
        taken: list[Sample] = []

        def take(variant: str, metric: str, value: float, unit: str, count: int, note: str = "") -> None:
            if self._scale != 1.0:
                note = f"{note}; " * bool(note) + f"counts scaled by {self._scale:g}"
            taken.append(
                {
                    "round": self._round,
                    "peer": self._peer,
                    "case": self._case,
                    "variant": variant,
                    "metric": metric,
                    "value": round(value, 6),
                    "unit": unit,
                    "count": count,
                    "note": note,
                }
            )

        before, own = read_machine(), _own_cpu_seconds()
        yield take
        conditions = asdict(conditions_between(before, read_machine(), _own_cpu_seconds() - own))
        for sample in taken:
            self._emit(sample | conditions)

    @contextmanager
    def attempt(self, *variants: str) -> Iterator[None]:
        """Whatever goes wrong inside is recorded as the reason why these variants were skipped."""
        try:
            yield
        except Exception as exc:
            reason = f"{type(exc).__name__}: {exc}"
            for variant in variants:
                self._emit(make_skip(self._peer, self._case, variant, reason))


def _own_cpu_seconds() -> float:
    """Of this process and of all that it has started, ended ones included."""
    own = psutil.Process()
    seconds = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:  # ended just now
            continue
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds
