"""The figures as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.guard.baseline import Change, Verdict, group_of

_STYLES = {Verdict.LOSS: "bold red", Verdict.GONE: "bold red", Verdict.GAIN: "green", Verdict.NEW: "yellow"}


def show(console: Console, changes: Sequence[Change]) -> None:
    """Every figure with its baseline and what has become of it."""
    table = Table("figure", box=None, pad_edge=False)
    for title in ("baseline", "now", "change"):
        table.add_column(title, justify="right")
    table.add_column("")
    group = ""
    for change in changes:
        if group and group != group_of(change.name):
            table.add_section()
        group = group_of(change.name)
        table.add_row(
            change.name,
            _number(change.before),
            _number(change.now),
            f"{change.part:+.1%}" if change.part else "",
            change.verdict.value,
            style=_STYLES.get(change.verdict),
        )
    console.print(table)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
