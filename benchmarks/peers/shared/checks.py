"""Every value of every run is compared with what was sent."""

from __future__ import annotations

import random

PROBE_SECONDS = 0.2
PATIENCE = 60.0
"""Seconds until a measurement whose request names no timeout is given up."""


def check_values(values, expected):
    """Raises ValueError unless each run gave back its own argument."""
    if len(values) != len(expected):
        raise ValueError(f"{len(expected)} runs gave {len(values)} results")
    for position, (value, wanted) in enumerate(zip(values, expected, strict=True)):
        if value != wanted:
            raise ValueError(f"run {position} gave {str(value)[:80]!r} instead of {str(wanted)[:80]!r}")


def too_late(reached, count, timeout):
    return TimeoutError(f"about {reached} of {count} results were there after {timeout:.0f} s")


def check_value(value, expected):
    check_values([value], [expected])


def text_of(size):
    """ASCII text of that many bytes that does not compress to nothing; the same in every process."""
    return random.Random(size).randbytes((size + 1) // 2).hex()[:size]


def slices(args, parts):
    """The arguments dealt out to this many senders, as evenly as they go."""
    return [args[start::parts] for start in range(parts)]
