"""Run small programs under Prefect and under prefect_lite and show where they differ.

Usage: python tools/compare_with_prefect --prefect PYTHON [--lite PYTHON] [NAME...]; see ``--help``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from differences import Difference, deliberate, differences, reason_of
from outcomes import Kept, outcomes, version_of
from sources import FOLDER, all_programs, chosen, translate
from tables import table

CACHE = Path("~/.cache/prefect-lite/compare_with_prefect").expanduser()


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Programs (flow.retries) or groups (flow); all by default."),
    ] = None,
    prefect: Annotated[
        str | None,
        typer.Option(
            envvar="COMPARE_PREFECT",
            metavar="PYTHON",
            help="An interpreter with Prefect. Not needed for programs whose outcomes are kept.",
        ),
    ] = None,
    lite: Annotated[
        str,
        typer.Option(
            envvar="COMPARE_LITE",
            metavar="PYTHON",
            help="One with prefect_lite; by default the one that runs this.",
        ),
    ] = sys.executable,
    cache: Annotated[
        Path,
        typer.Option(
            envvar="COMPARE_CACHE", help="Where Prefect's outcomes and its home are kept.", file_okay=False
        ),
    ] = CACHE,
    again: Annotated[bool, typer.Option("--again", help="Run under Prefect also what is kept.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Show the deliberate differences too, with their reasons.")
    ] = False,
    words: Annotated[
        bool, typer.Option("--words", help="Show messages that are worded differently too.")
    ] = False,
    counts: Annotated[
        bool, typer.Option("--table", help="Show only counts, as the table of docs/prefect-compat.md.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Only list the names of the programs.")] = False,
) -> None:
    """Run small programs under Prefect and under prefect_lite and show where what they see differs.

    Differences with a reason in deliberate.toml are only counted.
    Exit code: 0 if there are no others, 1 if there are, 2 if it could not be compared.

    Prefect needs minutes for all programs, so its outcomes are kept, for each of its versions.
    A program that was changed since then runs anew.

    Examples:

      python tools/compare_with_prefect --prefect ~/prefect/bin/python flow.retries

      COMPARE_PREFECT=~/prefect/bin/python python tools/compare_with_prefect --words retry timeout
    """
    programs = all_programs()
    try:
        wanted = chosen(names or [], programs)
        if show:
            print("\n".join(wanted))
            return
        kept = _kept(prefect, cache)
        with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
            _fill(kept, {name: programs[name] for name in wanted}, prefect, again, cache, Path(scratch))
            version = version_of(lite, "prefect-lite")
            seen = _under_lite(lite, wanted, Path(scratch))
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        raise typer.Exit(2) from None
    theirs = {name: kept.get(name, programs[name])["saw"] for name in wanted}
    reasons = deliberate()
    compared = [
        (difference, reason_of(difference, reasons))
        for name, saw in theirs.items()
        for difference in differences(name, saw, seen[name])
    ]
    if counts:
        versions = f"Prefect {kept.path.stem.removeprefix('prefect-')} and prefect_lite {version}"
        raise typer.Exit(_count(versions, wanted, compared))
    raise typer.Exit(_report(wanted, compared, every, words))


def _kept(prefect: str | None, cache: Path) -> Kept:
    """What is kept for the version of the interpreter; without an interpreter, what was kept last."""
    if prefect is not None:
        return Kept(cache / f"prefect-{version_of(prefect, 'prefect')}.jsonl")
    found = sorted(cache.glob("prefect-*.jsonl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise LookupError(f"Nothing is kept in {cache} yet: give --prefect an interpreter that has Prefect.")
    return Kept(found[-1])


def _fill(
    kept: Kept, wanted: dict[str, str], prefect: str | None, again: bool, cache: Path, scratch: Path
) -> None:
    """Run under Prefect what isn't kept."""
    missing = [name for name, digest in wanted.items() if again or kept.get(name, digest) is None]
    if not missing:
        return
    if prefect is None:
        raise LookupError(f"Not kept: {', '.join(missing)}. Give --prefect an interpreter that has Prefect.")
    print(f"{len(missing)} programs under Prefect; log: {scratch / 'log'}", file=sys.stderr)
    home = cache.resolve() / "home"
    home.mkdir(parents=True, exist_ok=True)
    try:
        for name, saw in outcomes(prefect, FOLDER, missing, scratch, PREFECT_HOME=str(home)):
            kept.add(name, wanted[name], saw)
    finally:
        kept.save()


def _under_lite(lite: str, wanted: list[str], scratch: Path) -> dict[str, object]:
    print(f"{len(wanted)} programs under prefect_lite", file=sys.stderr)
    translated = scratch / "translated"
    translate(translated)
    variables = {
        "PREFECT_LITE_HOME": str(scratch / "home"),
        "PREFECT_LITE_RUNTIME_DIR": str(scratch / "run"),
    }
    return dict(outcomes(lite, translated, wanted, scratch, **variables))


def _count(versions: str, wanted: list[str], compared: list[tuple[Difference, str | None]]) -> int:
    """Print the counts of programs that differ, whatever the words."""
    real = [(difference.program, known) for difference, known in compared if not difference.only_words]
    others = {program for program, known in real if known is None}
    explained = {program for program, _ in real} - others
    print(table(versions, wanted, explained, others))
    return 1 if others else 0


def _report(
    wanted: list[str], compared: list[tuple[Difference, str | None]], every: bool, words: bool
) -> int:
    """Print the differences, and the reasons that don't hold any longer."""
    reasons = deliberate()
    unexplained, explained = 0, set[str]()
    for difference, known in compared:
        if difference.only_words:
            if words:
                print(f"{difference}\n")
        elif known is None:
            unexplained += 1
            print(f"{difference}\n")
        else:
            explained.add(known)
            if every:
                print(f"{difference}\n    wanted:  {reasons[known]}\n")
    stale = [place for place in reasons if place.partition("[")[0] in wanted and place not in explained]
    for place in stale:
        print(f"{place} does not differ: deliberate.toml says it does\n")
    print(f"{len(wanted)} programs: {unexplained} differences, {len(explained)} more that are wanted")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    typer.run(main)
