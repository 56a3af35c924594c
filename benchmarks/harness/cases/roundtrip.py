"""B: the time of one no-op run on an idle system, one after the other."""

from __future__ import annotations

from harness.peer_round import PeerRound, clamp, latencies_ms

ROUND_TRIPS = 1000
FEWEST = 10
WARM_UP = 30
PATIENCE = 3.0
"""A slow peer makes fewer round trips: what fits into this many times the length of a measurement."""


def measure_round_trips(turn: PeerRound) -> None:
    for kind in ("async", "sync"):
        if kind not in turn.peer.kinds:
            turn.skip("B", kind, turn.peer.skip_reason("B", kind) or f"no {kind} tasks")
            continue
        turn.attempt("B", kind, _measure)


def _measure(turn: PeerRound, kind: str) -> None:
    layout = "roundtrip" if "roundtrip" in turn.peer.layouts else "noop"
    request = {"do": "round_trips", "task": turn.task("noop", kind)}
    first = turn.measure(layout, request | {"count": 3}).answer["seconds"]
    warm = first if sum(first) > 1 else turn.measure(layout, request | {"count": WARM_UP}).answer["seconds"]
    budget = PATIENCE * turn.seconds
    count = clamp(budget / (sum(warm) / len(warm)), FEWEST, min(ROUND_TRIPS, int(ROUND_TRIPS * turn.seconds)))
    measured = turn.measure(layout, request | {"count": count})
    values = latencies_ms(measured.answer["seconds"], "p50_ms", "p95_ms", "p99_ms")
    turn.record("B", kind, values, count, measured.conditions)
