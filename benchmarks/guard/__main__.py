"""``python -m benchmarks.guard check`` and ``update``; ``make guard`` and ``make guard-update`` call them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.guard.baseline import FILE, Baseline, Verdict, compare, failures
from benchmarks.guard.child import MeasuringFailed, measured
from benchmarks.guard.figures import Figures
from benchmarks.guard.table import show

app = typer.Typer(add_completion=False, help="Counts what the hot functions do; fails on a loss over 15 %.")
File = Annotated[Path, typer.Option(help="The stored figures.")]
console = Console(width=None if Console().is_terminal else 120, highlight=False)


@app.command()
def check(
    group: Annotated[list[str] | None, typer.Option(help="Only this group; may be repeated.")] = None,
    baseline: File = FILE,
) -> None:
    """Count, and compare with the baseline of this version of Python."""
    stored = Baseline(baseline)
    if not stored.values:
        console.print(
            f"There is no baseline for Python {stored.python}: nothing was compared. "
            'make guard-update REASON="..." makes one.'
        )
        return
    changes = compare(stored.values, _measure(group or []))
    show(console, changes)
    for library in stored.other_libraries():
        console.print(f"Counted with another version: {library}.")
    if any(change.verdict in (Verdict.GAIN, Verdict.NEW) for change in changes):
        console.print('Gains and new figures: make guard-update REASON="..." stores them.')
    lost = failures(changes)
    if lost:
        console.print("\nThe guard fails. If it is worth that, store it with make guard-update.")
        for line in lost:
            console.print(f"  {line}", style="red", soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def update(
    reason: Annotated[str, typer.Option(help="What was changed, and why it costs what it costs.")] = "",
    baseline: File = FILE,
) -> None:
    """Count, and store the figures with the reason of their change."""
    if not reason.strip():
        console.print('A baseline is changed for a reason: say it, REASON="...".')
        raise typer.Exit(2)
    changes = Baseline(baseline).update(_measure([]), reason.strip())
    show(console, changes)
    console.print(f"{len(changes)} figures stored in {baseline}.", soft_wrap=True)


def _measure(groups: list[str]) -> Figures:
    try:
        return measured(groups)
    except MeasuringFailed as exc:
        console.print(f"Nothing was measured.\n{exc}", style="red", markup=False)
        raise typer.Exit(3) from None


if __name__ == "__main__":
    app()
