"""Fan-in: one run that takes the results of 10,000 others as its argument."""

from __future__ import annotations

from statistics import median

from .loads import warm_up
from .recorder import Recorder
from .site import ANSWER_SECONDS, Site

PARENTS = 10_000
REPEATS = 3
VARIANT = f"fan-in {PARENTS}"


def measure(recorder: Recorder, scale: float) -> None:
    """From the first submit to the result of the child."""
    parents = max(100, round(PARENTS * scale))
    with recorder.attempt(VARIANT), Site() as site:
        site.start_broker()
        site.start_worker()
        client = site.start_client()
        warm_up(client, "async_noop")
        client.call(ANSWER_SECONDS, do="fan_in", count=max(100, parents // 10))
        with recorder.measuring() as take:
            seconds = median(
                client.call(ANSWER_SECONDS, do="fan_in", count=parents)["total_seconds"]
                for _ in range(REPEATS)
            )
            take(VARIANT, "seconds", seconds, "s", parents, "first submit to the child's result")
