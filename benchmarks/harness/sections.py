"""What the tables of A to E compare, and by which figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.aims import VARIANTS
from harness.figures import Key


@dataclass(frozen=True)
class Section:
    """What one table compares.

    Attributes:
        title: With the unit.
        case: Of A to E.
        columns: Header and key.
        more_is_better: Otherwise less is.
        words: How to call a better and a worse figure.
        keys: What peers are sorted and compared by: the best of these; all columns if empty.
    """

    title: str
    case: str
    columns: tuple[tuple[str, Key], ...]
    more_is_better: bool
    words: tuple[str, str] = ("faster", "slower")
    keys: tuple[Key, ...] = ()

    @property
    def compared(self) -> tuple[Key, ...]:
        return self.keys or tuple(key for _, key in self.columns)

    @property
    def choose(self) -> Callable[[Iterable[float]], float]:
        return max if self.more_is_better else min


def _columns(case: str, metric: str, variants: Iterable[str]) -> tuple[tuple[str, Key], ...]:
    return tuple((variant, (case, variant, metric)) for variant in variants)


def _percentiles(case: str, variant: str, *names: str) -> tuple[tuple[str, Key], ...]:
    return tuple((f"{variant} {name}", (case, variant, f"{name}_ms")) for name in names)


ROLES = ("client", "broker", "worker", "redis")
SECTIONS: tuple[Section, ...] = (
    Section(
        "No-op runs per second, first enqueue to last result",
        "A",
        _columns("A", "runs_per_second", VARIANTS),
        True,
    ),
    Section(
        "Enqueued per second, until the library says that the last one is stored",
        "A",
        _columns("A", "enqueue_per_second", VARIANTS),
        True,
    ),
    Section(
        "Idle round trip, ms",
        "B",
        _percentiles("B", "async", "p50", "p95", "p99") + _percentiles("B", "sync", "p50", "p95", "p99"),
        False,
        keys=(("B", "async", "p50_ms"), ("B", "sync", "p50_ms")),
    ),
    Section(
        "1,000 sleeps of 0.1 s at a concurrency of 100, seconds (ideal: 1.0)",
        "C",
        _columns("C", "seconds", ("1000@100", "1000@100/sync", "1000@100/async")),
        False,
    ),
    Section(
        "10,000 sleeps of 0.1 s at a concurrency of 1,000, seconds (ideal: 1.0)",
        "C",
        _columns("C", "seconds", ("10000@1000",)),
        False,
    ),
    *(
        Section(
            f"{size} there and back, {inflight}",
            "D",
            (
                ("per second", ("D", variant, "round_trips_per_second")),
                ("p50, ms", ("D", variant, "p50_ms")),
            ),
            True,
            keys=(("D", variant, "round_trips_per_second"),),
        )
        for size, variant, inflight in (
            ("1 kB", "1kB", "8 in flight"),
            ("100 kB", "100kB", "8 in flight"),
            ("10 MB", "10MB", "one at a time"),
        )
    ),
    Section(
        "No-op round trips while 10 MB go there and back beside them, ms",
        "D",
        _percentiles("D", "beside 10MB", "p50", "p99", "max"),
        False,
        keys=(("D", "beside 10MB", "max_ms"),),
    ),
    Section(
        "CPU seconds per 1,000 no-op runs, in the peer's fastest variant of A",
        "E",
        tuple((role, ("E", "noop", f"cpu_{role}")) for role in (*ROLES, "total")),
        False,
        ("leaner", "heavier"),
        keys=(("E", "noop", "cpu_total"),),
    ),
    Section(
        "Peak resident memory, MiB (all processes of a role, shared pages counted in each)",
        "E",
        tuple((role, ("E", "noop", f"rss_{role}")) for role in ROLES),
        False,
        ("smaller", "larger"),
        keys=(("E", "noop", "rss_worker"),),
    ),
    Section(
        "Import of what a client needs: the library and the tasks, ms",
        "E",
        (("ms", ("E", "noop", "import_ms")),),
        False,
    ),
    Section(
        "Start of the worker to the end of its first run, ms",
        "E",
        (("ms", ("E", "noop", "first_run_ms")),),
        False,
    ),
)

FAMILIES = {
    "queue": "pending runs",
    "connections": "connections",
    "keys": "task keys",
    "brokers": "brokers",
    "workers": "worker processes",
    "fsync": "appendfsync",
    "fan-in": "parents of one run",
}
"""First word of a variant of F, and what grows there."""
