"""Clocks to put in the place of the process's one: see ``prefect_lite.clock``."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from prefect_lite import clock
from prefect_lite.exceptions import ConfigurationError

NANOSECONDS = 1_000_000_000
MAX_ADVANCE_SECONDS = 1e9
"""Some 31 years at once."""


def check_advance(seconds: Any) -> None:
    """Raises: ConfigurationError: Time can't go on by this."""
    if not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_ADVANCE_SECONDS:
        raise ConfigurationError(
            f"Time goes forward only, by {MAX_ADVANCE_SECONDS:,.0f} seconds at most, not by {seconds!r}."
        )


class AdjustableClock(clock.Clock):
    """A clock that goes forward when it is told to."""

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once.

        Raises:
            ConfigurationError: It is no number of seconds, or negative.
        """


class FakeClock(AdjustableClock):
    """Time stands still; whoever sleeps moves it on and goes on at once. Safe to use from many threads.

    Args:
        start: What time it is at first, aware; by default the real one.

    Raises:
        ConfigurationError: ``start`` is naive, or no datetime.

    Attributes:
        slept: The seconds of every sleep so far, in order: the delays of retries, for example.
    """

    def __init__(self, start: datetime | None = None) -> None:
        if start is not None and getattr(start, "tzinfo", None) is None:
            raise ConfigurationError(f"A clock starts at an aware datetime, not at {start!r}.")
        self._now_ns = time.time_ns() if start is None else round(start.timestamp() * NANOSECONDS)
        self._start_ns = self._now_ns
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def time_ns(self) -> int:
        return self._now_ns

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_ns / NANOSECONDS, tz=UTC)

    def monotonic(self) -> float:
        return (self._now_ns - self._start_ns) / NANOSECONDS

    def advance(self, seconds: float) -> None:
        check_advance(seconds)
        with self._lock:
            self._now_ns += round(seconds * NANOSECONDS)

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.slept.append(seconds)
            self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)
        await asyncio.sleep(0)  # others may run, as in any sleep


class JumpingClock(AdjustableClock):
    """Real time, and jumps: who sleeps wakes at once when a jump goes beyond the end of the sleep.

    Args:
        base: Tells the real time.
    """

    def __init__(self, base: clock.Clock | None = None) -> None:
        self._base = base if base is not None else clock.Clock()
        self._ahead_ns = 0
        self._jumped = threading.Condition()
        self._sleepers: set[Callable[[], None]] = set()

    def time_ns(self) -> int:
        return self._base.time_ns() + self._ahead_ns

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time_ns() / NANOSECONDS, tz=UTC)

    def monotonic(self) -> float:
        return self._base.monotonic() + self._ahead_ns / NANOSECONDS

    def advance(self, seconds: float) -> None:
        check_advance(seconds)
        with self._jumped:
            self._ahead_ns += round(seconds * NANOSECONDS)
            self._jumped.notify_all()
            sleepers = list(self._sleepers)
        for wake in sleepers:
            with suppress(RuntimeError):  # its loop has been closed
                wake()

    def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        with self._jumped:
            while (left := until - self.monotonic()) > 0:
                self._jumped.wait(left)

    async def asleep(self, seconds: float) -> None:
        loop, jumped = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(jumped.set)

        until = self.monotonic() + seconds
        with self._jumped:
            self._sleepers.add(wake)
        try:
            while (left := until - self.monotonic()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await jumped.wait()
                jumped.clear()
        finally:
            with self._jumped:
                self._sleepers.discard(wake)


@contextmanager
def frozen_clock(start: datetime | None = None) -> Generator[FakeClock]:
    """Stop this process's clock: retry delays of direct and eager runs take no time, and can be read.

    Only what asks ``prefect_lite.clock`` is affected: ``time.sleep`` in a task still sleeps, and timeouts
    still measure real time.

    Args:
        start: What time it is at first, aware; by default the real one.

    Example:
        >>> with frozen_clock() as clock:
        ...     clock.advance(3600)
    """
    fake = FakeClock(start)
    before = clock.replace(fake)
    try:
        yield fake
    finally:
        clock.replace(before)
