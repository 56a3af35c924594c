"""One heap for all deadlines of runs, told the time by its caller."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_lite_worker.leases import ActiveRun

EXPIRE, GIVE_UP = "expire", "give up"
"""An attempt's timeout is over; stopped code has had its time to react."""


Entry = tuple[float, int, str, "ActiveRun", int]
SPARE = 1_000


class Deadlines:
    """Entries of runs that have ended meanwhile stay until their time comes, or until they are the most."""

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._count = itertools.count()

    def add(self, when: float, what: str, run: ActiveRun) -> None:
        """Do ``what`` with the current attempt of ``run`` at ``when`` (monotonic seconds)."""
        heapq.heappush(self._heap, (when, next(self._count), what, run, run.attempt))

    def compact(self, active: int, alive: Callable[[ActiveRun], bool]) -> None:
        """Drop what ended runs have left, if that is much. Constant time per ``add``, over many.

        Args:
            active: How many runs are alive; each has two entries that count, at most.
            alive: Whether a run is.
        """
        if len(self._heap) > 2 * active + SPARE:
            self._heap = [entry for entry in self._heap if alive(entry[3]) and _counts(entry)]
            heapq.heapify(self._heap)

    def due(self, now: float) -> list[tuple[str, ActiveRun]]:
        """What is to be done by now, in order of time. Timeouts of attempts that are over are left out."""
        found: list[tuple[str, ActiveRun]] = []
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            if _counts(entry):
                found.append((entry[2], entry[3]))
        return found

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float | None:
        """When the next entry is due."""
        return self._heap[0][0] if self._heap else None


def _counts(entry: Entry) -> bool:
    """Not the timeout of an attempt that is over."""
    _, _, what, run, attempt = entry
    return what is GIVE_UP or run.attempt == attempt
