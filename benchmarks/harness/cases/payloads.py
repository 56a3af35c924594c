"""D: texts there and back, and how long a large one holds up the small ones beside it."""

from __future__ import annotations

from harness.peer_round import PeerRound, clamp, latencies_ms

SIZES = {"1kB": (1_000, 8), "100kB": (100_000, 8), "10MB": (10_000_000, 1)}
"""Variant to bytes and round trips in flight."""

BESIDE = "beside 10MB"
FEWEST = 3
MOST = 5000


def measure_payloads(turn: PeerRound) -> None:
    for variant in SIZES:
        turn.attempt("D", variant, _measure)
    turn.attempt("D", BESIDE, _measure_beside)


def _measure(turn: PeerRound, variant: str) -> None:
    size, inflight = SIZES[variant]
    request = {"do": "payload", "task": turn.task("echo"), "size": size, "inflight": inflight}
    rate = 1.0
    for tried in (inflight, inflight * 8) if inflight > 1 else (1,):
        rate = tried / turn.measure("noop", request | {"count": tried}).answer["total_seconds"]
        if tried > rate * turn.seconds:
            break  # slow enough to be measured well already
    count = clamp(rate * turn.seconds, FEWEST, MOST)
    measured = turn.measure("noop", request | {"count": count})
    values = {"round_trips_per_second": count / measured.answer["total_seconds"]}
    values |= latencies_ms(measured.answer["seconds"], "p50_ms")
    turn.record("D", variant, values, count, measured.conditions)


def _measure_beside(turn: PeerRound, variant: str) -> None:
    request = {
        "do": "beside",
        "task": turn.task("noop"),
        "payload_task": turn.task("echo"),
        "size": SIZES["10MB"][0],
    }
    first = turn.measure("noop", request | {"count": 1}).answer["payload_seconds"][0]
    measured = turn.measure("noop", request | {"count": clamp(turn.seconds / first, FEWEST, 20)})
    seconds = measured.answer["round_trip_seconds"]
    values = latencies_ms(seconds, "p50_ms", "p99_ms", "max_ms")
    turn.record("D", variant, values, len(seconds), measured.conditions)
