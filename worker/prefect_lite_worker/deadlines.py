"""One heap for all deadlines of runs, told the time by its caller."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_lite_worker.leases import ActiveRun

EXPIRE, GIVE_UP = "expire", "give up"
"""An attempt's timeout is over; stopped code has had its time to react."""


class Deadlines:
    """Entries of runs that have ended meanwhile are dropped when their time comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, ActiveRun, int]] = []
        self._count = itertools.count()

    def add(self, when: float, what: str, run: ActiveRun) -> None:
        """Do ``what`` with the current attempt of ``run`` at ``when`` (monotonic seconds)."""
        heapq.heappush(self._heap, (when, next(self._count), what, run, run.attempt))

    def due(self, now: float) -> list[tuple[str, ActiveRun]]:
        """What is to be done by now, in order of time. Timeouts of attempts that are over are left out."""
        found: list[tuple[str, ActiveRun]] = []
        while self._heap and self._heap[0][0] <= now:
            _, _, what, run, attempt = heapq.heappop(self._heap)
            if what is GIVE_UP or run.attempt == attempt:
                found.append((what, run))
        return found

    @property
    def next(self) -> float | None:
        """When the next entry is due."""
        return self._heap[0][0] if self._heap else None
