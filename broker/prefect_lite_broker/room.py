"""How much room the namespace has for more runs, without asking Redis about each.

The number of waiting runs is read once per poll interval, and at once when half of the room seen last is used
up. In between a broker adds what it takes itself. What other brokers take between two readings it can't see:
together ``n`` brokers may go over the limit by what the others take in that time, at most
``(n - 1) * max_queued_total``, should all of them fill an empty namespace between two readings.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from prefect_lite_broker.maintenance import Service
from prefect_lite_broker.store import Store

LEAST_PAUSE_SECONDS: Final = 0.02
"""Between two readings, however full it is."""
RETRY_SECONDS: Final = 1.0
"""What a refused client is told to wait as long as nothing is known of how fast runs leave."""
RETRY_BOUNDS: Final = (0.05, 5.0)
SMOOTHING: Final = 0.5
"""Weight of the latest reading in the rate at which runs leave."""


class Room(Service):
    """Decides whether one more run may wait.

    Args:
        store: Counts the waiting runs.
        most: How many may wait in the namespace (``max_queued_total``).
        interval_seconds: Between two readings.

    Attributes:
        waiting: Runs that wait in the namespace, as far as this broker knows.
        leaving: Runs that stop waiting per second, 0 when that is not known.
    """

    name = "count of waiting runs"

    def __init__(self, store: Store, most: int, interval_seconds: float) -> None:
        super().__init__(interval_seconds)
        self._store = store
        self._most = most
        self._read = 0  # of the last reading
        self._read_at = 0.0
        self._since = 0  # taken by this broker and perhaps not in that reading
        self._open = 0  # of these, without an answer of the store
        self._accepted = 0  # since the last reading, or while it was read
        self._refused = 0  # since the last reading
        self._ask_at = most // 2  # so many since the last reading: read again
        self.leaving = 0.0
        self._reading = asyncio.Lock()

    @property
    def waiting(self) -> int:
        return self._read + self._since

    def admit(self) -> bool:
        """Count one more run; False when it has to be turned away. Each is to be ``settled``."""
        self._open += 1
        self._since += 1
        if self._since >= self._ask_at:
            self.poke()
        return self._read + self._since <= self._most

    def settled(self, accepted: bool) -> None:
        """The store has answered for a run."""
        self._open -= 1
        if accepted:
            self._accepted += 1
        else:
            self._since -= 1

    def retry_after(self) -> float:
        """Seconds after which a run refused now may find room: one place for each refused before it."""
        self._refused += 1
        if self.leaving <= 0:
            return RETRY_SECONDS
        low, high = RETRY_BOUNDS
        return min(high, max(low, self._refused / self.leaving))

    def text(self) -> str:
        """Why there is no room, as a sentence."""
        return f"{self.waiting:,} runs wait in this namespace; max_queued_total allows {self._most:,}."

    async def run_once(self) -> float:
        async with self._reading:  # an older answer must not undo a newer one
            await self._read_once()
        return self.interval_seconds

    async def _read_once(self) -> None:
        before = self._accepted
        waiting = await self._store.waiting()
        now = time.monotonic()
        # Stored while it was read, and perhaps not in it: a shard may have answered long ago, and even the
        # answers behind that of the reading may have come with it.
        late = self._accepted - before
        if self._read_at:
            left = max(0, self._read + before - waiting)
            rate = left / max(now - self._read_at, LEAST_PAUSE_SECONDS)
            self.leaving += SMOOTHING * (rate - self.leaving)
        self._read, self._read_at = waiting, now
        self._since = self._open + late
        self._accepted, self._refused = late, 0
        self._ask_at = self._since + max(1, (self._most - waiting) // 2)

    async def _pause(self, seconds: float) -> None:
        await super()._pause(seconds)
        early = self._read_at + LEAST_PAUSE_SECONDS - time.monotonic()
        if early > 0:
            await asyncio.sleep(early)
