"""The report: what it says about hand-made samples, where much is missing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from harness.aims import AIMS, LIMITS  # noqa: E402
from harness.figures import Figure, Measurements, amount, brief, figure_of, ratio, spread  # noqa: E402
from harness.report import compact_json, make_report, report_lines  # noqa: E402
from harness.tables import aim_table, all_tables, compare_words, print_tables  # noqa: E402

Sample = dict[str, Any]


def sample(
    peer: str,
    case: str,
    variant: str,
    metric: str,
    *values: float,
    steal: float = 0.5,
    other_cpu: float = 1.0,
) -> list[Sample]:
    """One sample per round."""
    return [
        {
            "round": number,
            "peer": peer,
            "case": case,
            "variant": variant,
            "metric": metric,
            "value": value,
            "unit": "",
            "count": 100,
            "steal": steal,
            "other_cpu": other_cpu,
            "load": 1.0,
            "note": "",
        }
        for number, value in enumerate(values)
    ]


def skip(peer: str, case: str, variant: str, note: str) -> Sample:
    return {"round": -1, "peer": peer, "case": case, "variant": variant, "metric": "skipped", "note": note}


def results_of(
    *parts: list[Sample] | Sample, peers: tuple[str, ...] = ("prefect_lite", "huey")
) -> dict[str, Any]:
    samples = [entry for part in parts for entry in (part if isinstance(part, list) else [part])]
    layout = {"concurrency": 2, "workers": [["{bin}/serve", "app"]], "settings": "Two processes."}
    return {
        "meta": {
            "date": "2026-11-23",
            "rounds": 2,
            "seconds": 2.0,
            "machine": {"cpu": "A CPU", "cores": 2, "memory_gib": 4.0, "system": "Linux", "python": "3.11.7"},
        },
        "peers": {
            name: {
                "title": name.title() if name != "prefect_lite" else name,
                "versions": {name: "1.0"},
                "settings": "Defaults.",
                "layouts": {"noop": layout},
                "skips": {},
            }
            for name in peers
        },
        "samples": samples,
    }


def table_of(results: dict[str, Any], start: str) -> list[list[str]]:
    return next(table.rows for table in all_tables(results) if table.title.startswith(start))


def verdicts(results: dict[str, Any]) -> dict[str, str]:
    table = aim_table(Measurements(results))
    assert table is not None
    return {row[0]: row[3].strip("*") for row in table.rows}


def test_the_fastest_comes_first_and_the_ratio_is_of_the_rounds() -> None:
    results = results_of(
        sample("huey", "A", "sync/bulk", "runs_per_second", 1000, 2000),
        sample("prefect_lite", "A", "async/bulk", "runs_per_second", 5000, 12000),
        sample("prefect_lite", "A", "sync/bulk", "runs_per_second", 4000, 8000),
    )
    ours, theirs = table_of(results, "No-op runs")
    assert ours == ["prefect_lite", "8,500 (5,000 to 12,000)", "6,000 (4,000 to 8,000)", ""]
    assert theirs == ["Huey", "–", "1,500 (1,000 to 2,000)", "5.50x faster (5.00 to 6.00)"]


def test_it_says_so_when_prefect_lite_is_slower() -> None:
    results = results_of(
        sample("prefect_lite", "B", "async", "p50_ms", 1.5, 1.2),
        sample("huey", "B", "sync", "p50_ms", 1.0, 1.0),
    )
    first, second = table_of(results, "Idle round trip")
    assert (first[0], first[-1]) == ("Huey", "1.35x slower (1.20 to 1.50)")
    assert (second[0], second[-1]) == ("prefect_lite", "")
    assert verdicts(results)["B: round trip p50, async tasks, against the fastest peer"] == "missed"
    assert verdicts(results)["B: round trip p50, sync tasks, against the fastest peer"] == "not measured"


@pytest.mark.parametrize(
    ("figure", "more_is_better", "words"),
    [
        (Figure(2, 1.5, 3, 3), True, "2.00x faster (1.50 to 3.00)"),
        (Figure(2, 1.5, 4, 3), False, "2.00x slower (1.50 to 4.00)"),
        (Figure(0.25, 0.2, 0.5, 3), False, "4.00x faster (2.00 to 5.00)"),
        (Figure(0.5, 0.5, 0.5, 1), True, "2.00x slower"),
        (Figure(1.01, 1.01, 1.01, 1), True, "equal"),
        (Figure(0, 0, 0, 1), True, "–"),
        (None, True, "–"),
    ],
)
def test_words_for_a_ratio(figure: Figure | None, more_is_better: bool, words: str) -> None:
    assert compare_words(figure, more_is_better, ("faster", "slower")) == words


def test_only_rounds_that_both_have_make_a_ratio() -> None:
    assert ratio({0: 10.0, 2: 30.0}, {1: 5.0, 2: 10.0}) == Figure(3.0, 3.0, 3.0, 1)
    assert ratio({0: 10.0}, {1: 5.0}) is None
    assert ratio({0: 10.0}, {0: 0.0}) is None


def test_zero_values_are_shown_and_not_divided_by() -> None:
    results = results_of(
        sample("prefect_lite", "E", "noop", "cpu_total", 0.0),
        sample("huey", "E", "noop", "cpu_total", 0.0),
        sample("huey", "E", "noop", "cpu_broker", 0.0),
    )
    rows = table_of(results, "CPU seconds")
    assert ["Huey", "0", "0", "–"] in rows
    assert set(verdicts(results_of(sample("prefect_lite", "C", "1000@100", "seconds", 0.0))).values()) == {
        "met",
        "not measured",
    }


def test_disturbed_samples_are_marked() -> None:
    results = results_of(
        sample("prefect_lite", "B", "sync", "p50_ms", 1.0, steal=5.1),
        sample("prefect_lite", "B", "sync", "p99_ms", 2.0, other_cpu=15.1),
        sample("huey", "B", "sync", "p50_ms", 2.0, steal=5.0, other_cpu=15.0),
    )
    assert table_of(results, "Idle round trip") == [
        ["prefect_lite", "1.00*", "2.00*", ""],
        ["Huey", "2.00", "–", "2.00x faster"],
    ]
    assert "| marked samples | 2 of 3 |" in list(report_lines(results, set()))


def test_aims_go_by_the_median_of_the_ratios_inside_a_round() -> None:
    results = results_of(
        sample("prefect_lite", "A", "async/bulk", "runs_per_second", 5000, 20000, 11000),
        sample("huey", "A", "sync/bulk", "runs_per_second", 1000, 5000, 1000),
        sample("saq", "A", "async/loop8", "runs_per_second", 500, 500, 2000),
        sample(LIMITS, "G", "", "bare_runs_per_second", 20000, 20000, 20000),
        sample("prefect_lite", "E", "noop", "cpu_total", 0.2),
        sample("saq", "E", "noop", "cpu_total", 0.8),
        sample("prefect_lite", "C", "1000@100", "seconds", 1.1),
        sample("prefect_lite", "C", "1000@100/sync", "seconds", 1.2),
        sample("prefect_lite", "C", "10000@1000", "seconds", 1.3),
        sample("prefect_lite", "D", "100kB", "round_trips_per_second", 600),
        sample("huey", "D", "100kB", "round_trips_per_second", 635),
        sample("prefect_lite", "D", "beside 10MB", "max_ms", 251),
        sample("prefect_lite", "F", "queue 1000", "runs_per_second", 10000),
        sample("prefect_lite", "F", "queue 1000000", "runs_per_second", 9100),
        sample("prefect_lite", "F", "queue 1000000", "redis_bytes_per_run", 495),
    )
    table = aim_table(Measurements(results))
    assert table is not None
    measured = {row[0]: (row[1], row[2], row[3].strip("*")) for row in table.rows}
    assert measured["A: bulk, async tasks, against the fastest call of the fastest peer"] == (
        ">= 5 x",
        "5.00 (4.00 to 5.50)",
        "met",
    )
    assert measured["A: bulk, async tasks, against the bare path"] == (
        ">= 0.5 x",
        "0.55 (0.25 to 1.00)",
        "met",
    )
    assert [row[3].strip("*") for row in table.rows] == [
        "met", "not measured", "met", "not measured", "not measured", "not measured",
        "met", "missed", "met", "missed", "missed", "met", "met",
    ]  # fmt: skip
    assert len(AIMS) == len(table.rows)


def test_growth_is_sorted_by_size() -> None:
    results = results_of(
        sample("prefect_lite", "F", "queue 100000", "runs_per_second", 9000),
        sample("prefect_lite", "F", "queue 10", "runs_per_second", 10000),
        sample("prefect_lite", "F", "queue 100000", "redis_bytes_per_run", 495),
        sample("prefect_lite", "F", "fsync always", "p50_ms", 3),
        sample("prefect_lite", "F", "fsync no", "p50_ms", 1),
    )
    assert table_of(results, "Pending runs") == [
        ["queue 10", "10,000", "–"],
        ["queue 100,000", "9,000", "495"],
    ]
    assert [row[0] for row in table_of(results, "Appendfsync")] == ["fsync no", "fsync always"]


def test_a_run_without_prefect_lite_has_no_ratios() -> None:
    results = results_of(sample("huey", "A", "sync/bulk", "runs_per_second", 1000), peers=("huey",))
    assert table_of(results, "No-op runs") == [["Huey", "1,000"]]
    assert aim_table(Measurements(results)) is None


def test_the_report_names_versions_settings_and_what_was_skipped() -> None:
    results = results_of(
        sample("prefect_lite", "B", "sync", "p50_ms", 1.0),
        skip("huey", "", "", "not installed: no\nwheel"),
        skip("prefect_lite", "A", "async/bulk", "round 0: failed"),
    )
    text = "\n".join(report_lines(results, {"round_trip.png"}))
    assert "| machine | 2 cores, A CPU, 4.0 GiB, Linux |" in text
    assert "| Huey | huey 1.0 |" in text
    assert "- noop, 2 at a time: Two processes. `serve app`" in text
    assert "- Huey, everything: not installed: no wheel" in text
    assert "- prefect_lite, A async/bulk: round 0: failed" in text
    assert "![Round trip](round_trip.png)" in text
    assert "## A. " not in text


def test_nothing_measured_at_all(tmp_path: Path) -> None:
    results = results_of(peers=())
    make_report(results, tmp_path)
    assert "Nothing." in (tmp_path / "results.md").read_text()
    assert not list(tmp_path.glob("*.png"))


def test_the_json_is_the_same_and_has_a_line_per_sample() -> None:
    results = results_of(sample("huey", "A", "sync/bulk", "runs_per_second", 1, 2, 3))
    text = compact_json(results)
    assert json.loads(text) == results
    assert sum('"metric"' in line for line in text.splitlines()) == 3


def test_the_console_shows_every_table_without_the_spread() -> None:
    results = results_of(
        sample("prefect_lite", "B", "sync", "p50_ms", 1.0, 1.2),
        sample("huey", "B", "sync", "p50_ms", 2.0, 2.4),
        skip("huey", "A", "async", "no async [tasks]"),
    )
    out = io.StringIO()
    print_tables(results, Console(file=out, width=120))
    text = out.getvalue()
    assert "2.00x faster " in text
    assert "1.10 ±9%" in text
    assert "skipped: huey A/async: no async [tasks]" in text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12345.6, "12,346"), (45.67, "45.7"), (1.5, "1.50"), (0.01234, "0.0123")]
)
def test_amounts_have_three_digits(value: float, text: str) -> None:
    assert amount(value) == text


def test_a_single_round_has_no_spread() -> None:
    assert spread(figure_of({0: 2.0})) == brief(figure_of({0: 2.0})) == "2.00"


def test_plots_are_drawn_where_there_are_samples(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="in the group of the benchmarks")
    results = results_of(
        sample("prefect_lite", "A", "sync/bulk", "runs_per_second", 10000, 12000),
        sample("huey", "A", "sync/bulk", "runs_per_second", 0.0),
        sample("prefect_lite", "B", "sync", "p50_ms", 1.0),
        sample("huey", "B", "sync", "p50_ms", 1.1),
        sample("prefect_lite", "E", "noop", "cpu_total", 0.0),
        sample("prefect_lite", "F", "queue 10", "runs_per_second", 10000),
        sample("prefect_lite", "F", "fsync no", "runs_per_second", 10000, 11000),
    )
    make_report(results, tmp_path)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"throughput.png", "round_trip.png", "cpu.png", "growth.png"}
    assert all(path.stat().st_size < 150_000 for path in tmp_path.glob("*.png"))
    assert "payloads.png" not in (tmp_path / "results.md").read_text()
