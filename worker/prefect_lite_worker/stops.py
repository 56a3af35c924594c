"""Ending runs from outside: deadlines, cancellation, lost leases; and giving up on code that does not let go.

A run is stopped once, for the first reason. Its code is interrupted and has a moment to end; then the run is
ended without it, its slot is free again, and whatever the code still does is without effect (fenced lease).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from prefect_lite.exceptions import CrashedRun
from prefect_lite.logging import get_logger
from prefect_lite.retry_decisions import may_retry
from prefect_lite.run_ends import GIVE_UP, HAND_BACK, TIMEOUT, Outcome, stopped_outcome
from prefect_lite_worker import deadlines
from prefect_lite_worker.desk import Ended
from prefect_lite_worker.handover import GivenRun
from prefect_lite_worker.leases import ActiveRun, LoopRun, monotonic

if TYPE_CHECKING:
    from prefect_lite_worker.execution import Execution
    from prefect_lite_worker.leases import Leases
    from prefect_lite_worker.loops import Loops
    from prefect_lite_worker.pools import Pool

logger = get_logger("worker")


class Stops:
    """Stops runs. Belongs to the connection thread.

    Args:
        leases: The runs of this worker.
        pool: What executes functions.
        loops: The loops.
        execution: Makes FINISH messages.
        finish: Called with an ``Ended`` that replaces what the run's own code would report.
        hung_seconds: What a coroutine gets to react.
    """

    def __init__(
        self,
        leases: Leases,
        pool: Pool,
        loops: Loops,
        execution: Execution,
        finish: Callable[[Ended], None],
        hung_seconds: float,
    ) -> None:
        self._leases = leases
        self._pool = pool
        self._loops = loops
        self._execution = execution
        self._finish = finish
        self._hung_seconds = hung_seconds
        self.deadlines = deadlines.Deadlines()

    @property
    def stuck(self) -> int:
        """Threads, or runs in an executor, lost to code that does not let go."""
        return len(self._pool.strays) + self._loops.stuck

    def watch(self, run: ActiveRun) -> None:
        """An attempt has started: keep its timeout."""
        if run.timeout is not None:
            active = self._leases.active
            self.deadlines.compact(len(active), lambda other: active.get(other.token) is other)
            self.deadlines.add(run.started + run.timeout, deadlines.EXPIRE, run)

    def stop(self, run: ActiveRun, reason: str) -> None:
        """End a run for a reason: ``TIMEOUT``, ``CANCEL`` or ``GIVE_UP`` (nothing is reported then)."""
        if run.stop is not None:
            return
        run.stop = reason
        if self._leases.waiting.pop(run.token, None) is not None:
            self.end_unstarted(run)
            return
        run.interrupt()
        patience = self._hung_seconds if isinstance(run, LoopRun) else self._pool.patience
        self.deadlines.add(monotonic() + patience, deadlines.GIVE_UP, run)

    def end_unstarted(self, run: ActiveRun) -> None:
        """End a run that was stopped, of which no executor knows: nobody else will."""
        self._end(run)

    def run_due(self, now: float) -> None:
        """Do what is due."""
        for what, run in self.deadlines.due(now):
            if self._leases.active.get(run.token) is not run:
                continue
            if run.stop in (None, TIMEOUT) and not run.inside:
                continue  # its code has ended in time; hooks and sealing take as long as they take
            if what is deadlines.EXPIRE:
                self.stop(run, TIMEOUT)
            else:
                self._abandon(run)

    def _abandon(self, run: ActiveRun) -> None:
        run.abandoned = True
        name = run.name
        if not isinstance(run, LoopRun):
            loss = self._pool.abandon(run)
            self._end(run)
            logger.warning("%s did not let go when it was stopped: %s.", name, loss)
            return
        self._end(run)
        if not run.delivered:
            waiting = [
                other
                for other in self._leases.waiting.values()
                if isinstance(other, LoopRun) and not other.fetching
            ]
            logger.warning("%s blocks the event loop.", name)
            self._loops.replace(run.host, waiting)
        else:
            logger.warning("%s swallowed its cancellation and goes on without effect.", name)

    def _end(self, run: ActiveRun) -> None:
        seconds = monotonic() - run.started if run.started else 0.0
        reason = run.stop
        if reason is None or reason in (GIVE_UP, HAND_BACK):
            self._finish(Ended(run, None, Outcome("given_up"), seconds))
            return
        self._settle(run, stopped_outcome(run.name, reason, run.timeout, started=run.started > 0), seconds)

    def lost(self, run: ActiveRun, text: str) -> None:
        """The process that executed a run has ended under it."""
        if self._leases.active.get(run.token) is not run:
            return
        if run.stop is not None:
            self._end(run)
            return
        seconds = monotonic() - run.started if run.started else 0.0
        self._settle(run, Outcome("crashed", error=CrashedRun(text), message=text), seconds)

    def _settle(self, run: ActiveRun, outcome: Outcome, seconds: float) -> None:
        """Retry or end a run without its code."""
        context = run.context
        # The hooks of a thread's or coroutine's run are up to its own code, which still goes on.
        hooks = context is not None and isinstance(run, GivenRun) and bool(context.options.on_failure)
        if context is not None and (hooks or may_retry(context, outcome)):
            # Whether and when can be up to the user's own code, which must not hold up this thread.
            threading.Thread(
                target=self._execution.retry,
                args=(run, context, outcome, seconds),
                kwargs={"hooks": hooks},
                name="prefect-lite-retry",
                daemon=True,
            ).start()
        else:
            self._finish(Ended(run, self._execution.failure(run, outcome, seconds), outcome, seconds))
