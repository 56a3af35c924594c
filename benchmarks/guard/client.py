"""The client: from a call to a durable run, in the caller's thread and the one of the connection."""

from __future__ import annotations

from benchmarks.guard.deployment import CLIENT, Deployment
from benchmarks.guard.figures import ROUNDS, WARM_UPS, Figures, Samples
from benchmarks.guard.seams import seam

GROUP = "client"
MAPPED = 50


def measure(deployment: Deployment) -> Figures:
    """``delay`` and ``map(deferred=True)`` of 50, until the broker's word has come."""
    samples = Samples(GROUP)
    task = seam("benchmarks.guard.tasks", "held")
    for _ in range(WARM_UPS + ROUNDS):
        done = deployment.perform(lambda: task.delay(1))
        samples.add_counts("delay", done.counts[CLIENT])
        done = deployment.perform(lambda: task.map(range(MAPPED), deferred=True))
        samples.add_counts(f"map of {MAPPED}", done.counts[CLIENT])
    return samples.figures()
