"""Measure prefect_lite and its peers with the same work, and write the report.

Usage: python benchmarks/bench.py [--quick] [--rounds 3] [--peers a,b] [--cases A,B] [--seconds 2.0]
[--out DIR] [--resume FILE] [--report FILE]; see ``--help``.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from harness.peers import peer_names  # noqa: E402
from harness.plan import Plan  # noqa: E402
from harness.report import make_report  # noqa: E402
from harness.run import run  # noqa: E402
from harness.scratch import interruptible  # noqa: E402
from harness.tables import print_tables  # noqa: E402

ALL_CASES = "A,B,C,D,E,F,G"
LOG_WIDTH = 120
QUICK_CASES = "A,B,E"
QUICK_PEERS = "prefect_lite,huey,dramatiq"
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs" / "performance"


def main(
    quick: Annotated[
        bool,
        typer.Option(envvar="QUICK", help="A, B and E against the two fastest peers, 2 rounds; no report."),
    ] = False,
    rounds: Annotated[int, typer.Option(help="Rounds of everything; 0 means 3, or 2 with --quick.")] = 0,
    peers: Annotated[str, typer.Option(help="Names with commas between; all of them by default.")] = "",
    cases: Annotated[str, typer.Option(help="Letters with commas between; A to G by default.")] = "",
    seconds: Annotated[float, typer.Option(help="What one measurement should take.")] = 2.0,
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes; docs/performance by default.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="The .jsonl of an interrupted run to go on with.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Only make the report anew from this results.json.")
    ] = None,
) -> None:
    """Measure prefect_lite and its peers with the same work, and write the report."""
    directory = out or (RESULTS if quick else DOCS)
    if report is not None:
        make_report(json.loads(report.read_text()), directory)
        return
    started = datetime.datetime.now(datetime.UTC)
    plan = Plan(
        peers=tuple((peers or (QUICK_PEERS if quick else ",".join(peer_names()))).split(",")),
        cases=tuple((cases or (QUICK_CASES if quick else ALL_CASES)).upper().split(",")),
        rounds=rounds or (2 if quick else 3),
        seconds=seconds,
        journal=resume or RESULTS / f"samples-{started:%Y%m%d-%H%M%S}.jsonl",
    )
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    try:
        with interruptible():
            results = run(plan, console)
    except KeyboardInterrupt:
        console.print(f"Interrupted; go on with the same options and --resume {plan.journal}", soft_wrap=True)
        raise typer.Exit(130) from None
    _save(results, directory)
    if not quick:
        make_report(results, directory)
    print_tables(results, console)


def _save(results: dict[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
