"""Connections: the same work beside 1 to 5,000 idle clients of one broker."""

from __future__ import annotations

from .loads import bulk_rate, trips_ms, warm_up
from .recorder import Recorder
from .site import Site

COUNTS = (1, 100, 1_000, 5_000)
RUNS = 20_000
TRIPS = 500
MIN_FOR_KIB = 1_000
"""Fewer find room in what the broker has allocated before."""


def measure(recorder: Recorder, scale: float) -> None:
    """The crowd grows from count to count; the one client that works is not part of it."""
    variants = {count: f"connections {count}" for count in COUNTS}
    runs, trips = max(500, round(RUNS * scale)), max(50, round(TRIPS * scale))
    with recorder.attempt(*variants.values()), Site(max_connections=20_000) as site:
        site.start_broker()
        site.start_worker()
        client = site.start_client()
        warm_up(client, "async_noop")
        bulk_rate(client, "async_noop", runs)  # the broker's memory reaches its working size
        bare_kib, opened = site.broker_kib(), 0
        for count, variant in variants.items():
            with recorder.attempt(variant), recorder.measuring() as take:
                wanted = max(1, round(count * scale))
                if wanted > opened:
                    site.start_crowd(wanted - opened)
                    opened = wanted
                kib = (site.broker_kib() - bare_kib) / opened
                take(variant, "runs_per_second", bulk_rate(client, "async_noop", runs), "1/s", runs)
                take(variant, "p50_ms", trips_ms(client, trips)[0], "ms", trips, "round trip")
                if opened >= MIN_FOR_KIB:
                    take(variant, "broker_kib_per_connection", kib, "KiB", opened, "resident memory")
