"""The figures that were aimed at, and whether this run reached them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.figures import OURS, Figure, Key, Measurements, Rounds, figure_of, ratio

VARIANTS = tuple(f"{kind}/{mode}" for kind in ("async", "sync") for mode in ("bulk", "loop1", "loop8"))
RATES: tuple[Key, ...] = tuple(("A", variant, "runs_per_second") for variant in VARIANTS)
TRIPS: tuple[Key, ...] = (("B", "async", "p50_ms"), ("B", "sync", "p50_ms"))
CPU: Key = ("E", "noop", "cpu_total")
PAYLOAD: Key = ("D", "100kB", "round_trips_per_second")
BARE_RATE: Key = ("G", "", "bare_runs_per_second")
LIMITS = "limits"
"""Who the samples of case G belong to."""

Measure = Callable[[Measurements], Figure | None]


@dataclass(frozen=True)
class Aim:
    """One figure that was aimed at.

    Attributes:
        text: What it is about.
        measure: What this run says; None where it does not.
        bound: The value to reach.
        at_least: Whether more is better; otherwise ``bound`` is not to be exceeded.
        unit: Of the bound.
    """

    text: str
    measure: Measure
    bound: float
    at_least: bool
    unit: str = "x"

    @property
    def wanted(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g} {self.unit}"

    def is_met(self, figure: Figure) -> bool:
        """By the median of the rounds."""
        return figure.median >= self.bound if self.at_least else figure.median <= self.bound


def _against_best(
    ours: Key, theirs: Iterable[Key], choose: Callable[[Iterable[float]], float], name: str = ""
) -> Measure:
    """Ours by the best of the peers in the same round, whichever of them that is; or by ``name`` alone."""
    keys = list(theirs)

    def measure(found: Measurements) -> Figure | None:
        peers = [name] if name else [peer for peer in found.peers(keys[0][0]) if peer not in (OURS, LIMITS)]
        best: Rounds = {}
        for peer in peers:
            for number, value in found.best(peer, keys, choose).items():
                best[number] = choose([best.get(number, value), value])
        return ratio(found.rounds(OURS, ours), best, found.is_noisy(OURS, [ours]))

    return measure


def _plain(key: Key) -> Measure:
    return lambda found: found.figure(OURS, key)


def _of_own(above: Key, below: Key) -> Measure:
    def measure(found: Measurements) -> Figure | None:
        return ratio(
            found.rounds(OURS, above), found.rounds(OURS, below), found.is_noisy(OURS, [above, below])
        )

    return measure


def _worst_sleep(found: Measurements) -> Figure | None:
    """Of the kinds of tasks the slower one."""
    keys = [key for key in found.keys(OURS, "C") if key[1].startswith("1000@100")]
    rounds = found.best(OURS, keys, max)
    return figure_of(rounds, found.is_noisy(OURS, keys)) if rounds else None


AIMS: tuple[Aim, ...] = (
    *(
        Aim(f"A: bulk, {kind} tasks, against the fastest call of the fastest peer", measure, 5, True)
        for kind in ("async", "sync")
        for measure in [_against_best(("A", f"{kind}/bulk", "runs_per_second"), RATES, max)]
    ),
    *(
        Aim(f"A: bulk, {kind} tasks, against the bare path", measure, 0.5, True)
        for kind in ("async", "sync")
        for measure in [_against_best(("A", f"{kind}/bulk", "runs_per_second"), [BARE_RATE], max, LIMITS)]
    ),
    *(
        Aim(f"B: round trip p50, {kind} tasks, against the fastest peer", measure, 1.0, False)
        for kind in ("async", "sync")
        for measure in [_against_best(("B", kind, "p50_ms"), TRIPS, min)]
    ),
    Aim("E: CPU per run, against the leanest peer", _against_best(CPU, [CPU], min), 0.25, False),
    Aim("C: 1,000 sleeps of 0.1 s at 100, the slower kind of tasks", _worst_sleep, 1.15, False, "s"),
    Aim("C: 10,000 sleeps of 0.1 s at 1,000", _plain(("C", "10000@1000", "seconds")), 1.3, False, "s"),
    Aim(
        "D: 100 kB there and back, against the fastest peer",
        _against_best(PAYLOAD, [PAYLOAD], max),
        1.0,
        True,
    ),
    Aim("D: longest no-op round trip beside 10 MB", _plain(("D", "beside 10MB", "max_ms")), 250, False, "ms"),
    Aim(
        "F: rate with 1,000,000 pending runs, against 1,000",
        _of_own(("F", "queue 1000000", "runs_per_second"), ("F", "queue 1000", "runs_per_second")),
        0.9,
        True,
    ),
    Aim(
        "F: Redis memory of a pending run of 200 bytes",
        _plain(("F", "queue 1000000", "redis_bytes_per_run")),
        700,
        False,
        "B",
    ),
)
