"""Where the instructions of a run go: by process role and by module, for a run alone and for many at once.

    python -m benchmarks.guard.breakdown [--runs 50] [--kind function] [--rounds 5] [--top 12]

Counts are those of the guard: Python instructions and calls into C, on a standing clock. What C code, system
calls and Redis cost is not in them; ``benchmarks/path_cost.py`` has the time of each process.
"""

from __future__ import annotations

import gc
import os
import statistics
import threading
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import benchmarks.guard.packing  # noqa: F401  # before the product, whose msgpack it wraps
from benchmarks.guard.counting import Counter, Tracer
from benchmarks.guard.deployment import ROLES, Deployment
from benchmarks.guard.seams import seam
from benchmarks.guard.stillness import PATIENCE_SECONDS, Stillness

Spent = dict[str, list[int]]
"""Module -> [instructions, C calls]."""


class ByModule(Counter):
    """Counts as its base does, and keeps the counts of each module apart."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[int, Spent] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        self._names: dict[CodeType, str] = {}
        self._tracers: dict[tuple[int, str], Tracer] = {}

    def start(self) -> None:
        self.spent.clear()
        self._tracers.clear()
        super().start()

    def _name(self, code: CodeType) -> str:
        name = self._names.get(code)
        if name is None:
            name = self._names[code] = module_name(Path(code.co_filename))
        return name

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Tracer | None:
        if super()._trace(frame, event, arg) is None:
            return None
        key = (threading.get_ident(), self._name(frame.f_code))
        tracer = self._tracers.get(key)
        if tracer is None:
            cell = self.spent[key[0]][key[1]]

            def tracer(_frame: FrameType, event: str, _arg: Any) -> Tracer | None:
                if event == "opcode" and self._active:
                    cell[0] += 1
                return tracer

            self._tracers[key] = tracer
        return tracer

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" and self._active and self._counts(frame.f_code):
            self.spent[threading.get_ident()][self._name(frame.f_code)][1] += 1


def module_name(file: Path) -> str:
    """``prefect_lite.client.link`` for our files; the package's name for those of libraries."""
    parts = file.with_suffix("").parts
    for package in ("prefect_lite", "prefect_lite_broker", "prefect_lite_worker"):
        if package in parts[:-1]:
            return ".".join(parts[len(parts) - 1 - parts[::-1].index(package) :])
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    return f"{file.stem} (standard library)"


def measure(kind: str, runs: int, rounds: int) -> dict[str, dict[str, tuple[float, float]]]:
    """Role -> module -> instructions and C calls per run; the median of the rounds."""
    counter, stillness = ByModule(), Stillness()
    gc.disable()  # finalizers would run in the middle of something else
    samples: dict[str, list[Spent]] = {role: [] for role in ROLES}
    with Deployment(counter, stillness) as deployment:
        task = seam("benchmarks.guard.tasks", kind)

        def alone() -> None:
            assert task.delay(7).result(timeout=PATIENCE_SECONDS) == 7

        def many() -> None:
            values = list(range(runs))
            assert task.map(values, deferred=True).result(timeout=PATIENCE_SECONDS) == values

        for turn in range(rounds + 2):
            deployment.perform(alone if runs == 1 else many)
            if turn < 2:
                continue
            for role in ROLES:
                merged: Spent = defaultdict(lambda: [0, 0])
                for spent in deployment.of_role(role, counter.spent):
                    for name, (instructions, c_calls) in spent.items():
                        merged[name][0] += instructions
                        merged[name][1] += c_calls
                samples[role].append(merged)
    return {role: _medians(each, runs) for role, each in samples.items()}


def _medians(samples: list[Spent], runs: int) -> dict[str, tuple[float, float]]:
    names = {name for sample in samples for name in sample}
    return {
        name: (
            statistics.median(sample.get(name, [0, 0])[0] for sample in samples) / runs,
            statistics.median(sample.get(name, [0, 0])[1] for sample in samples) / runs,
        )
        for name in names
    }


def main(
    kind: Annotated[str, typer.Option(help="coroutine or function")] = "coroutine",
    runs: Annotated[int, typer.Option(help="1: delay().result(); more: one map(deferred=True)")] = 1,
    rounds: Annotated[int, typer.Option(help="The median of so many is shown.")] = 5,
    top: Annotated[int, typer.Option(help="Modules shown for each role.")] = 14,
) -> None:
    """Print where the instructions of a run go."""
    console = Console(width=100, highlight=False)
    for role, modules in measure(kind, runs, rounds).items():
        total = sum(each[0] for each in modules.values()), sum(each[1] for each in modules.values())
        table = Table(title=f"{role}: {total[0]:,.0f} instructions, {total[1]:,.0f} C calls per run")
        for name in ("module", "instructions", "share", "C calls"):
            table.add_column(name, justify="left" if name == "module" else "right")
        ranked = sorted(modules.items(), key=lambda item: -item[1][0])
        for name, (instructions, c_calls) in ranked[:top]:
            share = f"{instructions / total[0]:.0%}"
            table.add_row(name, f"{instructions:,.0f}", share, f"{c_calls:,.1f}")
        console.print(table)
    os._exit(0)  # as in measuring.py: a thread that is stuck must not keep the process


if __name__ == "__main__":
    typer.run(main)
