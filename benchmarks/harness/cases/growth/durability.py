"""Durability: what ``appendfsync`` no, everysec and always cost."""

from __future__ import annotations

from .loads import bulk_rate, trips_ms, warm_up
from .recorder import Recorder
from .site import Site

SETTINGS = ("no", "everysec", "always")
RUNS = 20_000
TRIPS = 500


def measure(recorder: Recorder, scale: float) -> None:
    """A Valkey of its own for each setting."""
    runs, trips = max(500, round(RUNS * scale)), max(50, round(TRIPS * scale))
    for setting in SETTINGS:
        variant = f"fsync {setting}"
        with recorder.attempt(variant), Site(appendfsync=setting) as site:
            site.start_broker()
            site.start_worker()
            client = site.start_client()
            warm_up(client, "async_noop")
            with recorder.measuring() as take:
                take(variant, "runs_per_second", bulk_rate(client, "async_noop", runs), "1/s", runs)
                trip_ms, delay_ms = trips_ms(client, trips)
                take(variant, "p50_ms", trip_ms, "ms", trips, "round trip")
                take(variant, "delay_p50_ms", delay_ms, "ms", trips)
