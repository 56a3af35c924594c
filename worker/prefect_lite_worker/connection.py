"""The connection thread's work: messages of the broker, ends of runs, leases, deadlines, ticks.

Everything here runs on one loop in a thread of its own, never runs the user's code, and does per burst what
need not be done per run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from prefect_lite.logging import get_logger
from prefect_lite.protocol.codec import ProtocolError
from prefect_lite.protocol.messages import (
    Cancel,
    Done,
    Error,
    Finish,
    Goodbye,
    Message,
    Release,
    Retry,
    Revoke,
    Run,
    RunState,
    Welcome,
)
from prefect_lite.protocol.peer_session import PeerSession
from prefect_lite.run_ends import CANCEL, GIVE_UP, Outcome
from prefect_lite_worker.desk import Desk, Ended
from prefect_lite_worker.leases import ActiveRun, Leases, LoopRun, monotonic
from prefect_lite_worker.lifecycle import EXIT_STUCK, SERVING, Lifecycle
from prefect_lite_worker.reporting import Reporter, log_messages
from prefect_lite_worker.stalls import StallWatch
from prefect_lite_worker.stops import Stops
from prefect_lite_worker.upstreams import Upstreams

if TYPE_CHECKING:
    from prefect_lite_worker.assembly import Plan
    from prefect_lite_worker.execution import Execution
    from prefect_lite_worker.loops import Loops
    from prefect_lite_worker.pools import Pool
    from prefect_lite_worker.registry import AnyTask
    from prefect_lite_worker.turns import Turns

logger = get_logger("worker")

FIRST_TICK_SECONDS = 0.005
"""A run that takes longer than this is reported as STARTED, and gets a thread of its own."""
TICK_SECONDS = 0.05
"""While runs are under way: log lines, deadlines, stalls."""
MAX_BACKLOG = 100
"""Messages waiting to be sent above which log lines are held back."""
STUCK_GRACE_SECONDS = 10.0
"""For the other runs of a worker that has lost all its threads."""


class WorkerSession(PeerSession):
    """Knows when the broker was last heard of."""

    heard = 0.0

    def receive(self, data: bytes) -> list[Message]:
        self.heard = monotonic()
        return super().receive(data)


class WorkerConnection:
    """What the connection thread knows and does, short of the thread and the socket themselves.

    Args:
        session: The protocol session.
        plan: Tasks, settings and limits.
        leases, desk, execution, pool, loops: The parts it puts together.
        reporter: Takes each end of a run.

    Attributes:
        stops: Ends runs from outside.
        lifecycle: Serving, draining, stopped.
        broker: Id of the broker, "" before the first.
        schedule_flush: Has what was queued in the session sent at the end of this turn of the loop.
        at_once: Calls something, and has what that has queued sent before it returns.
        turns: Of the threads of this process, if it is the worker's own.
    """

    def __init__(
        self,
        session: WorkerSession,
        plan: Plan,
        leases: Leases,
        desk: Desk,
        execution: Execution,
        pool: Pool,
        loops: Loops,
        reporter: Reporter,
    ) -> None:
        self._session = session
        self._registry = plan.registry
        self._leases = leases
        self._desk = desk
        self._execution = execution
        self._pool = pool
        self._pooled, self._coroutines_here = pool.run_class, not pool.runs_coroutines
        self._loops = loops
        self._settings = settings = plan.settings
        self._max_stray_threads = plan.max_stray_threads
        self._reporter = reporter
        self.schedule_flush: Callable[[], None] = _nothing
        self.at_once: Callable[[Callable[[], None]], None] = _call
        self._loop = asyncio.get_running_loop()
        self.turns: Turns | None = None
        self._ends = 0  # since the last tick
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._stalls = StallWatch(settings.hung_seconds, self._names)
        self._upstreams = Upstreams(session, monotonic)
        self.stops = Stops(leases, pool, loops, execution, self._finish, settings.hung_seconds)
        self.lifecycle = Lifecycle(self, self._loop.time)
        pool.on_lost, pool.on_useless = self._on_lost, self._stop_useless
        self.broker = ""
        self._handlers: dict[type[Message], Callable[[Any], None]] = {
            Run: self._on_run,
            RunState: self._on_state,
            Done: self._on_done,
            Revoke: self._on_revoke,
            Cancel: self._on_cancel,
            Error: self._on_error,
            Goodbye: self._on_goodbye,
            Welcome: self._on_welcome,
        }
        self._for_pool: list[ActiveRun] = []
        self._for_loop: list[LoopRun] = []
        self._in_frame = False
        self._offer = False
        self._long_ended: list[ActiveRun] = []  # since the last sample of the stall watch
        desk.open(self._loop, self._look)

    def serve_also(self, task: AnyTask) -> None:
        """Have the broker know of another task, unless the worker takes no more runs."""
        self._registry.replace(task)
        if self.lifecycle.phase == SERVING:
            self._session.serve(self._registry.keys)
            self.schedule_flush()

    # -- from the broker --------------------------------------------------------------------------

    def on_messages(self, messages: list[Message]) -> None:
        """What a frame has brought."""
        handlers = self._handlers
        # Slots may be offered only once all RUNs of the frame have taken theirs.
        self._in_frame = True
        for message in messages:
            handler = handlers.get(type(message))
            if handler is not None:
                handler(message)
        self._in_frame = False
        if self._offer:
            self._offer_slots()
        self._start_runs()

    def _start_runs(self) -> None:
        """Hand over to the executors what a frame, or the desk, has brought."""
        if self._for_pool or self._for_loop:
            # Before they can start: one that holds the interpreter is found by this tick coming late.
            self._tick_within(FIRST_TICK_SECONDS)
        if self._for_pool:
            self._pool.submit(self._for_pool)
            self._for_pool = []
        if self._for_loop:
            self._loops.current.submit(self._for_loop)
            self._for_loop = []

    def _on_run(self, message: Run) -> None:
        if self.lifecycle.phase != SERVING:
            self._session.release(Release(message.run_id, message.token))
            self.schedule_flush()
            return
        task = self._registry.get(message.task_key)
        if task is None:
            text = f"This worker does not serve {message.task_key!r}, but was given a run of it."
            self._commit(
                Finish(message.run_id, message.token, "FAILED", "Failed", text, message.attempt, 0.0, None)
            )
            self._offer_slots()
        elif task.isasync and self._coroutines_here:
            run = LoopRun(message, task, self._desk, self._loops.current)
            self._leases.add(run)
            self._for_loop.append(run)
        else:
            run = self._pooled(message, task, self._desk)
            self._leases.add(run)
            self._for_pool.append(run)

    def _on_state(self, message: RunState) -> None:
        self._go_on(self._upstreams.arrived(message))

    def _on_done(self, message: Done) -> None:
        for run_id, _, status in message.answers:
            if status == "stale":
                logger.warning(
                    "Run %s had been given to another worker; its outcome here was dropped.", run_id
                )
        self.lifecycle.notify()

    def _on_revoke(self, message: Revoke) -> None:
        for run_id, token in message.leases:
            self._session.forget(token)
            run = self._leases.active.get(token)
            if run is not None:
                logger.warning("The lease of run %s (%s) is lost; stopping it here.", run_id, run.task.name)
                self.stops.stop(run, GIVE_UP)
        self._tick_within(FIRST_TICK_SECONDS)

    def _on_cancel(self, message: Cancel) -> None:
        self.take_desk()
        run = self._leases.active.get(message.token)
        if run is not None:
            self.stops.stop(run, CANCEL)
            self._tick_within(FIRST_TICK_SECONDS)

    def _on_welcome(self, message: Welcome) -> None:
        self._execution.max_payload_bytes = min(self._settings.max_payload_bytes, message.max_payload_bytes)
        self.broker = message.broker
        self._offer_slots()  # a new connection begins without credit
        self._send_lines()

    def _on_error(self, message: Error) -> None:
        logger.warning("The broker reports: %s (%s)", message.text, message.code)

    def _on_goodbye(self, message: Goodbye) -> None:
        logger.info("The broker says goodbye: %s", message.reason)

    # -- from the runs ----------------------------------------------------------------------------

    def _look(self) -> None:
        self.at_once(self.take_desk)

    def take_desk(self) -> None:
        """Take everything that lies on the desk, and tell the broker."""
        desk = self._desk
        # Ends are counted before lines are taken: the lines of an ended run go out before its end does.
        ends = len(desk.ended)
        self._send_lines()
        if desk.lent:
            while desk.lent:
                self._leases.lend(*desk.lent.popleft())
            self._offer_slots()
        if desk.needs:
            self._take_needs()
        if desk.again:
            desk.again = False
            self._take_started()
        if ends:
            self._ends += ends
            for _ in range(ends):
                self._finish(desk.ended.popleft())
            self._offer_slots()

    def _send_lines(self) -> None:
        """Send the log lines; without a broker, or with one that is behind, the desk keeps the latest."""
        if not self._desk.lines or not self._session.welcomed:
            return
        if self._session.backlog >= MAX_BACKLOG:
            self._tick_within(TICK_SECONDS)
            return
        for message in log_messages(self._desk):
            self._session.send(message)
        self.schedule_flush()

    def _offer_slots(self) -> None:
        self._offer = self._in_frame
        if self._in_frame:
            return
        self._pool.limit = self._leases.limit + self._leases.lent
        if self.lifecycle.phase == SERVING:
            self._session.set_free(self._leases.free)
        else:
            self.lifecycle.notify()
        self.schedule_flush()

    def _take_started(self) -> None:
        active, session = self._leases.active, self._session
        started = self._desk.started
        while started:
            run = started.popleft()
            if active.get(run.token) is run:
                session.started(run.run_id, run.token, run.attempt)
                self.stops.watch(run)
                self.schedule_flush()

    def _take_needs(self) -> None:
        """Fetch what runs take from others; until it is there they are as if they had just come."""
        needs: list[tuple[ActiveRun, Iterable[str]]] = []
        while self._desk.needs:
            run, run_ids = self._desk.needs.popleft()
            if self._leases.active.get(run.token) is not run:
                continue
            if run.stop is not None:
                self.stops.end_unstarted(run)  # it was stopped while an executor had it
            elif self.lifecycle.phase != SERVING:
                self._give_back(run)
            else:
                run.fetching = True
                self._leases.put_back(run)
                needs.append((run, run_ids))
        self._go_on(self._upstreams.fetch(needs))
        self.schedule_flush()

    def _lend_slots(self) -> None:
        """Runs that wait for what has not come, although it was due, lend their slots meanwhile."""
        for run in self._upstreams.overdue():
            if not run.waits:
                self._leases.lend(run, 1)
        self._offer_slots()

    def _go_on(self, runs: list[ActiveRun]) -> None:
        """These runs have the outcomes they need."""
        for run in runs:
            run.fetching = False
            if run.waits:
                self._leases.lend(run, -run.waits)
                self._offer_slots()
            if isinstance(run, LoopRun):
                run.host = self._loops.current
                self._for_loop.append(run)
            else:
                self._for_pool.append(run)
        if not self._in_frame:
            self._start_runs()

    def _finish(self, ended: Ended) -> None:
        """End a lease here, unless that was done before."""
        run, message, _, seconds = ended
        if not self._leases.remove(run):
            return
        if message is not None:
            self._commit(message)
        self._reporter.ended(ended)
        if seconds >= self._settings.hung_seconds:
            self._long_ended.append(run)
        if run.outcomes is not None:
            self._upstreams.drop(run)
            run.call = None
        run.context = None  # the run itself may be kept for a while, its arguments need not
        if run.stop is not None:
            self._offer_slots()

    def _commit(self, message: Finish | Retry | Release) -> None:
        session = self._session
        try:
            if isinstance(message, Finish):
                session.finish(message)
            elif isinstance(message, Release):
                session.release(message)
            else:
                session.retry(message)
        except ProtocolError as exc:
            # The run needs an end all the same; what the broker would refuse is left out.
            text = f"The outcome can't be sent: {exc}"
            attempt = 1 if isinstance(message, Release) else max(1, message.attempt)
            session.finish(
                Finish(message.run_id, message.token, "CRASHED", "Crashed", text[:2_000], attempt, 0.0, None)
            )

    # -- time -------------------------------------------------------------------------------------

    def _tick_within(self, seconds: float) -> None:
        when = self._loop.time() + seconds
        if self._timer is not None:
            if self._tick_at <= when:
                return
            self._timer.cancel()
        self._tick_at = when
        self._timer = self._loop.call_at(when, self._tick)
        self._stalls.expect(when)

    def _tick(self) -> None:
        self._timer = None
        self.take_desk()
        self._take_started()
        now = monotonic()
        report = self._stalls.tick(now)
        if report is not None:
            logger.warning("%s", report)
        if self.turns is not None:
            self.turns.adapt(now, self._ends)
            self._ends = 0
        self.stops.run_due(now)
        if self._upstreams.tick(now):
            self._lend_slots()
        if self.stops.stuck >= self._max_stray_threads and self.lifecycle.phase == SERVING:
            reason = f"{self.stops.stuck} threads are stuck in code that does not let go"
            self._stop_useless(reason)
        self._stop_careful(now)
        growing = self._pool.grow()
        if self._leases.active:
            following = FIRST_TICK_SECONDS if growing else TICK_SECONDS
            due = self.stops.deadlines.next
            self._tick_within(following if due is None else min(following, max(0.0, due - now)))

    def _on_lost(self, run: ActiveRun, text: str) -> None:
        """What executed a run is no more."""
        self.take_desk()  # what it has told before
        self.stops.lost(run, text)
        self._offer_slots()

    def _stop_useless(self, reason: str) -> None:
        """Nothing can be executed any more."""
        self.lifecycle.stop(reason, STUCK_GRACE_SECONDS, EXIT_STUCK)

    def _names(self) -> dict[int, str]:
        recent, self._long_ended = self._long_ended, []
        return {**self._loops.names([*recent, *self._leases.active.values()]), **self._pool.names()}

    def _stop_careful(self, now: float) -> None:
        """Stop runs that must not go on without contact, a beat before their lease ends."""
        welcome = self._session.welcome
        if welcome is None or now - self._session.heard < welcome.lease_seconds - welcome.renew_seconds:
            return
        for run in list(self._leases.active.values()):
            if run.careful and run.stop is None:
                logger.warning("No broker was heard for nearly a lease; stopping %s.", run.name)
                self._session.release(Release(run.run_id, run.token))
                self.stops.stop(run, GIVE_UP)

    # -- stopping ---------------------------------------------------------------------------------

    def refuse_new(self) -> None:
        """Serve no keys any more and give back what has not started."""
        self._session.set_free(0)
        self._session.serve([])
        for run in list(self._leases.waiting.values()):
            if self._leases.start(run):
                self._give_back(run)
        self.schedule_flush()

    def release_rest(self) -> None:
        """Give back all runs that are left, and stop their code: the process may live on."""
        self.take_desk()
        for run in list(self._leases.active.values()):
            if run.stop is None:
                run.stop = GIVE_UP
                run.interrupt()
            self._give_back(run)
        self.schedule_flush()

    def _give_back(self, run: ActiveRun) -> None:
        release = Release(run.run_id, run.token)
        self._finish(Ended(run, release, Outcome("given_up", message="handed back"), 0.0))

    @property
    def runs_left(self) -> int:
        """Runs under way here."""
        return len(self._leases.active)

    @property
    def unacknowledged(self) -> int:
        """Leases the broker has not been told the end of."""
        return len(self._session.held)

    def close(self) -> None:
        """No more ticks."""
        self._desk.close()
        if self.turns is not None:
            self.turns.restore()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nothing() -> None:
    """Until there is a connection to flush."""


def _call(work: Callable[[], None]) -> None:
    work()
