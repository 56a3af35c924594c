"""The leases of this worker and the runs under them.

All of it belongs to the connection thread, except ``waiting``: taking a run out of it (``dict.pop``, atomic)
decides between the executor that would start it and the connection thread that would give it back.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from prefect_lite.interrupts import PERMITS, RunInterrupted
from prefect_lite.run_ends import HAND_BACK

if TYPE_CHECKING:
    from prefect_lite.context import TaskRunContext
    from prefect_lite.envelope import LinkedCall
    from prefect_lite.protocol.messages import Run, RunState
    from prefect_lite_worker.desk import Desk
    from prefect_lite_worker.loops import LoopHost
    from prefect_lite_worker.registry import AnyTask

monotonic = time.monotonic


class ActiveRun:
    """A leased run; also the ``Control`` of its attempts and the ``RunLease`` of its context.

    Attributes:
        context: The opened call, from its verification until the run has ended here.
        attempt: Number of the current attempt, from 1.
        timeout: Seconds an attempt may take, or None.
        started: When the current attempt began (monotonic seconds); 0 before.
        inside: An attempt's code runs, of which alone the timeout is; hooks and sealing come after it.
        waits: How many times it waits for other runs just now; it lends its slot while there is one.
        stop: Why it is to be stopped, or None; set once.
        abandoned: The connection thread has ended it without waiting for its code.
        careful: Stop it when the worker has lost contact for a lease.
        call: The opened call, while results of other runs are fetched for it.
        outcomes: Those that have come; None when it takes none.
        fetching: Not all have come; an executor can't start it yet.
    """

    __slots__ = (
        "abandoned", "attempt", "body", "call", "careful", "context", "desk", "fetching", "first", "inside",
        "outcomes", "run_id", "started", "stop", "task", "task_key", "timeout", "token", "waits",
    )  # fmt: skip
    outermost = True
    lock_patience_seconds: float = 1.0

    def __init__(self, message: Run, task: AnyTask, desk: Desk) -> None:
        _, self.run_id, self.token, self.task_key, self.attempt, _, self.body = message
        self.first = self.attempt
        self.task = task
        self.desk = desk
        self.context: TaskRunContext | None = None
        self.inside = False
        self.waits = 0
        self.timeout: float | None = None
        self.started = 0.0
        self.stop: str | None = None
        self.abandoned = False
        self.careful = False
        self.call: LinkedCall | None = None
        self.outcomes: dict[str, RunState] | None = None
        self.fetching = False

    @property
    def name(self) -> str:
        """What people see: the name that ``task_run_name`` gives it, else that of its task."""
        record = self.context.task_run if self.context is not None else None
        return self.task.name if record is None else record.given_name or record.task_name

    def begin(self, attempt: int) -> None:
        self.attempt = attempt
        self.started = monotonic()
        self.inside = True
        self.desk.start(self, attempt != self.first)
        if self.stop is not None:
            raise RunInterrupted

    def end(self) -> str | None:
        self.inside = False
        return self.stop

    def line(self, line: list[Any]) -> None:
        self.desk.line(self.run_id, line)

    def lend(self, waits: int) -> None:
        self.desk.lend(self, waits)

    def stop_reason(self) -> str | None:
        return self.stop

    def interrupt(self) -> None:
        """Raise in the user's code, if it runs; ``stop`` has been set before."""


class ThreadRun(ActiveRun):
    """A run of a function, in a thread of the pool."""

    __slots__ = ()

    def begin(self, attempt: int) -> None:
        PERMITS.grant(self)
        super().begin(attempt)

    def end(self) -> str | None:
        PERMITS.withdraw(self)
        self.inside = False
        return self.stop

    def interrupt(self) -> None:
        PERMITS.interrupt(self)


class LoopRun(ActiveRun):
    """A run of a coroutine function, on a loop.

    Attributes:
        delivered: The loop has seen the cancellation; if not, the loop itself is stuck.
    """

    __slots__ = ("delivered", "handle", "host")

    def __init__(self, message: Run, task: AnyTask, desk: Desk, host: LoopHost) -> None:
        super().__init__(message, task, desk)
        self.host = host
        self.handle: asyncio.Task[Any] | None = None
        self.delivered = False

    def end(self) -> str | None:
        self.inside = False
        if self.handle is None:
            return self.stop
        if self.stop is None and self.host.closing and self.handle.cancelling():
            self.stop = HAND_BACK  # the program's loop ends, and with it everything that runs there
        if self.stop is not None:
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
        lent: How many of the active runs wait for other runs.
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

    def put_back(self, run: ActiveRun) -> None:
        """Its code has not started after all: what it takes is to be fetched first."""
        self.waiting[run.token] = run

    def start(self, run: ActiveRun) -> bool:
        """From an executor: whether the caller is the one to run it."""
        return self.waiting.pop(run.token, None) is not None

    def lend(self, run: ActiveRun, waits: int) -> None:
        """Code of the run begins (1) or ends (-1) to wait; however much of it waits, that is one slot."""
        if self.active.get(run.token) is run:
            before = run.waits > 0
            run.waits += waits
            self.lent += (run.waits > 0) - before

    def remove(self, run: ActiveRun) -> bool:
        """Whether the run was still ours to end; afterwards it is not."""
        if self.active.get(run.token) is not run:
            return False
        if run.waits:
            self.lend(run, -run.waits)
        del self.active[run.token]
        self.waiting.pop(run.token, None)
        return True
