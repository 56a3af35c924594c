"""The leases of this worker and the runs under them.

All of it belongs to the connection thread, except ``waiting``: taking a run out of it (``dict.pop``, atomic)
decides between the executor that would start it and the connection thread that would give it back.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from prefect_lite.interrupts import Permits, RunInterrupted

if TYPE_CHECKING:
    from prefect_lite.protocol.messages import Run
    from prefect_lite_worker.desk import Desk
    from prefect_lite_worker.loops import LoopHost
    from prefect_lite_worker.registry import AnyTask

monotonic = time.monotonic


class ActiveRun:
    """A leased run; also the ``Control`` of its attempts.

    Attributes:
        attempt: Number of the current attempt, from 1.
        timeout: Seconds an attempt may take, or None.
        started: When the current attempt began (monotonic seconds); 0 before.
        stop: Why it is to be stopped, or None; set by the connection thread, once.
        abandoned: The connection thread has ended it without waiting for its code.
        careful: Stop it when the worker has lost contact for a lease.
    """

    __slots__ = (
        "abandoned", "attempt", "body", "careful", "desk", "first", "run_id", "started", "stop", "task",
        "task_key", "timeout", "token",
    )  # fmt: skip
    outermost = True

    def __init__(self, message: Run, task: AnyTask, desk: Desk) -> None:
        _, self.run_id, self.token, self.task_key, self.attempt, _, self.body = message
        self.first = self.attempt
        self.task = task
        self.desk = desk
        self.timeout: float | None = None
        self.started = 0.0
        self.stop: str | None = None
        self.abandoned = False
        self.careful = False

    def begin(self, attempt: int) -> None:
        self.attempt = attempt
        self.started = monotonic()
        self.desk.start(self, attempt != self.first)
        if self.stop is not None:
            raise RunInterrupted

    def end(self) -> str | None:
        return self.stop

    def stop_reason(self) -> str | None:
        return self.stop

    def interrupt(self) -> None:
        """Raise in the user's code, if it runs; ``stop`` has been set before."""


class ThreadRun(ActiveRun):
    """A run of a function, in a thread of the pool."""

    __slots__ = ("permits",)

    def __init__(self, message: Run, task: AnyTask, desk: Desk, permits: Permits) -> None:
        super().__init__(message, task, desk)
        self.permits = permits

    def begin(self, attempt: int) -> None:
        self.permits.grant(self)
        super().begin(attempt)

    def end(self) -> str | None:
        self.permits.withdraw(self)
        return self.stop

    def interrupt(self) -> None:
        self.permits.interrupt(self)


class LoopRun(ActiveRun):
    """A run of a coroutine function, on a loop.

    Attributes:
        delivered: The loop has seen the cancellation; if not, the loop itself is stuck.
    """

    __slots__ = ("delivered", "handle", "host", "inside")

    def __init__(self, message: Run, task: AnyTask, desk: Desk, host: LoopHost) -> None:
        super().__init__(message, task, desk)
        self.host = host
        self.handle: asyncio.Task[Any] | None = None
        self.inside = False
        self.delivered = False

    def begin(self, attempt: int) -> None:
        self.inside = True
        super().begin(attempt)

    def end(self) -> str | None:
        self.inside = False
        if self.stop is not None and self.handle is not None:
            # Hooks come next, and a pending count would confuse their own timeouts and task groups.
            while self.handle.cancelling():
                self.handle.uncancel()
        return self.stop

    def interrupt(self) -> None:
        self.host.call(self._cancel)

    def _cancel(self) -> None:
        self.delivered = True
        if self.inside and self.handle is not None:
            self.handle.cancel()


class Leases:
    """What this worker holds.

    Attributes:
        active: Runs that occupy a slot, by token.
        waiting: Those of them whose code has not started, by token.
        limit: Slots.
        lent: Slots of runs that wait for other runs.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active: dict[str, ActiveRun] = {}
        self.waiting: dict[str, ActiveRun] = {}
        self.lent = 0

    @property
    def free(self) -> int:
        """Slots that a new run could take now."""
        return max(0, self.limit - len(self.active) + self.lent)

    def add(self, run: ActiveRun) -> None:
        """A run has arrived."""
        self.waiting[run.token] = run
        self.active[run.token] = run

    def start(self, run: ActiveRun) -> bool:
        """From an executor: whether the caller is the one to run it."""
        return self.waiting.pop(run.token, None) is not None

    def remove(self, run: ActiveRun) -> bool:
        """Whether the run was still ours to end; afterwards it is not."""
        if self.active.get(run.token) is not run:
            return False
        del self.active[run.token]
        self.waiting.pop(run.token, None)
        return True
