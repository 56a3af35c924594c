"""What several axes ask of a client process."""

from __future__ import annotations

from statistics import median

from .process import Started
from .site import ANSWER_SECONDS

WARM_RUNS = 2_000
WARM_TRIPS = 100


def warm_up(client: Started, *tasks: str) -> None:
    """Connections, caches and code paths as they are in a process that runs for long."""
    for task in tasks:
        client.call(ANSWER_SECONDS, do="burst", task=task, count=WARM_RUNS)
    client.call(ANSWER_SECONDS, do="round_trips", count=WARM_TRIPS)


def bulk_rate(client: Started, task: str, count: int) -> float:
    """Runs per second of ``map(deferred=True)``, first submit to last result."""
    answer = client.call(ANSWER_SECONDS, do="burst", task=task, count=count)
    return count / answer["total_seconds"]


def trips_ms(client: Started, count: int) -> tuple[float, float]:
    """p50 of ``delay().result()`` one after the other and of its ``delay()``, in milliseconds."""
    answer = client.call(ANSWER_SECONDS, do="round_trips", count=count)
    return median(answer["seconds"]) * 1e3, median(answer["delay_seconds"]) * 1e3
