"""The tables of the report, and the same ones in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from harness.aims import AIMS, LIMITS
from harness.figures import OURS, Figure, Measurements, Rounds, amount, brief, figure_of, ratio, spread
from harness.sections import FAMILIES, SECTIONS, Section

Show = Callable[[Figure], str]
MISSING = "–"
SAME = 0.02
"""Two figures that differ by less than this part are called equal."""


@dataclass
class Table:
    """Text, ready to be shown.

    Attributes:
        ours: The number of prefect_lite's row; None where all rows are its own.
    """

    title: str
    case: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list[list[str]])
    ours: int | None = None


def compare_words(
    figure: Figure | None, more_is_better: bool, words: tuple[str, str], shown: Show = spread
) -> str:
    """``5.6x faster (4.9 to 6.1)`` from the ratio ours by theirs; without the spread unless that is shown."""
    if figure is None or figure.low <= 0:
        return MISSING
    better, worse = words
    if not more_is_better:
        figure = _inverse(figure)
    if abs(figure.median - 1) < SAME:
        text = "equal"
    elif figure.median > 1:
        text = f"{amount(figure.median)}x {better}"
    else:
        figure = _inverse(figure)
        text = f"{amount(figure.median)}x {worse}"
    if figure.rounds > 1 and shown is spread:
        text += f" ({amount(figure.low)} to {amount(figure.high)})"
    return text


def _inverse(figure: Figure) -> Figure:
    return Figure(1 / figure.median, 1 / figure.high, 1 / figure.low, figure.rounds, figure.noisy)


def compare(
    found: Measurements, section: Section, titles: dict[str, str], shown: Show = spread
) -> Table | None:
    """One row per peer, the fastest first; None where nobody was measured."""
    columns = [
        (header, key)
        for header, key in section.columns
        if any(found.rounds(p, key) for p in found.peers(key[0]))
    ]
    ranked: list[tuple[float, str, Rounds]] = []
    for peer in found.peers(section.case):
        best = found.best(peer, section.compared, section.choose)
        if any(found.rounds(peer, key) for _, key in columns):
            median = figure_of(best).median if best else float("-inf" if section.more_is_better else "inf")
            ranked.append((median, peer, best))
    if not ranked:
        return None
    ranked.sort(key=lambda entry: entry[0], reverse=section.more_is_better)
    ours = found.best(OURS, section.compared, section.choose)
    table = Table(section.title, section.case, ["", *(header for header, _ in columns)])
    if ours:
        table.header.append("prefect_lite is")
    for number, (_, peer, best) in enumerate(ranked):
        cells = [found.figure(peer, key) for _, key in columns]
        row = [titles.get(peer, peer), *(shown(cell) if cell else MISSING for cell in cells)]
        if peer == OURS:
            table.ours = number
        if ours:
            words = compare_words(ratio(ours, best), section.more_is_better, section.words, shown)
            row.append("" if peer == OURS else words)
        table.rows.append(row)
    return table


def growth_tables(found: Measurements, shown: Show = spread) -> Iterator[Table]:
    """One table per family of variants ("queue 1000", "queue 10000"): a row each, all metrics beside."""
    families: dict[str, list[str]] = {}
    for _, variant, _ in found.keys(OURS, "F"):
        family = families.setdefault(variant.split(" ")[0], [])
        if variant not in family:
            family.append(variant)
    for variants in families.values():
        variants.sort(key=size_of)
        metrics = list(dict.fromkeys(key[2] for key in found.keys(OURS, "F") if key[1] in variants))
        title = FAMILIES.get(variants[0].split(" ")[0], variants[0])
        table = Table(title[:1].upper() + title[1:], "F", ["", *map(metric_words, metrics)])
        for variant in variants:
            cells = [found.figure(OURS, ("F", variant, metric)) for metric in metrics]
            table.rows.append([variant_words(variant), *(shown(cell) if cell else MISSING for cell in cells)])
        yield table


def limit_table(found: Measurements, shown: Show = spread) -> Table | None:
    keys = found.keys(LIMITS, "G")
    if not keys:
        return None
    table = Table("What the parts can do by themselves", "G", ["", "figure"])
    for key in keys:
        figure = found.figure(LIMITS, key)
        table.rows.append([metric_words(key[2]), shown(figure) if figure else MISSING])
    return table


def aim_table(found: Measurements) -> Table | None:
    """None where the run has nothing about any of them."""
    table = Table("Aims", "", ["aim", "wanted", "measured", ""])
    for aim in AIMS:
        figure = aim.measure(found)
        verdict = "not measured" if figure is None else "met" if aim.is_met(figure) else "**missed**"
        table.rows.append([aim.text, aim.wanted, spread(figure) if figure else MISSING, verdict])
    return table if any(row[3] != "not measured" for row in table.rows) else None


def size_of(variant: str) -> float:
    """The number at the end of "queue 1000"; words come first, in the order of their durability."""
    word = variant.rsplit(" ", 1)[-1]
    return float(word) if word.isdigit() else {"no": 0, "everysec": 1, "always": 2}.get(word, -1)


def variant_words(variant: str) -> str:
    name, _, word = variant.rpartition(" ")
    return f"{name} {int(word):,}" if word.isdigit() else variant


def metric_words(metric: str) -> str:
    """``p50_ms`` as "p50, ms", ``runs_per_second`` as "runs per second"."""
    for unit in ("ms", "kib"):
        if metric.endswith(f"_{unit}"):
            return f"{metric.removesuffix(f'_{unit}').replace('_', ' ')}, {unit}"
    return metric.replace("_", " ").replace(" kib ", " KiB ")


def all_tables(results: dict[str, Any], shown: Show = spread) -> Iterator[Table]:
    """In the order of the cases."""
    found = Measurements(results)
    titles = {name: peer["title"] for name, peer in results["peers"].items()}
    for section in SECTIONS:
        table = compare(found, section, titles, shown)
        if table is not None:
            yield table
    yield from growth_tables(found, shown)
    limits = limit_table(found, shown)
    if limits is not None:
        yield limits


def print_tables(results: dict[str, Any], console: Console | None = None) -> None:
    """Print the tables, and the aims that the run has something about."""
    console = console or Console()
    aims = aim_table(Measurements(results))
    if aims is not None:
        aims.rows = [row for row in aims.rows if row[2] != MISSING]
    for table in [*all_tables(results, brief), *([aims] if aims else [])]:
        _print(table, console)
    for sample in Measurements(results).skipped:
        place = "/".join(part for part in (sample["case"], sample["variant"]) if part)
        console.print(f"skipped: {sample['peer']} {place}: {sample['note']}", markup=False, style="dim")


def _print(table: Table, console: Console) -> None:
    console.print(f"\n{table.case}: {table.title}" if table.case else f"\n{table.title}", style="bold")
    printed = RichTable()
    for number, header in enumerate(table.header):
        printed.add_column(
            header.replace("/", "/\n"),
            justify="left" if number == 0 else "right",
            no_wrap=number == 0 and bool(table.case),
        )
    for number, row in enumerate(table.rows):
        printed.add_row(
            *(cell.replace("**", "") for cell in row), style="bold" if number == table.ours else None
        )
    console.print(printed)
