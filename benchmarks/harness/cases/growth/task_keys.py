"""Task keys: the same number of runs spread over 1 to 500 task keys of one worker."""

from __future__ import annotations

from .recorder import Recorder
from .site import ANSWER_SECONDS, Site

COUNTS = (1, 50, 500)
RUNS = 10_000
REPEATS = 2


def measure(recorder: Recorder, scale: float) -> None:
    """Each number of keys with a worker of its own, on one broker."""
    variants = {keys: f"keys {keys}" for keys in COUNTS}
    runs = max(1_000, round(RUNS * scale))
    with recorder.attempt(*variants.values()), Site() as site:
        site.start_broker()
        client = site.start_client()
        for keys, variant in variants.items():
            with recorder.attempt(variant):
                worker = site.start_worker(keys=keys)
                client.call(ANSWER_SECONDS, do="burst_keys", keys=keys, count=max(1_000, runs // 4))
                with recorder.measuring() as take:
                    seconds = sum(
                        client.call(ANSWER_SECONDS, do="burst_keys", keys=keys, count=runs)["total_seconds"]
                        for _ in range(REPEATS)
                    )
                    note = "delay() inside batch(), keys in turn"
                    take(variant, "runs_per_second", REPEATS * runs / seconds, "1/s", REPEATS * runs, note)
                worker.end()
