"""Runs in an executor of ``concurrent.futures`` that the user has brought: of processes, of Dask, of Ray.

A run goes there as bytes, with its task, and comes back as bytes. Nothing is known of the place where it is
executed: a timeout is an alarm over there, and when that does not help, the run ends without its code.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_lite.logging import get_logger
from prefect_lite.protocol.messages import Release
from prefect_lite.run_ends import Outcome, describe
from prefect_lite_worker import child_setup
from prefect_lite_worker.desk import Ended
from prefect_lite_worker.elsewhere import execute_payload
from prefect_lite_worker.execution import LONG_BYTES
from prefect_lite_worker.handover import GivenRun
from prefect_lite_worker.leases import ActiveRun, monotonic
from prefect_lite_worker.pipe import END, LINES, LONGEST_BYTES, NEED, msgpack, unpack
from prefect_lite_worker.processes import Surroundings

if TYPE_CHECKING:
    from prefect_lite_worker.registry import AnyTask

logger = get_logger("worker")


class _Place:
    """Where a run is executed."""

    def __init__(self, future: Future[bytes]) -> None:
        self.future = future

    def interrupt(self, run: GivenRun) -> None:
        """If it has not begun it won't; nothing reaches code that runs already, except its own alarm."""
        self.future.cancel()


class ExecutorPool:
    """Executes runs in an executor.

    Args:
        around: What the worker gives.
        executor: The user's; it is not shut down unless the process ends.
        limit: Runs at a time.

    Attributes:
        limit: As above; more while runs wait for other runs.
        patience: What stopped code gets to react, in seconds.
        strays: Runs that were ended without their code, which still runs, by number.
        on_lost: Called with a run that has come to nothing over there, and a sentence.
        on_useless: Called with a sentence when the executor takes no more runs.
    """

    run_class = GivenRun
    runs_coroutines = True

    def __init__(self, around: Surroundings, executor: Executor, limit: int) -> None:
        self._around = around
        self._executor = executor
        self.limit = limit
        self.patience = around.settings.hung_seconds
        self.strays: dict[int, GivenRun] = {}
        self.on_lost: Callable[[GivenRun, str], None] = _ignore
        self.on_useless: Callable[[str], None] = _ignore
        self._running: dict[GivenRun, Future[bytes]] = {}
        self._packed: dict[AnyTask, bytes] = {}
        self._useless = False
        for task in around.tasks:
            self._packed[task] = child_setup.pickled_task(task)

    def open(self) -> None:
        """An executor starts what it needs by itself."""

    def submit(self, runs: Iterable[Any]) -> None:
        """Have these runs executed, soon."""
        around = self._around
        for run in runs:
            if not around.leases.start(run):
                continue
            if len(run.body) < LONG_BYTES:
                self._opened(run, around.handover.open(run))
                continue
            opening = around.execution.beside.submit(around.handover.open, run)
            opening.add_done_callback(partial(self._soon, self._opened_beside, run))

    def grow(self) -> bool:
        """Notice which runs have begun. Called at every tick."""
        for run, future in self._running.items():
            if not run.started and future.running():
                run.begun(run.attempt, monotonic(), None)
        return False

    def abandon(self, run: ActiveRun) -> str:
        """The run is ended without its code; see ``Pool.abandon``."""
        if isinstance(run, GivenRun) and self._running.pop(run, None) is not None:
            self.strays[id(run)] = run
        return "its place in the executor is lost until it returns"

    def names(self) -> dict[int, str]:
        """The threads are not ours, if there are any."""
        return {}

    def stop(self, *, exiting: bool = False) -> None:
        """Give up what has not begun; when the process ends at once, the executor's own processes too."""
        for future in list(self._running.values()):
            future.cancel()
        if exiting:
            self._executor.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()  # those of a ProcessPoolExecutor would wait for work for ever

    def _opened_beside(self, run: GivenRun, opening: Future[list[Any] | None]) -> None:
        self._opened(run, opening.result())

    def _opened(self, run: GivenRun, message: list[Any] | None) -> None:
        if message is None:
            return
        if run.stop is not None:
            self._around.execution.let_go(run, run.stop)
            return
        handover, settings = self._around.handover, self._around.settings
        order = {
            "task": self._packed[run.task],
            "key": [handover.shared.signing_id, handover.shared.signing_key],
            "namespace": settings.namespace,
            "max_payload_bytes": LONGEST_BYTES,
            "run": message,
            "outcomes": handover.outcomes(run),
        }
        try:
            future = self._executor.submit(execute_payload, msgpack.packb(order))
        except RuntimeError as exc:  # broken, or shut down
            self._give_back(run)
            self._broken(exc)
            return
        self._running[run] = future
        run.place = _Place(future)
        future.add_done_callback(partial(self._soon, self._done, run))

    def _soon(
        self, what: Callable[[GivenRun, Future[Any]], None], run: GivenRun, future: Future[Any]
    ) -> None:
        """From any thread: go on, on the connection thread."""
        try:
            self._around.loop.call_soon_threadsafe(what, run, future)
        except RuntimeError:
            logger.debug("The worker has stopped before a run has ended.")

    def _done(self, run: GivenRun, future: Future[bytes]) -> None:
        run.place = None
        if self._running.pop(run, None) is None:
            self.strays.pop(id(run), None)
            return
        error = None if future.cancelled() else future.exception()
        if future.cancelled() and run.stop is None:
            self._give_back(run)  # somebody has shut the executor down
        elif future.cancelled() or error is not None:
            # Of a broken one nobody knows which run has broken it: given back, it might break the next one.
            self.on_lost(
                run, f"{run.name}: its executor has failed: {describe(error) if error is not None else ''}."
            )
        else:
            self._take(run, unpack(future.result()))
        if isinstance(error, BrokenExecutor):
            self._broken(error)

    def _take(self, run: GivenRun, messages: list[list[Any]]) -> None:
        desk = self._around.desk
        for verb, _, *fields in messages:
            if verb == LINES:
                for line in fields[0]:
                    run.line(line)
            elif verb == NEED:
                run.started = 0.0
                desk.need(run, fields[0])
            elif verb == END:
                told, kind, text, seconds, _ = fields
                run.inside = False
                self._close(run, told, kind, text, seconds)

    def _close(self, run: GivenRun, told: list[Any] | None, *how: Any) -> None:
        around = self._around
        if any(isinstance(part, bytes) and len(part) >= around.execution.long_bytes for part in told or ()):
            around.execution.beside.submit(around.handover.close, run, told, *how)
        else:
            around.handover.close(run, told, *how)

    def _give_back(self, run: GivenRun) -> None:
        release = Release(run.run_id, run.token)
        self._around.desk.end(Ended(run, release, Outcome("given_up", message="handed back"), 0.0))

    def _broken(self, error: BaseException) -> None:
        if not self._useless:
            self._useless = True
            logger.error("The executor takes no more runs: %s", describe(error))
            self.on_useless("its executor takes no more runs")


def _ignore(*_: Any) -> None:
    """Until the connection listens."""
