"""Worker processes: the same work with 1 to 4 of them."""

from __future__ import annotations

from .loads import bulk_rate, warm_up
from .recorder import Recorder
from .site import Site

COUNTS = (1, 2, 4)
RUNS = 20_000
NOTE = "two cores for all processes"


def measure(recorder: Recorder, scale: float) -> None:
    """Workers are added from count to count."""
    variants = {count: f"workers {count}" for count in COUNTS}
    runs = max(500, round(RUNS * scale))
    with recorder.attempt(*variants.values()), Site() as site:
        site.start_broker()
        client = site.start_client()
        started = 0
        for count, variant in variants.items():
            with recorder.attempt(variant):
                while started < count:
                    site.start_worker()
                    started += 1
                warm_up(client, "async_noop", "sync_noop")
                with recorder.measuring() as take:
                    take(variant, "runs_per_second", bulk_rate(client, "async_noop", runs), "1/s", runs, NOTE)
                    rate = bulk_rate(client, "sync_noop", runs)
                    take(variant, "sync_runs_per_second", rate, "1/s", runs, NOTE)
