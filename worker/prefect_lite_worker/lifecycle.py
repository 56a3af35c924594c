"""How a worker stops: take nothing new, let runs finish for a while, hand the rest back, say goodbye.

::

    serving ─ stop(grace) ─▶ draining ─ no run left, or grace over ─▶ releasing ─ acknowledged ─▶ stopped
                                └──────── second stop: grace is over ────────▲
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from prefect_lite.logging import get_logger

logger = get_logger("worker")

SERVING, DRAINING, RELEASING, STOPPED = "serving", "draining", "releasing", "stopped"

EXIT_OK = 0
EXIT_UNACKNOWLEDGED = 1
EXIT_STUCK = 75
"""Too many threads are stuck in code that does not let go: start me again (EX_TEMPFAIL)."""

ACKNOWLEDGE_SECONDS = 5.0
"""For the answers to the last FINISHes and RELEASEs; a broker that is away longer finds out by the lease."""


class Drained(Protocol):
    """What the life cycle does to its worker."""

    def refuse_new(self) -> None:
        """Serve no keys any more and give back what has not started."""
        ...

    def release_rest(self) -> None:
        """Give back all runs that are left."""
        ...

    @property
    def runs_left(self) -> int:
        """Runs under way here."""
        ...

    @property
    def unacknowledged(self) -> int:
        """Leases the broker has not been told the end of."""
        ...


class Lifecycle:
    """The worker's phase, on the connection thread's loop.

    Args:
        worker: What is to be drained.
        clock: Monotonic seconds, the loop's own.

    Attributes:
        phase: serving, draining, releasing or stopped.
        exit_code: For the process; what the first stop asked for, or ``EXIT_UNACKNOWLEDGED``.
        reason: Why it stops, for people.
    """

    def __init__(self, worker: Drained, clock: Callable[[], float]) -> None:
        self._worker = worker
        self._clock = clock
        self._deadline = 0.0
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self.phase = SERVING
        self.exit_code = EXIT_OK
        self.reason = ""

    def stop(self, reason: str, grace_seconds: float, exit_code: int = EXIT_OK) -> None:
        """Begin to stop; while stopping already, make it happen at once.

        Args:
            reason: For people.
            grace_seconds: How long runs may go on.
            exit_code: For the process.
        """
        if self.phase == SERVING:
            self.phase = DRAINING
            self.reason, self.exit_code = reason, exit_code
            self._deadline = self._clock() + grace_seconds
            self._stopping.set()
            left = self._worker.runs_left
            hint = f"; {left} running, at most {grace_seconds:g} s more" if left and grace_seconds else ""
            logger.info("Stopping: %s%s.", reason, hint)
        elif self._clock() < self._deadline:
            if self._worker.runs_left:
                logger.info("Not waiting for what still runs: %s.", reason)
            self._deadline = self._clock()
        self.notify()

    def notify(self) -> None:
        """A run has ended or an acknowledgement has come."""
        self._changed.set()

    async def requested(self) -> None:
        """Wait until somebody wants the worker to stop."""
        await self._stopping.wait()

    async def drain(self) -> None:
        """Go from draining to stopped."""
        worker = self._worker
        worker.refuse_new()
        await self._until(lambda: worker.runs_left == 0, lambda: self._deadline)
        self.phase = RELEASING
        if worker.runs_left:
            logger.info("Handing back %d runs.", worker.runs_left)
        worker.release_rest()
        limit = self._clock() + ACKNOWLEDGE_SECONDS
        if not await self._until(lambda: worker.unacknowledged == 0, lambda: limit):
            logger.warning(
                "The broker did not acknowledge the end of %d runs within %g s; it will give them to another "
                "worker when their leases end.",
                worker.unacknowledged,
                ACKNOWLEDGE_SECONDS,
            )
            self.exit_code = self.exit_code or EXIT_UNACKNOWLEDGED
        self.phase = STOPPED

    async def _until(self, done: Callable[[], bool], deadline: Callable[[], float]) -> bool:
        while not done():
            seconds = deadline() - self._clock()
            if seconds <= 0:
                return False
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), seconds)
            except TimeoutError:
                continue
        return True
