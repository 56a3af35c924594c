"""Brokers: the same clients and workers spread over 1 to 3 brokers on one Redis."""

from __future__ import annotations

import time

from .loads import trips_ms, warm_up
from .recorder import Recorder
from .site import ANSWER_SECONDS, Site

COUNTS = (1, 2, 3)
CLIENTS = 3
"""And as many workers: the same processes for every number of brokers."""
RUNS = 6_000
"""Of each client."""
TRIPS = 500
NOTE = "3 clients and 3 workers on two cores: no growth is to be expected here, only little loss"


def measure(recorder: Recorder, scale: float) -> None:
    """Every client's runs may be executed by the workers of every broker."""
    for count in COUNTS:
        variant = f"brokers {count}"
        with recorder.attempt(variant):
            _measure_one(recorder, variant, count, scale)


def _measure_one(recorder: Recorder, variant: str, brokers: int, scale: float) -> None:
    runs, trips = max(300, round(RUNS * scale)), max(50, round(TRIPS * scale))
    with Site() as site:
        for _ in range(brokers):
            site.start_broker()
        for number in range(CLIENTS):
            site.start_worker(broker=number % brokers)
        clients = [site.start_client(broker=number % brokers) for number in range(CLIENTS)]
        for client in clients:
            warm_up(client, "async_noop")
        with recorder.measuring() as take:
            started = time.perf_counter()
            for client in clients:
                client.ask(do="burst", task="async_noop", count=runs)
            for client in clients:
                client.answer(ANSWER_SECONDS)
            seconds = time.perf_counter() - started
            take(variant, "runs_per_second", CLIENTS * runs / seconds, "1/s", CLIENTS * runs, NOTE)
            take(variant, "p50_ms", trips_ms(clients[0], trips)[0], "ms", trips, "round trip of one client")
