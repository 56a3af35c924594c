"""The plots of the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot looks for a screen

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.aims import VARIANTS
from harness.figures import OURS, Figure, Key, Measurements, amount, figure_of
from harness.sections import FAMILIES, ROLES
from harness.tables import size_of

ACCENT = "#d9480f"
PLAIN = "#5c7c9c"
ROLE_COLOURS = ("#5c7c9c", "#8a63a8", "#2b8a6e", "#e0a93b")
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",  # an opaque card is readable on a dark page too
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.7,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}
DPI = 110
CUT = 4.0
"""A bar that is this many times longer than the median of the bars is cut, its length written beside it."""

SIZES = ("1kB", "100kB", "10MB")
Named = list[tuple[str, Figure]]


def draw_all(results: dict[str, Any], directory: Path) -> set[str]:
    """Write every plot there are samples for; returns their file names."""
    found = Measurements(results)
    titles = {name: peer["title"] for name, peer in results["peers"].items()}
    plots: dict[str, Callable[[Measurements, dict[str, str]], Canvas | None]] = {
        "throughput.png": _throughput,
        "round_trip.png": _round_trip,
        "cpu.png": _cpu,
        "payloads.png": _payloads,
        "growth.png": _growth,
    }
    drawn: set[str] = set()
    with plt.rc_context(STYLE):
        for name, draw in plots.items():
            canvas = draw(found, titles)
            if canvas is not None:
                canvas.savefig(directory / name, dpi=DPI, metadata={"Software": None})
                plt.close(canvas)
                drawn.add(name)
    return drawn


def _throughput(found: Measurements, titles: dict[str, str]) -> Canvas | None:
    panels = [
        (title, _best_figures(found, [("A", variant, metric) for variant in VARIANTS], max))
        for title, metric in (
            ("First enqueue to last result", "runs_per_second"),
            ("Enqueue alone", "enqueue_per_second"),
        )
    ]
    return _bar_panels(panels, titles, "no-op runs per second, fastest call of each library")


def _payloads(found: Measurements, titles: dict[str, str]) -> Canvas | None:
    panels = [
        (
            size.replace("k", " k").replace("M", " M"),
            _best_figures(found, [("D", size, "round_trips_per_second")], max),
        )
        for size in SIZES
    ]
    return _bar_panels(panels, titles, "round trips per second")


def _round_trip(found: Measurements, titles: dict[str, str]) -> Canvas | None:
    middles = _best_figures(found, [("B", kind, "p50_ms") for kind in ("async", "sync")], min)
    if not middles:
        return None
    middles.sort(key=lambda entry: entry[1].median, reverse=True)
    tails = dict(_best_figures(found, [("B", kind, "p99_ms") for kind in ("async", "sync")], min))
    canvas, axes = plt.subplots(figsize=(7.5, _height(len(middles))), layout="constrained")
    _bars(axes, middles, titles)
    rows = [(row, tails[peer]) for row, (peer, _) in enumerate(middles) if peer in tails]
    axes.errorbar(
        [tail.median for _, tail in rows],
        [row for row, _ in rows],
        xerr=_errors([tail for _, tail in rows]),
        fmt="D",
        color="#343a40",
        markersize=4,
        capsize=2,
        linewidth=0.8,
        label="p99",
    )
    _log_axis(axes, [figure for _, figure in middles] + [tail for _, tail in rows])
    axes.set_xlabel("ms; bar: p50, diamond: p99; whiskers: smallest and largest round")
    axes.set_title("Idle round trip: one no-op run at a time, to its result")
    return canvas


def _cpu(found: Measurements, titles: dict[str, str]) -> Canvas | None:
    totals = _best_figures(found, [("E", "noop", "cpu_total")], min)
    if not totals:
        return None
    totals.sort(key=lambda entry: entry[1].median, reverse=True)
    middle = sorted(total.median for _, total in totals)[len(totals) // 2]
    shown = [total.median for _, total in totals if total.median <= CUT * middle] or [middle]
    limit = max(shown) * 1.25 or 1.0
    canvas, axes = plt.subplots(figsize=(7.5, _height(len(totals)) + 0.3), layout="constrained")
    ends = [0.0] * len(totals)
    for role, colour in zip(ROLES, ROLE_COLOURS, strict=True):
        parts = [_median(found, peer, ("E", "noop", f"cpu_{role}")) for peer, _ in totals]
        axes.barh(range(len(totals)), parts, left=ends, color=colour, label=role, height=0.68)
        ends = [end + part for end, part in zip(ends, parts, strict=True)]
    for row, (_, total) in enumerate(totals):
        cut = ends[row] > limit
        text = f"{amount(total.median)}{' →' if cut else ''}"
        place = limit * 0.985 if cut else ends[row] + limit * 0.01
        axes.text(
            place, row, text, va="center", ha="right" if cut else "left", color="white" if cut else "#343a40"
        )
    axes.set_xlim(0, limit)
    _names(axes, totals, titles)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("CPU seconds per 1,000 no-op runs, median of the rounds")
    axes.set_title("What a run costs", pad=24)
    axes.legend(ncols=4, frameon=False, loc="lower left", bbox_to_anchor=(-0.01, 0.995), borderpad=0.2)
    return canvas


def _growth(found: Measurements, titles: dict[str, str]) -> Canvas | None:
    panels = {
        family: variants
        for family in FAMILIES
        if (variants := _variants(found, family)) and any(_rate(found, variant) for variant in variants)
    }
    if not panels:
        return None
    rows = -(-len(panels) // 3)
    columns = min(3, len(panels))
    canvas, grid = plt.subplots(
        rows, columns, figsize=(2.9 * columns + 0.3, 2.5 * rows + 0.2), layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (family, variants) in zip(grid.flat, panels.items(), strict=False):
        _growth_panel(found, axes, family, variants)
    for line in grid:
        line[0].set_ylabel("no-op runs per second")
    return canvas


def _growth_panel(found: Measurements, axes: Axes, family: str, variants: list[str]) -> None:
    axes.set_xlabel(FAMILIES[family])
    sizes = [size_of(variant) for variant in variants]
    words = [variant.rsplit(" ", 1)[-1] for variant in variants]
    wide = family != "fsync" and max(sizes) > 20 * max(1.0, min(sizes))
    places = sizes if wide or family in ("brokers", "workers") else list(range(len(sizes)))
    for metric, colour in (("runs_per_second", ACCENT), ("sync_runs_per_second", PLAIN)):
        drawn = [
            (place, figure)
            for place, variant in zip(places, variants, strict=True)
            if (figure := found.figure(OURS, ("F", variant, metric))) is not None
        ]
        if drawn:
            figures = [figure for _, figure in drawn]
            label = "functions" if metric.startswith("sync") else "coroutines"
            axes.errorbar(
                [place for place, _ in drawn],
                [figure.median for figure in figures],
                yerr=_errors(figures),
                fmt="o-" if family != "fsync" else "o",
                color=colour,
                markersize=4,
                capsize=3,
                linewidth=1.4,
                label=label,
            )
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, loc="lower right")
    if wide:
        axes.set_xscale("log")
        axes.minorticks_off()
        words = [_short(size) for size in sizes]
    axes.set_xticks(places, words)
    axes.margins(x=0.12)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(_short))


def _bar_panels(panels: list[tuple[str, Named]], titles: dict[str, str], label: str) -> Canvas | None:
    """Bars side by side, each panel sorted by itself; panels without a figure are left out."""
    panels = [(title, sorted(named, key=lambda entry: entry[1].median)) for title, named in panels if named]
    if not panels:
        return None
    height = _height(max(len(named) for _, named in panels))
    width = 4.3 if len(panels) < 3 else 3.4
    canvas, grid = plt.subplots(
        1, len(panels), figsize=(width * len(panels), height), layout="constrained", squeeze=False
    )
    for axes, (title, named) in zip(grid.flat, panels, strict=True):
        _bars(axes, named, titles)
        _log_axis(axes, [figure for _, figure in named])
        for row, (_, figure) in enumerate(named):
            axes.annotate(
                amount(figure.median),
                (max(figure.high, figure.median), row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.set_title(title)
    canvas.supxlabel(f"{label}; whiskers: smallest and largest round", fontsize=9)
    return canvas


def _bars(axes: Axes, named: Named, titles: dict[str, str]) -> None:
    axes.barh(
        range(len(named)),
        [figure.median for _, figure in named],
        xerr=_errors([figure for _, figure in named]),
        color=[ACCENT if peer == OURS else PLAIN for peer, _ in named],
        error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": "#343a40"},
        height=0.68,
    )
    _names(axes, named, titles)
    axes.grid(axis="y", visible=False)


def _names(axes: Axes, named: Named, titles: dict[str, str]) -> None:
    axes.set_yticks(range(len(named)), [titles.get(peer, peer) for peer, _ in named])
    axes.tick_params(axis="y", length=0)
    for text, (peer, _) in zip(axes.get_yticklabels(), named, strict=True):
        if peer == OURS:
            text.set_color(ACCENT)
            text.set_fontweight("bold")


def _log_axis(axes: Axes, figures: list[Figure]) -> None:
    """A scale of decades where the values span them; with room for a number at the longest bar."""
    highest = max(figure.high for figure in figures)
    lowest = min((figure.low for figure in figures if figure.low > 0), default=highest)
    if highest > 10 * lowest > 0:
        axes.set_xscale("log")
        first = lowest / 2.5
        axes.set_xlim(first, highest * (highest / first) ** 0.2)
        axes.xaxis.set_major_locator(LogLocator(base=10))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, highest * 1.25 or 1.0)
    axes.xaxis.set_major_formatter(FuncFormatter(_short))


def _errors(figures: list[Figure]) -> list[list[float]]:
    return [
        [figure.median - figure.low for figure in figures],
        [figure.high - figure.median for figure in figures],
    ]


def _short(value: float, _position: int = 0) -> str:
    """12k, 1M: for axes."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _height(rows: int) -> float:
    return 1.1 + 0.3 * rows


def _best_figures(found: Measurements, keys: list[Key], choose: Callable[..., float]) -> Named:
    best = [(peer, found.best(peer, keys, choose)) for peer in found.peers(keys[0][0])]
    return [(peer, figure_of(rounds)) for peer, rounds in best if rounds]


def _median(found: Measurements, peer: str, key: Key) -> float:
    figure = found.figure(peer, key)
    return figure.median if figure else 0.0


def _variants(found: Measurements, family: str) -> list[str]:
    names = dict.fromkeys(key[1] for key in found.keys(OURS, "F") if key[1].split(" ")[0] == family)
    return sorted(names, key=size_of)


def _rate(found: Measurements, variant: str) -> Figure | None:
    return found.figure(OURS, ("F", variant, "runs_per_second"))
