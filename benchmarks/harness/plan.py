"""What a run is to measure, and about how long that takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.declaration import Peer

FULL_SECONDS = 2.0
"""The length of one measurement at which F and G have their full size."""

GROWTH_SECONDS, LIMITS_SECONDS = 360.0, 15.0
START_SECONDS, SLOW_START_SECONDS = 2.5, 25.0
CALIBRATION_SECONDS = 0.6
SECONDS = {"B": 3.0, "C": 20.0, "D": 8.0, "E": 2.5}
"""Of one peer beside the measurements of which `Plan.seconds` says the length."""
INSTALL_SECONDS = 20.0


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        peers: Names, prefect_lite among them or not.
        cases: Of A to G.
        rounds: How often A to E; ratios are taken inside a round. F and G are measured once, in the first.
        seconds: What one measurement should take.
        journal: Where samples go as they come; what it holds of complete parts is not measured again.
    """

    peers: tuple[str, ...]
    cases: tuple[str, ...]
    rounds: int
    seconds: float
    journal: Path

    @property
    def scale(self) -> float:
        """Of the counts of F and G."""
        return min(1.0, self.seconds / FULL_SECONDS)


def peer_seconds(plan: Plan, peer: Peer) -> float:
    """About how long one round of this peer takes."""
    variants = len(peer.kinds) * len(peer.modes) if {"A", "E"} & set(plan.cases) else 0
    measurements = {"A": variants, "B": len(peer.kinds), "D": 4}
    total = SLOW_START_SECONDS if peer.brokers else START_SECONDS
    for case in plan.cases:
        total += measurements.get(case, 0) * (plan.seconds + CALIBRATION_SECONDS) + SECONDS.get(case, 0.0)
    return total


def plan_lines(plan: Plan, peers: Iterable[Peer], missing: int) -> Iterator[str]:
    """For the console, before anything starts.

    Args:
        plan: What to measure.
        peers: Who takes part.
        missing: How many of them are not installed yet.
    """
    a_round = sum(peer_seconds(plan, peer) for peer in peers)
    once = (GROWTH_SECONDS if "F" in plan.cases else 0.0) * plan.scale
    once += (LIMITS_SECONDS if "G" in plan.cases else 0.0) * plan.scale
    total = a_round * plan.rounds + once + missing * INSTALL_SECONDS
    yield f"cases {','.join(plan.cases)}; {len(plan.peers)} libraries: {', '.join(plan.peers)}"
    yield f"{plan.rounds} rounds of about {a_round / 60:.1f} minutes; F and G once: {once / 60:.1f} minutes"
    if missing:
        yield f"{missing} environments are installed first"
    yield f"about {max(total / 60, 0.1):.1f} minutes in all; samples go to {plan.journal}"
