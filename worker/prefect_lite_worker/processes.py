"""The child processes that run functions and coroutines: started when runs wait, used again, replaced.

Belongs to the connection thread, which gives runs to children and leaves what they tell on the desk, as
threads do. A child that does not let go of a stopped run is killed, which is what it is for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_lite.logging import get_logger
from prefect_lite_worker import child_setup
from prefect_lite_worker.children import Child
from prefect_lite_worker.execution import LONG_BYTES
from prefect_lite_worker.handover import GivenRun, Handover
from prefect_lite_worker.leases import ActiveRun, Leases, monotonic
from prefect_lite_worker.pipe import BROKEN, END, LEFT, LEND, LINES, NEED, READY, STARTED

if TYPE_CHECKING:
    from prefect_lite.settings import Settings
    from prefect_lite.task_runners import ProcessPoolTaskRunner
    from prefect_lite_worker.desk import Desk
    from prefect_lite_worker.execution import Execution
    from prefect_lite_worker.registry import AnyTask

logger = get_logger("worker")

PATIENCE_SECONDS = 1.75
"""At most, for stopped code to let go: so a child is killed within 2 s of a deadline."""
STOP_SECONDS = 1.0
"""For idle children at the worker's end."""
MAX_FAILED_STARTS = 3
"""In a row, while no child works; then the worker hands its runs back and stops."""
FAILED_START_SECONDS = 0.2
"""Until the next one is tried, times the number of failures."""
MAX_FAILED_START_SECONDS = 5.0
"""The same at most, while there are children that work."""


class Surroundings(NamedTuple):
    """What a pool needs of its worker.

    Attributes:
        loop: Of the connection thread.
        leases: Decides whether a run is still to be started.
        desk: Takes what happens.
        execution: Ends runs.
        handover: Seals and opens.
        settings: Of the worker.
        tasks: The served tasks.
    """

    loop: asyncio.AbstractEventLoop
    leases: Leases
    desk: Desk
    execution: Execution
    handover: Handover
    settings: Settings
    tasks: list[AnyTask]


class ProcessPool:
    """Executes runs in at most ``limit`` child processes.

    Args:
        around: What the worker gives.
        runner: What the user has asked for.
        limit: Children at most.

    Attributes:
        limit: As above; more while runs wait for other runs.
        patience: What stopped code gets to react, in seconds.
        strays: Always empty: nothing that is lost goes on.
        on_lost: Called with a run whose child has ended under it, and a sentence.
        on_useless: Called with a sentence when no children can be started.
    """

    run_class = GivenRun
    runs_coroutines = True

    def __init__(self, around: Surroundings, runner: ProcessPoolTaskRunner, limit: int) -> None:
        self._around = around
        self._runner = runner
        self.limit = limit
        self.patience = min(around.settings.hung_seconds, PATIENCE_SECONDS)
        self.strays: Mapping[int, Any] = {}
        self.on_lost: Callable[[GivenRun, str], None] = _ignore
        self.on_useless: Callable[[str], None] = _ignore
        self._queue: deque[GivenRun] = deque()
        self._children: list[Child] = []
        self._leaving: set[Child] = set()
        self._idle: list[Child] = []
        self._failed_starts = 0
        self._trouble = ""
        self._start_at = 0.0
        self._stopped = False
        keyring, settings = around.handover.shared, around.settings
        measured = runner.max_memory_per_child is not None
        self._start = child_setup.start_message(around.tasks, keyring, settings, measured=measured)
        self._environment = child_setup.environment(settings)

    # -- what the connection thread calls -----------------------------------------------------------

    def open(self) -> None:
        """Start the first child: it shows early whether tasks can be loaded in one."""
        self._spawn(1)

    def submit(self, runs: Iterable[Any]) -> None:
        """Have these runs executed, soon."""
        self._queue.extend(runs)
        self._dispatch()

    def grow(self) -> bool:
        """Find children that have died, and start those that are missing. Called at every tick."""
        for child in list(self._children):
            child.check()
        self._dispatch()
        return False

    def abandon(self, run: ActiveRun) -> str:
        """The run has not let go: kill its child. Returns how that ends the sentence about the run."""
        for child in self._children:
            if child.run is run:
                child.run = None
                self._remove(child)
                child.kill()
                self._dispatch()
                break
        return "its process was killed"

    def names(self) -> dict[int, str]:
        """No thread here runs the user's code."""
        return {}

    def stop(self, *, exiting: bool = False) -> None:
        """End all children; those that are idle may run their exit handlers."""
        self._stopped = True
        self._queue.clear()
        children = [*self._children, *self._leaving]
        for child in children:
            if child.run is None and child.ready:
                child.leave()
            else:
                child.kill()
        deadline = monotonic() + STOP_SECONDS
        for child in children:
            child.wait(deadline - monotonic())

    @property
    def pids(self) -> list[int]:
        """Of the children that take runs."""
        return [child.pid for child in self._children]

    # -- children -----------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give waiting runs to idle children, and start some if there are too few."""
        if self._stopped:
            return
        while self._queue and self._idle:
            child = self._idle.pop()
            if child.leaving:
                continue  # it has hung up and is about to be found dead
            run = self._queue.popleft()
            if self._around.leases.start(run):
                self._give(child, run)
            else:
                self._idle.append(child)
        missing = min(len(self._queue), self.limit - sum(child.run is not None for child in self._children))
        self._spawn(missing - sum(not child.ready for child in self._children))

    def _spawn(self, count: int) -> None:
        if count < 1 or monotonic() < self._start_at:
            return
        around = self._around
        for _ in range(min(count, self.limit - len(self._children))):
            try:
                child = Child(around.loop, self._environment, self._start, self._on_message, self._on_death)
            except OSError as exc:
                self._start_failed(f"No process can be started: {exc}")
                return
            self._children.append(child)

    def _start_failed(self, trouble: str) -> None:
        self._failed_starts += 1
        pause = min(FAILED_START_SECONDS * self._failed_starts, MAX_FAILED_START_SECONDS)
        self._start_at = monotonic() + pause
        logger.error("A child process did not start. %s", trouble)
        if self._failed_starts >= MAX_FAILED_STARTS and not any(child.ready for child in self._children):
            self._stopped = True
            self.on_useless("its child processes don't start")
        else:
            self._around.loop.call_at(self._start_at + 0.001, self._again)

    def _again(self) -> None:
        if not self._children:
            self._spawn(1)
        self._dispatch()

    def _remove(self, child: Child) -> None:
        if child in self._children:
            self._children.remove(child)
            self._leaving.add(child)
        if child in self._idle:
            self._idle.remove(child)

    def _free(self, child: Child, resident: int = 0) -> None:
        """A child has nothing to do any more: take the next run, or leave."""
        child.run = None
        if child.leaving:
            return
        runner = self._runner
        used_up = runner.max_tasks_per_child is not None and child.given >= runner.max_tasks_per_child
        too_large = runner.max_memory_per_child is not None and resident > runner.max_memory_per_child
        if used_up or too_large or len(self._children) > self.limit:
            if too_large:
                logger.info("Child %d has %d MiB of memory; replacing it.", child.pid, resident >> 20)
            self._remove(child)
            child.leave()
        else:
            self._idle.append(child)
        self._dispatch()

    def _on_death(self, child: Child) -> None:
        was_ready, run = child.ready, child.run
        self._remove(child)
        self._leaving.discard(child)
        child.run = None
        if not was_ready and not child.killed:
            self._start_failed(self._trouble or f"It {child.last_words()} before it was ready.")
            self._trouble = ""
        if run is not None:
            run.place = None
            self._lost(run, child)
        self._dispatch()

    def _lost(self, run: GivenRun, child: Child) -> None:
        """A child has ended under a run."""
        if run.started or run.restarted or run.stop is not None or not run.body:
            if self._around.leases.active.get(run.token) is run:
                self.on_lost(run, f"{run.name}: its process {child.last_words()}.")
            return
        run.restarted = True  # once: perhaps it was idle and had ended already
        self._around.leases.put_back(run)
        self._queue.appendleft(run)

    # -- runs ---------------------------------------------------------------------------------------

    def _give(self, child: Child, run: GivenRun) -> None:
        child.run, run.place = run, child
        around = self._around
        if len(run.body) < LONG_BYTES:
            self._opened(child, run, around.handover.open(run))
            return

        def opened(future: Future[list[Any] | None]) -> None:
            with suppress(RuntimeError):  # the loop is closed: the worker has stopped
                around.loop.call_soon_threadsafe(self._opened, child, run, future.result())

        around.execution.beside.submit(around.handover.open, run).add_done_callback(opened)

    def _opened(self, child: Child, run: GivenRun, message: list[Any] | None) -> None:
        if child.run is not run:
            return  # it has died, or the run was given up
        if message is None:
            self._free(child)
        elif run.stop is not None:
            self._around.execution.let_go(run, run.stop)
            self._free(child)
        else:
            child.execute(run, message, self._around.handover.outcomes(run))

    def _on_message(self, child: Child, message: list[Any]) -> None:
        verb, *fields = message
        if verb == READY:
            child.ready = True
            self._failed_starts = 0
            self._free(child)
            return
        if verb == BROKEN:
            self._trouble = fields[0]
            return
        if verb == LINES:
            for line in fields[1]:
                self._around.desk.line(fields[0], line)
            self._around.desk.wake()
            return
        run = child.run
        if run is None or fields[0] != run.token:
            return  # it was given up meanwhile
        self._on_run_message(child, run, verb, fields)

    def _on_run_message(self, child: Child, run: GivenRun, verb: str, fields: list[Any]) -> None:
        desk = self._around.desk
        if verb == STARTED:
            run.body = b""  # arguments may be large, and the run long
            run.begun(fields[1], monotonic(), fields[2])
        elif verb == LEFT:
            if fields[1] == run.attempt:  # else the next one, in place, was quicker to tell
                run.inside = False
        elif verb == LEND:
            run.lend(fields[1])
        elif verb == NEED:
            run.place = None
            desk.need(run, fields[1])
            child.given -= 1
            self._free(child)
        elif verb == END:
            run.place = None
            run.inside = False
            self._end(run, fields)
            self._free(child, fields[5])

    def _end(self, run: GivenRun, fields: list[Any]) -> None:
        _, told, kind, text, seconds, _ = fields
        around = self._around
        if any(isinstance(part, bytes) and len(part) >= around.execution.long_bytes for part in told or ()):
            around.execution.beside.submit(around.handover.close, run, told, kind, text, seconds)
        else:
            around.handover.close(run, told, kind, text, seconds)


def _ignore(*_: Any) -> None:
    """Until the connection listens."""
