"""C: many runs that only wait, at a high concurrency."""

from __future__ import annotations

from harness.declaration import Peer
from harness.peer_round import PeerRound

SLEEP_SECONDS = 0.1
TIMEOUT_SECONDS = 90.0
ONCE_SECONDS = 20.0
"""What takes longer is not measured again in later rounds: it is far from the ideal anyway."""
VARIANTS = {"1000@100": ("sleep100", 1000), "10000@1000": ("sleep1000", 10_000)}
"""Variant to layout and number of runs; the name says runs @ concurrency."""


def measure_sleeps(turn: PeerRound) -> None:
    for variant, (layout, count) in VARIANTS.items():
        if layout not in turn.peer.layouts:
            turn.skip("C", variant, turn.peer.skip_reason("C", variant) or f"no layout {layout}")
            continue
        turn.attempt("C", variant, _measure, layout, count, turn.main_kind)
        other = other_kind(turn.peer)
        if other and layout == "sleep100":
            turn.attempt("C", f"{variant}/{other}", _measure, layout, count, other)


def other_kind(peer: Peer) -> str | None:
    """The kind that is measured beside the peer's main one, at the lower concurrency."""
    return next((kind for kind in peer.kinds if kind != peer.kinds[0]), None)


def _measure(turn: PeerRound, variant: str, layout: str, count: int, kind: str) -> None:
    mode = "bulk" if "bulk" in turn.peer.modes else turn.peer.modes[-1]
    request = {"do": "burst", "task": turn.task("nap", kind), "mode": mode}
    turn.measure(layout, request | {"arg": 0.01, "count": turn.peer.layouts[layout].concurrency})
    measured = turn.measure(layout, request | {"arg": SLEEP_SECONDS, "count": count}, TIMEOUT_SECONDS)
    seconds = measured.answer["total_seconds"]
    note = ""
    if seconds > ONCE_SECONDS:
        turn.leave_out("C", variant)
        note = f"measured in one round only, since it takes longer than {ONCE_SECONDS:.0f} s"
    turn.record("C", variant, {"seconds": seconds}, count, measured.conditions, note)
