"""The counts of a comparison as a table, for the page that tells users about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime


def table(versions: str, programs: Collection[str], wanted: set[str], other: set[str]) -> str:
    """Programs by group in Markdown, with the versions and the day.

    Args:
        versions: what was compared, in words.
        programs: names of all that ran.
        wanted: those of them whose differences all have a reason.
        other: those with a difference that has none.
    """
    lines = [
        f"{versions}, {datetime.now(UTC).date().isoformat()}",
        "",
        "| group | programs | same | differ on purpose | differ otherwise |",
        "|---|---|---|---|---|",
    ]
    for group, count in (_by_group(programs) | {"all": len(programs)}).items():
        each = [len(chosen) if group == "all" else _by_group(chosen)[group] for chosen in (wanted, other)]
        lines.append(f"| {group} | {count} | {count - sum(each)} | {each[0]} | {each[1]} |")
    return "\n".join(lines)


def _by_group(programs: Collection[str]) -> Counter[str]:
    return Counter(program.partition(".")[0] for program in sorted(programs))
