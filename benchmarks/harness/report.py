"""results.md, results.json and the plots, from the samples of a run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.figures import OTHER_CPU_LIMIT, STEAL_LIMIT, Measurements, amount, is_noisy
from harness.tables import Table, aim_table, all_tables

CASES = {
    "A": ("Throughput", "throughput.png"),
    "B": ("Round trip", "round_trip.png"),
    "C": ("Many that wait", ""),
    "D": ("Payloads", "payloads.png"),
    "E": ("Costs", "cpu.png"),
    "F": ("Growth (prefect_lite alone)", "growth.png"),
    "G": ("The limits", ""),
}
"""Title and plot."""

READING = f"""\
Every figure is the median of the rounds, with the smallest and the largest round in brackets. In a round all
libraries take turns within minutes of each other, and each round begins with another one. Ratios are taken
inside a round, and their median is shown: **only ratios mean something.** The absolute figures belong to this
machine and this hour, and another run moves them all together. Every value of every run was compared with
what was sent. A star marks a figure of which a round lost more than {STEAL_LIMIT:.0f} % of the machine's time
to other machines (steal), or more than {OTHER_CPU_LIMIT:.0f} % to other processes.

The column "prefect_lite is" compares the best figure of each row; latencies by p50, payloads by rate, what
goes on beside large ones by the longest, CPU by the total, memory by that of the worker. No spread is shown
where there was one round."""


def make_report(results: dict[str, Any], directory: Path) -> None:
    """Write everything into this folder; the plots only where matplotlib is installed.

    Args:
        results: ``meta``, ``peers`` and ``samples``, as `harness.run` stores them.
        directory: Made if it is not there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(compact_json(results))
    drawn = _draw(results, directory)
    (directory / "results.md").write_text("\n".join(report_lines(results, drawn)) + "\n")


def compact_json(results: dict[str, Any]) -> str:
    """One line per sample: a changed figure is one line of a diff."""
    parts = [f'"{name}": {json.dumps(results[name], indent=1)}' for name in ("meta", "peers")]
    samples = ",\n".join(json.dumps(sample) for sample in results["samples"])
    return "{" + ",\n".join(parts) + ',\n"samples": [\n' + samples + "\n]}\n"


def _draw(results: dict[str, Any], directory: Path) -> set[str]:
    try:
        from harness.plots import draw_all
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        return set()
    return draw_all(results, directory)


def report_lines(results: dict[str, Any], drawn: set[str]) -> Iterator[str]:
    """The Markdown of the report.

    Args:
        results: See `make_report`.
        drawn: Names of the plots that there are.
    """
    found = Measurements(results)
    yield "# Results"
    yield ""
    yield "Made by `make bench`; do not edit."
    yield ""
    yield from _what_ran(results, found)
    yield from _titled("How to read this", READING.splitlines())
    aims = aim_table(found)
    if aims is not None:
        yield from _titled("Aims", [*_markdown(aims), "", "Met or missed goes by the median of the rounds."])
    tables = list(all_tables(results))
    titles = {name: peer["title"] for name, peer in results["peers"].items()}
    for case, (title, plot) in CASES.items():
        own = [table for table in tables if table.case == case]
        if not own:
            continue
        yield f"## {case}. {title}"
        yield ""
        if plot in drawn:
            yield f"![{title}]({plot})"
            yield ""
        for table in own:
            yield f"**{table.title}**"
            yield ""
            yield from _markdown(table)
            yield ""
    disturbed = list(_disturbed(titles, found))
    if disturbed:
        yield from _titled("Disturbed", ["Starred above. Percent of all cores' time.", "", *disturbed])
    yield from _titled("Settings", list(_settings(results)))
    yield from _titled("Skipped", list(_skipped(titles, found)))


def _titled(title: str, lines: list[str]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield from lines
    yield ""


def _what_ran(results: dict[str, Any], found: Measurements) -> Iterator[str]:
    meta = results["meta"]
    machine = meta.get("machine", {})
    yield "| | |"
    yield "|---|---|"
    yield f"| date | {meta.get('date', 'unknown')} |"
    parts = [
        f"{machine.get('cores', '?')} cores",
        machine.get("cpu"),
        f"{machine.get('memory_gib', '?')} GiB",
        machine.get("system"),
    ]
    yield f"| machine | {', '.join(str(part) for part in parts if part)} |"
    yield f"| Python | {machine.get('python', 'unknown')} |"
    yield f"| rounds | {meta.get('rounds', '?')}, of about {meta.get('seconds', '?')} s per measurement |"
    if "minutes" in meta:
        yield f"| the run took | {meta['minutes']:.0f} minutes |"
    for label, name in (("steal", "steal"), ("CPU used by others", "other_cpu")):
        values = [sample[name] for sample in found.measured if name in sample]
        if values:
            median, worst = statistics.median(values), max(values)
            yield f"| {label} | median {amount(median)} %, worst {amount(worst)} % of all cores |"
    noisy = sum(is_noisy(sample) for sample in found.measured)
    yield f"| marked samples | {noisy} of {len(found.measured)} |"
    yield ""
    yield "| library | versions |"
    yield "|---|---|"
    for peer in results["peers"].values():
        versions = ", ".join(f"{name} {version}" for name, version in peer["versions"].items())
        yield f"| {peer['title']} | {versions or 'not installed'} |"
    yield ""


def _markdown(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(table.header) + " |"
    yield "|---" + "|---:" * (len(table.header) - 1) + "|" if table.case else "|---" * len(table.header) + "|"
    for number, row in enumerate(table.rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        if number == table.ours:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        yield "| " + " | ".join(cells) + " |"


def _settings(results: dict[str, Any]) -> Iterator[str]:
    yield "Each library as its own documentation recommends for this work."
    for peer in results["peers"].values():
        yield ""
        yield f"**{peer['title']}.** {peer['settings']}".rstrip()
        yield ""
        for name, layout in peer["layouts"].items():
            commands = "; ".join(f"`{_shown(command)}`" for command in layout["workers"])
            yield f"- {name}, {layout['concurrency']:,} at a time: {layout['settings']} {commands}".rstrip()


def _shown(command: list[str]) -> str:
    """argv as one would type it, without the folders that are filled in."""
    return " ".join(part.replace("{bin}/", "").replace("{dir}/", "").strip("{}") for part in command)


def _disturbed(titles: dict[str, str], found: Measurements) -> Iterator[str]:
    """One line per library and round: which measurements others took too much of the machine from."""
    places: dict[tuple[int, str], dict[str, None]] = {}
    for sample in found.measured:
        if is_noisy(sample):
            place = f"{sample['case']} {sample['variant']}".strip()
            text = f"{place} (steal {amount(sample['steal'])}, others {amount(sample['other_cpu'])})"
            places.setdefault((sample["round"], sample["peer"]), {})[text] = None
    for (number, peer), texts in sorted(places.items()):
        yield f"- round {number + 1}, {titles.get(peer, peer)}: {', '.join(texts)}"


def _skipped(titles: dict[str, str], found: Measurements) -> Iterator[str]:
    lines: dict[str, None] = {}
    for sample in found.skipped:
        place = " ".join(part for part in (sample["case"], sample["variant"]) if part)
        reason = " ".join(str(sample["note"]).split())
        name = titles.get(sample["peer"], sample["peer"])
        lines[f"- {name}, {place or 'everything'}: {reason}"] = None
    yield from lines or ["Nothing."]
