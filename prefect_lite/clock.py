"""The one clock of this process: what time it is, and how to wait until later.

Records, retry delays of direct calls, expiry and delays of eager runs ask here, so that a test replaces the
clock once (``prefect_lite.testing.frozen_clock``) and none of them waits. Leases, timeouts of running code
and connections don't: they measure the real world, whatever a test pretends.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The system's time. A replacement overrides all of it: code that sleeps also looks at the time."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()

    def now(self) -> datetime:
        """The time of day, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment, never going back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block this thread for so many seconds."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Let other coroutines run for so many seconds."""
        import asyncio  # late: defining a task needs no loop

        await asyncio.sleep(seconds)


_clock = Clock()


def replace(clock: Clock) -> Clock:
    """Use another clock from now on, in all threads of this process.

    Returns:
        The one before, to be put back.
    """
    global _clock
    before, _clock = _clock, clock
    return before


def current() -> Clock:
    """The clock in use."""
    return _clock


def time_ns() -> int:
    """Nanoseconds since 1970-01-01 UTC."""
    return _clock.time_ns()


def now() -> datetime:
    """The time of day, aware, in UTC."""
    return _clock.now()


def monotonic() -> float:
    """Seconds since some moment, never going back."""
    return _clock.monotonic()


def sleep(seconds: float) -> None:
    """Block this thread for so many seconds."""
    _clock.sleep(seconds)


async def asleep(seconds: float) -> None:
    """Let other coroutines run for so many seconds."""
    await _clock.asleep(seconds)
