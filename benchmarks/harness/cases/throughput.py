"""A: no-op runs per second, enqueue alone and to the last result, per kind of task and way of enqueuing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.peer_round import MAX_COUNT, PeerRound, clamp
from harness.session import Measured

FEWEST = 3
ESTIMATE_SECONDS = 0.15
"""A batch shorter than this says little about the rate."""


@dataclass(frozen=True)
class Throughput:
    """One variant's rate, and the CPU seconds by role that it took."""

    variant: str
    runs_per_second: float
    measured: Measured

    @property
    def count(self) -> int:
        return self.measured.answer["count"]


def measure_throughput(turn: PeerRound) -> list[Throughput]:
    """Measure all variants; returns those that worked."""
    results: list[Throughput] = []
    for kind in ("async", "sync"):
        if kind not in turn.peer.kinds:
            turn.skip("A", kind, turn.peer.skip_reason("A", kind) or f"no {kind} tasks")
            continue
        for mode in ("bulk", "loop1", "loop8"):
            variant = f"{kind}/{mode}"
            if mode in turn.peer.modes or turn.peer.skip_reason("A", variant):
                turn.attempt("A", variant, _measure, kind, mode, results)
            else:
                turn.skip("A", variant, "no such call")
    return results


def _measure(turn: PeerRound, variant: str, kind: str, mode: str, results: list[Throughput]) -> None:
    request = {"do": "throughput", "task": turn.task("noop", kind), "mode": mode}
    count = clamp(estimate_rate(turn, request) * turn.seconds, FEWEST, MAX_COUNT)
    measured = turn.measure("noop", request | {"count": count})
    answer = measured.answer
    rates = {
        "runs_per_second": count / answer["total_seconds"],
        "enqueue_per_second": count / answer["enqueue_seconds"],
    }
    turn.record("A", variant, rates, count, measured.conditions)
    results.append(Throughput(variant, rates["runs_per_second"], measured))


def estimate_rate(turn: PeerRound, request: dict[str, Any]) -> float:
    """Runs per second of short batches that grow; they also warm the peer up."""
    rate = turn.peer.pace * 1000
    seconds = 0.1
    for _ in range(3):
        count = clamp(rate * seconds, FEWEST, MAX_COUNT)
        total = turn.measure("noop", request | {"count": count}).answer["total_seconds"]
        rate = count / total
        if total >= ESTIMATE_SECONDS:
            break
        seconds = min(0.3, turn.seconds)
    return rate
