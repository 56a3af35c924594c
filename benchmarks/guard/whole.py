"""One whole run in this process: ``delay().result()`` through client, broker, Valkey and worker."""

from __future__ import annotations

from benchmarks.guard.counting import total
from benchmarks.guard.deployment import ROLES, Deployment, Performed
from benchmarks.guard.figures import TURNS, WARM_UPS, Figures, Samples
from benchmarks.guard.seams import seam
from benchmarks.guard.stillness import PATIENCE_SECONDS

GROUP = "whole run"
ROUNDS = 7
"""More than elsewhere: on a machine under load a caller is woken early or late now and then."""


def measure(deployment: Deployment) -> Figures:
    """A round trip of a function and of a coroutine on an idle system."""
    samples = Samples(GROUP)
    for _ in range(WARM_UPS + ROUNDS):
        for kind in ("function", "coroutine"):
            _add(samples, kind, _round_trip(deployment, kind))
    return samples.figures()


def _round_trip(deployment: Deployment, kind: str) -> Performed:
    task = seam("benchmarks.guard.tasks", kind)
    values: list[int] = []
    done = deployment.perform(lambda: values.append(task.delay(7).result(timeout=PATIENCE_SECONDS)))
    assert values == [7]
    return done


def _add(samples: Samples, kind: str, done: Performed) -> None:
    for role in ROLES:
        samples.add_counts(f"{kind}, {role}", done.counts[role])
    samples.add_counts(f"{kind}, all", total(done.counts.values()))
    samples.add(kind, TURNS, sum(done.turns.values()))
    samples.add(kind, "Redis commands", done.redis.commands)
    samples.add(kind, "bytes to Redis", done.redis.bytes_in)
    samples.add(kind, "bytes from Redis", done.redis.bytes_out)
