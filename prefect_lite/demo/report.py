"""What the demo prints: a progress bar and a table, or one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from prefect_lite.demo.scenario import Step

PERCENTILES = (0.5, 0.95, 0.99)


class Reporter:
    """Prints for people, or with ``as_json`` for programs (then only at the end)."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(stderr=as_json, quiet=as_json, highlight=False)

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text)

    @contextmanager
    def progress(self, total: int) -> Generator[Callable[[], None]]:
        """A progress bar; yields what is called, from any thread, for each run that ended."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task("runs", total=total)
            yield lambda: progress.advance(bar)

    def close(self, steps: list[Step], problems: list[str]) -> None:
        """The table and the verdict."""
        if self._as_json:
            json.dump(_record(steps, problems), sys.stdout, indent=1)
            sys.stdout.write("\n")
            return
        self._console.print(_table(steps))
        for problem in problems:
            self._console.print(f"Wrong: {problem}.")
        if not problems:
            self._console.print("All results are the ones computed directly from the texts.")


def _table(steps: list[Step]) -> Table:
    """At most 80 columns wide."""
    percentiles = [f"p{fraction * 100:.0f}" for fraction in PERCENTILES]
    table = Table(title="prefect_lite demo (p50, p95, p99: milliseconds)", box=SIMPLE, padding=0)
    for name in ("step", "outcome"):
        table.add_column(name, no_wrap=True)
    for name in ("runs", "retries", "s", "runs/s", *percentiles):
        table.add_column(name, justify="right", no_wrap=True)
    for step in steps:
        table.add_row(
            step.title,
            step.outcome,
            f"{step.runs:,}",
            f"{step.retries}",
            f"{step.seconds:.2f}",
            f"{step.rate:,.0f}",
            *(f"{step.percentile(fraction) * 1000:.1f}" for fraction in PERCENTILES),
        )
    table.add_section()
    runs, seconds = sum(step.runs for step in steps), sum(step.seconds for step in steps)
    retries = sum(step.retries for step in steps)
    table.add_row("all", "", f"{runs:,}", f"{retries}", f"{seconds:.2f}", f"{runs / seconds:,.0f}")
    return table


def _record(steps: list[Step], problems: list[str]) -> dict[str, Any]:
    return {
        "ok": not problems,
        "problems": problems,
        "runs": sum(step.runs for step in steps),
        "retries": sum(step.retries for step in steps),
        "steps": [
            {
                "step": step.title,
                "outcome": step.outcome,
                "runs": step.runs,
                "retries": step.retries,
                "seconds": round(step.seconds, 4),
                "runs_per_second": round(step.rate, 1),
                **{
                    f"p{fraction * 100:.0f}_ms": round(step.percentile(fraction) * 1000, 3)
                    for fraction in PERCENTILES
                },
            }
            for step in steps
        ],
    }
