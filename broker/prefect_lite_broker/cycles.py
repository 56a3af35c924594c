"""Finds runs that wait for themselves by way of others.

Ids are chosen by clients, so a program can name a run before it submits it and have two wait for each other.
All of them are known, so none would ever be given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

MOST_STEPS = 1_000
"""Runs looked at for one that is suspected; a longer cycle is not found."""

Waits = tuple[int, list[str]]
"""When a blocked run was submitted (ms), and what it waits for."""


class Reader(Protocol):
    async def waits(self, run_ids: Sequence[str], *, times_only: bool = False) -> Mapping[str, Waits]:
        """Of these the blocked ones; with ``times_only`` without what they wait for."""
        ...


async def find_cycles(reader: Reader, run_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Which of these runs wait for themselves.

    In every cycle there is a run that waits for one submitted no earlier than itself; only from such a pair
    is the way followed. (Two servers' clocks may differ: going round, the times can't fall all the way.)

    Returns:
        Such a run and, of those it waits for, the one that waits for it, each.
    """
    known = dict(await reader.waits(run_ids))
    parents = _new({parent for _, ids in known.values() for parent in ids}, known)
    # Their own parents only if need be: in layers that wait for all of the layer before, these are legion.
    known.update(await reader.waits(parents, times_only=True))
    found: list[tuple[str, str]] = []
    for run_id in run_ids:
        submitted, ids = known.get(run_id, (0, []))
        for parent in ids:
            if parent in known and known[parent][0] >= submitted and await _leads_to(reader, parent, run_id):
                found.append((run_id, parent))
                break
    return found


async def _leads_to(reader: Reader, start: str, goal: str) -> bool:
    seen: dict[str, Waits] = {}
    ahead = [start]
    while ahead and len(seen) < MOST_STEPS:
        if goal in ahead:
            return True
        level = await reader.waits(ahead)
        seen.update(dict.fromkeys(ahead, (0, [])))
        ahead = _new({parent for _, ids in level.values() for parent in ids}, seen)
    return False


def _new(run_ids: Iterable[str], known: Mapping[str, Waits]) -> list[str]:
    return [run_id for run_id in run_ids if run_id not in known]
