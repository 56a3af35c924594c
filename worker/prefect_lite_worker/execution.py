"""One run from its sealed call to its sealed outcome, in the thread or on the loop that executes it.

Nothing here may run on the connection thread: opening a call can run the user's code (unpickling), and so can
sealing a result.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from prefect_lite import envelope
from prefect_lite.context import TaskRun, TaskRunContext, enter_run, leave_run
from prefect_lite.engine import (
    HAND_BACK,
    STATES,
    Outcome,
    describe,
    drive_async,
    drive_sync,
    is_bind_error,
    retried,
)
from prefect_lite.exceptions import (
    CrashedRun,
    EnvelopeRejected,
    ParameterBindError,
    PayloadTooLarge,
    SerializationError,
    UpstreamFailedRun,
)
from prefect_lite.keyring import Keyring
from prefect_lite.logging import get_logger
from prefect_lite.options import Options, applied
from prefect_lite.placeholders import ids_in
from prefect_lite.protocol.messages import Finish, Release, Retry
from prefect_lite_worker.desk import Desk, Ended
from prefect_lite_worker.leases import ActiveRun, Leases, LoopRun, ThreadRun
from prefect_lite_worker.reporting import sendable
from prefect_lite_worker.upstreams import fill_in

logger = get_logger("worker")
monotonic = time.monotonic

MAX_MESSAGE = 2_000
"""Characters of a state's message; the exception itself travels whole."""


class Execution:
    """Executes runs and leaves the outcome on the desk.

    Args:
        leases: Decides whether a run is still to be started.
        desk: Takes what happens.
        keyring: Opens calls and seals results.
        namespace: Part of what is signed.
        max_payload_bytes: Longest sealed result.
    """

    def __init__(
        self, leases: Leases, desk: Desk, keyring: Keyring, namespace: str, max_payload_bytes: int
    ) -> None:
        self._leases = leases
        self._desk = desk
        self._keyring = keyring
        self._namespace = namespace
        self.max_payload_bytes = max_payload_bytes
        self._changed: dict[tuple[int, str], Options] = {}

    def in_thread(self, run: ThreadRun) -> None:
        """Execute a function; the context is this thread's for the time being."""
        if not self._leases.start(run):
            return
        try:
            context = self._open(run)
            if context is not None:
                enter_run(context)
                self._close(run, context, drive_sync(context, run))
        except BaseException as exc:
            self._broken(run, exc)

    async def on_loop(self, run: LoopRun, loop: asyncio.AbstractEventLoop) -> None:
        """Execute a coroutine function, as an asyncio task of its own."""
        if not self._leases.start(run):
            return
        run.handle = asyncio.current_task(loop)  # asking which loop runs is a system call until Python 3.12
        try:
            context = self._open(run)
            if context is not None:
                enter_run(context)
                self._close(run, context, await drive_async(context, run))
        except GeneratorExit:
            raise  # the loop is being thrown away
        except BaseException as exc:
            self._broken(run, exc)
        finally:
            run.handle = None

    def retry(self, run: ActiveRun, context: TaskRunContext, outcome: Outcome, seconds: float) -> None:
        """End a run that may be tried again and whose code has not let go; in a thread of its own."""
        token = enter_run(context)
        try:
            self._close(run, context, retried(context, outcome), seconds)
        except BaseException as exc:
            self._broken(run, exc)
        finally:
            leave_run(token)

    def _open(self, run: ActiveRun) -> TaskRunContext | None:
        """Verify and decode the call; None when the run has ended over it, or first needs other outcomes."""
        task = run.task
        try:
            call = run.call or envelope.open_call(
                self._keyring, self._namespace, run.task_key, run.run_id, run.body
            )
            args, kwargs, changes = call
            if type(call) is envelope.LinkedCall:
                if run.outcomes is None:
                    self._need(run, call)
                    return None
                args, kwargs = fill_in(call, run.outcomes, self._keyring, self._namespace)
                run.call = None
                run.outcomes.clear()
            options = self._options(task, changes) if changes else task.options
        except UpstreamFailedRun as exc:
            error = exc.with_traceback(None)  # it would show this code only
            outcome = Outcome("upstream_failed", error=error, message=str(exc))
            self._desk.end(Ended(run, self.failure(run, outcome, 0.0), outcome, 0.0))
            return None
        except EnvelopeRejected as exc:
            self._fail(run, exc, f"The call was refused: {exc}")
            return None
        except Exception as exc:
            self._fail(run, exc, f"The call can't be decoded on this worker: {describe(exc)}")
            return None
        except BaseException as exc:
            # Its arguments' own code wants to leave. Rebuilt in a caller that would end the caller.
            text = f"The call can't be decoded on this worker: {describe(exc)}"
            outcome = Outcome("crashed", error=CrashedRun(text), message=text)
            self._desk.end(Ended(run, self.failure(run, outcome, 0.0), outcome, 0.0))
            return None
        run.body = b""  # arguments may be large, and the run long
        run.timeout = options.timeout_seconds
        run.careful = options.stop_on_lost_contact
        record = TaskRun(run.run_id, run.task_key, options.name or task.name, run.attempt, options.version)
        context = run.context = TaskRunContext(task, options, record, args, kwargs, run)
        return context

    def _need(self, run: ActiveRun, call: envelope.LinkedCall) -> None:
        """Have the outcomes fetched that the call has placeholders for; nothing here waits for them."""
        run.call = call
        run.body = b""
        self._desk.need(run, ids_in(call.args, call.kwargs))

    def _options(self, task: Any, changes: dict[str, Any]) -> Options:
        """The task's options with those that travelled; remembered, as validating them takes long."""
        key = (id(task), repr(changes))
        options = self._changed.get(key)
        if options is None:
            if len(self._changed) >= 1_000:
                self._changed.clear()
            options = self._changed[key] = applied(task.options, changes)
        return options

    def _close(
        self, run: ActiveRun, context: TaskRunContext, outcome: Outcome, seconds: float | None = None
    ) -> None:
        """Seal the outcome and put it on the desk."""
        if seconds is None:
            seconds = monotonic() - run.started
        kind = outcome.kind
        if kind == "completed":
            sealed = self._seal_value(run, outcome)
            if isinstance(sealed, Outcome):
                self._fail(run, sealed.error, sealed.message, seconds)
                return
            finish = Finish(run.run_id, run.token, "COMPLETED", "Completed", "", run.attempt, seconds, sealed)
            self._desk.end(Ended(run, finish, outcome, seconds))
        elif kind == "given_up":
            message = Release(run.run_id, run.token) if run.stop == HAND_BACK else None
            self._desk.end(Ended(run, message, outcome, seconds))
        elif kind == "retry":
            retry = Retry(
                run.run_id,
                run.token,
                outcome.after_seconds,
                run.attempt + 1,
                sendable(outcome.message, MAX_MESSAGE),
            )
            self._desk.end(Ended(run, retry, outcome, seconds))
        elif kind == "failed" and is_bind_error(context, outcome.error):
            text = (
                f"The arguments don't fit {context.task_run.task_name}{run.task.signature}: {outcome.error}."
            )
            self._fail(run, ParameterBindError(text), text, seconds)
        else:
            self._desk.end(Ended(run, self.failure(run, outcome, seconds), outcome, seconds))

    def _seal_value(self, run: ActiveRun, outcome: Outcome) -> bytes | Outcome:
        try:
            sealed = envelope.seal_value(
                self._keyring, self._namespace, run.task_key, run.run_id, outcome.value
            )
        except Exception as exc:
            text = f"The result of {run.task_key} can't be serialized: {exc}"
            error = SerializationError(text)
            error.__cause__ = exc
            return Outcome("failed", error=error, message=text)
        if len(sealed) <= self.max_payload_bytes:
            return sealed
        text = (
            f"The result of {run.task_key} has {len(sealed):,} bytes; at most {self.max_payload_bytes:,} "
            "are allowed (PREFECT_LITE_MAX_PAYLOAD_BYTES)."
        )
        return Outcome("failed", error=PayloadTooLarge(text, run_id=run.run_id), message=text)

    def failure(self, run: ActiveRun, outcome: Outcome, seconds: float) -> Finish:
        """FINISH for anything but success. The connection thread calls it too, for errors of our own."""
        state, name = STATES[outcome.kind]
        error = outcome.error
        sealed = None
        if error is not None:
            trace = error.__traceback__
            # The first frame is the engine's; people want to see theirs.
            if trace is not None and trace.tb_next is not None:
                error.with_traceback(trace.tb_next)  # assigning would fail with a frozen dataclass
            sealed = envelope.seal_error(self._keyring, self._namespace, run.task_key, run.run_id, error)
            if len(sealed) > self.max_payload_bytes:
                sealed = None
        message = sendable(outcome.message, MAX_MESSAGE)
        return Finish(run.run_id, run.token, state.value, name, message, run.attempt, seconds, sealed)

    def _fail(self, run: ActiveRun, error: BaseException | None, text: str, seconds: float = 0.0) -> None:
        outcome = Outcome("failed", error=error, message=text)
        self._desk.end(Ended(run, self.failure(run, outcome, seconds), outcome, seconds))

    def _broken(self, run: ActiveRun, exc: BaseException) -> None:
        """A defect of ours, or a SystemExit while decoding, must not leave a run without an end."""
        logger.critical("Run %s broke the worker's own code.", run.run_id, exc_info=exc)
        text = f"The worker failed to execute the run: {describe(exc)}"
        outcome = Outcome("crashed", error=None, message=text)
        self._desk.end(Ended(run, self.failure(run, outcome, 0.0), outcome, 0.0))
