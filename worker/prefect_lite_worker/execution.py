"""One run from its sealed call to its sealed outcome, in the thread or on the loop that executes it.

Nothing here may run on the connection thread: opening a call can run the user's code (unpickling), and so can
sealing a result.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from prefect_lite import belonging, envelope
from prefect_lite.context import TaskRun, TaskRunContext, enter_run, leave_run, stay_in_run
from prefect_lite.encoding import encode
from prefect_lite.engine import conclude, drive_async, drive_sync, without_first_frame
from prefect_lite.exceptions import (
    CrashedRun,
    EnvelopeRejected,
    ParameterBindError,
    PayloadTooLarge,
    PrefectException,
    SerializationError,
    StorageError,
    UpstreamFailedRun,
)
from prefect_lite.keyring import Keyring
from prefect_lite.logging import get_logger
from prefect_lite.options import Options, applied
from prefect_lite.placeholders import ids_in
from prefect_lite.protocol.messages import Finish, Release, Retry
from prefect_lite.retry_decisions import is_bind_error, retried
from prefect_lite.run_ends import HAND_BACK, STATES, Outcome, describe, stopped_outcome, upstream_failed
from prefect_lite.settings import Settings
from prefect_lite.tagging import enter_tags
from prefect_lite.thread_or_loop import in_thread
from prefect_lite.upstream_results import fill_in
from prefect_lite_worker.desk import Desk, Ended
from prefect_lite_worker.leases import ActiveRun, Leases, LoopRun, ThreadRun
from prefect_lite_worker.reporting import sendable

logger = get_logger("worker")
monotonic = time.monotonic

MAX_MESSAGE = 2_000
"""Characters of a state's message; the exception itself travels whole."""

MAX_NAME = 100
"""The same of the name of a state that a task has returned."""

MAX_RUN_NAME = 500
"""The same of what a task calls its run."""

LONG_BYTES = 256 * 1024
"""From here on a payload is verified and signed beside the event loop: 10 MB held up all that runs there for
twice 6 ms on an idle machine, and for 40 on a busy one. In shorter ones the change of threads costs more."""

SIGNING_THREADS = 4
"""For all loops together. The user's tasks do not run in them; a slow storage may hold them up."""


class Execution:
    """Executes runs and leaves the outcome on the desk.

    Args:
        leases: Decides whether a run is still to be started.
        desk: Takes what happens.
        keyring: Opens calls and seals results.
        namespace: Part of what is signed.
        max_payload_bytes: Longest sealed result that a broker takes.
        settings: Where longer ones than ``inline_result_bytes`` go; None: nowhere.

    Attributes:
        long_bytes: From here on sealing a result may take long.
    """

    def __init__(
        self,
        leases: Leases,
        desk: Desk,
        keyring: Keyring,
        namespace: str,
        max_payload_bytes: int,
        settings: Settings | None = None,
    ) -> None:
        self._leases = leases
        self._desk = desk
        self._keyring = keyring
        self._namespace = namespace
        self.max_payload_bytes = max_payload_bytes
        self._settings = settings
        self._inline = max_payload_bytes if settings is None else settings.inline_result_bytes
        self.long_bytes = LONG_BYTES if settings is None else min(LONG_BYTES, settings.inline_result_bytes)
        self._changed: dict[tuple[int, str], Options] = {}
        self.beside = ThreadPoolExecutor(SIGNING_THREADS, "prefect-lite-signing")

    def close(self) -> None:
        """Start no threads any more; what ends from here on is of no effect."""
        self.beside.shutdown(wait=False)

    def in_thread(self, run: ThreadRun) -> None:
        """Execute a function; the caller has a copy of its context variables for it."""
        if not self._leases.start(run):
            return
        try:
            context = self._open(run)
            if context is not None:
                stay_in_run(context)
                if context.run.call_tags:
                    enter_tags(context.run.call_tags)
                self._close(run, context, drive_sync(context, run))
        except BaseException as exc:
            self.broken(run, exc)

    async def on_loop(self, run: LoopRun, loop: asyncio.AbstractEventLoop) -> None:
        """Execute a coroutine function, as an asyncio task of its own."""
        if not self._leases.start(run):
            return
        run.handle = asyncio.current_task(loop)  # asking which loop runs is a system call until Python 3.12
        try:
            if run.outcomes and any(envelope.is_reference(one.result) for one in run.outcomes.values()):
                # They are read from storages, which may take long.
                context = await loop.run_in_executor(self.beside, self._open, run)
            elif len(run.body) < LONG_BYTES:
                context = self._open(run)
            else:
                context = await self._open_beside(run, loop)
            if context is not None:
                stay_in_run(context)
                if context.run.call_tags:
                    enter_tags(context.run.call_tags)  # for this asyncio task only
                self._close(run, context, await drive_async(context, run), beside=True)
        except GeneratorExit:
            raise  # the loop is being thrown away
        except BaseException as exc:
            self.broken(run, exc)
        finally:
            run.handle = None

    def retry(
        self,
        run: ActiveRun,
        context: TaskRunContext,
        outcome: Outcome,
        seconds: float,
        *,
        hooks: bool = False,
    ) -> None:
        """End a run whose code has not let go, or is no more, and which may be tried again.

        Args:
            run: The run; the calling thread has nothing else to do, as code of the user decides.
            context: Its context.
            outcome: How this attempt has ended.
            seconds: After so long.
            hooks: Call those for its end, as its own code can't any more.
        """
        token = enter_run(context)
        try:
            outcome = in_thread(retried(context, outcome))
            self._close(run, context, conclude(context, outcome) if hooks else outcome, seconds)
        except BaseException as exc:
            self.broken(run, exc)
        finally:
            leave_run(token)

    async def _open_beside(self, run: LoopRun, loop: asyncio.AbstractEventLoop) -> TaskRunContext | None:
        """``_open`` for a long call, which is verified in another thread; the loop goes on meanwhile."""
        try:
            verified = await loop.run_in_executor(self.beside, self._verify, run)
        except asyncio.CancelledError:
            run.stop = (
                run.stop or HAND_BACK
            )  # the program's loop ends, and with it everything that runs there
        except RuntimeError:
            return self._open(run)  # the worker or the interpreter ends
        else:
            if run.stop is None:
                return self._open(run, verified)
        self.let_go(run, run.stop)
        return None

    def _verify(self, run: ActiveRun) -> envelope.Verified | EnvelopeRejected:
        try:
            return envelope.verify_call(self._keyring, self._namespace, run.task_key, run.run_id, run.body)
        except EnvelopeRejected as exc:
            return exc

    def let_go(self, run: ActiveRun, reason: str) -> None:
        """End a run that was stopped before its code has started."""
        outcome = stopped_outcome(run.task.name, reason, None, started=False)
        if outcome.kind != "given_up":
            self._desk.end(Ended(run, self.failure(run, outcome, 0.0), outcome, 0.0))
            return
        message = Release(run.run_id, run.token) if reason == HAND_BACK else None
        self._desk.end(Ended(run, message, outcome, 0.0))

    def _open(
        self, run: ActiveRun, verified: envelope.Verified | EnvelopeRejected | None = None
    ) -> TaskRunContext | None:
        """Verify and decode the call; None when the run has ended over it, or first needs other outcomes.

        Args:
            run: The run.
            verified: What ``_verify`` has found, if it was asked.
        """
        task = run.task
        try:
            call = run.call or (
                envelope.open_call(self._keyring, self._namespace, run.task_key, run.run_id, run.body)
                if verified is None
                else self._decode(verified)
            )
            args, kwargs, changes = call
            if type(call) is envelope.LinkedCall:
                if run.outcomes is None:
                    self._need(run, call)
                    return None
                args, kwargs = fill_in(call, run.outcomes, self._keyring, self._namespace)
                run.call = None
                run.outcomes.clear()
            options = self.options_for(task, changes) if changes else task.options
        except UpstreamFailedRun as exc:
            outcome = upstream_failed(exc.with_traceback(None))  # it would show this code only
            self._desk.end(Ended(run, self.failure(run, outcome, 0.0), outcome, 0.0))
            return None
        except EnvelopeRejected as exc:
            self.fail(run, exc, f"The call was refused: {exc}")
            return None
        except Exception as exc:
            text = f"The call can't be decoded on this worker: {describe(exc)}"
            self.fail(run, without_first_frame(exc), text)
            return None
        except BaseException as exc:
            # Its arguments' own code wants to leave. Rebuilt in a caller that would end the caller.
            text = f"The call can't be decoded on this worker: {describe(exc)}"
            outcome = Outcome("crashed", error=CrashedRun(text), message=text)
            self._desk.end(Ended(run, self.failure(run, outcome, 0.0), outcome, 0.0))
            return None
        run.body = b""  # arguments may be large, and the run long
        return self.enter(run, options, args, kwargs, changes.get(belonging.OPTION))

    def enter(
        self,
        run: ActiveRun,
        options: Options,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        packed: bytes | None = None,
    ) -> TaskRunContext:
        """Give a run its context; its arguments may stay unknown where they are not used.

        Args:
            run: The run.
            options: Its options.
            args: Positional arguments.
            kwargs: The same by name.
            packed: What came along of where it belongs.
        """
        run.timeout = options.timeout_seconds
        run.careful = options.stop_on_lost_contact
        name = options.name or run.task.name
        record = TaskRun(run.run_id, run.task_key, name, run.attempt, options.version)
        if options.tags:
            record.tags = frozenset(options.tags)
        if packed is not None:
            belonging.restore(record, packed)
        context = run.context = TaskRunContext(run.task, options, record, args, kwargs, run)
        return context

    def _decode(self, verified: envelope.Verified | EnvelopeRejected) -> envelope.Call:
        if isinstance(verified, EnvelopeRejected):
            raise verified
        return envelope.decode_verified(self._keyring, verified)

    def _need(self, run: ActiveRun, call: envelope.LinkedCall) -> None:
        """Have the outcomes fetched that the call has placeholders for; nothing here waits for them."""
        run.call = call
        run.body = b""
        self._desk.need(run, ids_in(call.args, call.kwargs))

    def options_for(self, task: Any, changes: dict[str, Any]) -> Options:
        """The task's options with those that travelled; remembered, as validating them takes long."""
        if belonging.OPTION in changes:
            changes = {name: value for name, value in changes.items() if name != belonging.OPTION}
            if not changes:
                return task.options
        key = (id(task), repr(changes))
        options = self._changed.get(key)
        if options is None:
            if len(self._changed) >= 1_000:
                self._changed.clear()
            options = self._changed[key] = applied(task.options, changes)
        return options

    def _close(
        self,
        run: ActiveRun,
        context: TaskRunContext,
        outcome: Outcome,
        seconds: float | None = None,
        *,
        beside: bool = False,
    ) -> None:
        """Seal the outcome and put it on the desk; with ``beside``, a long one soon, from another thread."""
        if seconds is None:
            seconds = monotonic() - run.started if run.started else 0.0  # it could not be named
        kind = outcome.kind
        if kind == "completed":
            if outcome.reference is not None:
                self._complete(run, outcome, seconds, 0, b"")
                return
            try:
                # A returned state stands for what is in it.
                own = outcome.state is None or outcome.kept is not None
                value = outcome.value if own else cast("Any", outcome.state).data
                codec, payload = encode(value, allow_pickle=self._keyring.signs)
            except Exception as exc:
                self._not_serializable(run, exc, seconds)
                return
            if beside and len(payload) >= self.long_bytes:
                self._complete_beside(run, outcome, seconds, codec, payload)
            else:
                self._complete(run, outcome, seconds, codec, payload)
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
            self.fail(run, ParameterBindError(text), text, seconds)
        else:
            self._desk.end(Ended(run, self.failure(run, outcome, seconds), outcome, seconds))

    def _complete(self, run: ActiveRun, outcome: Outcome, seconds: float, codec: int, payload: bytes) -> None:
        """Sign the encoded value, or where it is, and put it on the desk."""
        key, run_id = run.task_key, run.run_id
        try:
            if outcome.reference is not None:
                place = self._keyring, self._namespace, key, run_id
                sealed = envelope.seal_reference(*place, outcome.reference)
            else:
                sealed = envelope.seal(
                    self._keyring,
                    envelope.RESULT,
                    self._namespace,
                    key,
                    run_id,
                    codec,
                    envelope.VALUE,
                    payload,
                )
        except Exception as exc:
            self._not_serializable(run, exc, seconds)
            return
        if len(sealed) > self._inline or len(sealed) > self.max_payload_bytes:
            try:
                sealed = self.bounded(run, sealed)
            except PrefectException as exc:
                self.fail(run, exc, str(exc), seconds)
                return
        name, message = "Completed", ""
        if outcome.state is not None and (outcome.returned or outcome.kept is not None):
            name = sendable(outcome.state.name, MAX_NAME)
            message = sendable(outcome.message, MAX_MESSAGE)
        own_name = _own_name(run)
        finish = Finish(run_id, run.token, "COMPLETED", name, message, run.attempt, seconds, sealed, own_name)
        self._desk.end(Ended(run, finish, outcome, seconds))

    def bounded(self, run: ActiveRun, sealed: bytes) -> bytes:
        """A sealed result, or the reference to it where it is too long for Redis and there is a storage.

        Not for the connection thread: the storage may be slow.

        Raises:
            PayloadTooLarge: No broker takes it, and there is no storage.
            PrefectException: It was not to be written there.
        """
        if (
            self._settings is None
            or run.context is None
            or len(sealed) <= min(self._settings.inline_result_bytes, self.max_payload_bytes)
        ):
            self._check_length(run, len(sealed))
            return sealed
        from prefect_lite import stored_results  # few results are so long

        try:
            storage = in_thread(stored_results.storage_for_long_results(run.context, self._settings))
            if storage is not None:
                reference = in_thread(stored_results.storing(storage, run.run_id, sealed))
                place = self._keyring, self._namespace, run.task_key, run.run_id
                return envelope.seal_reference(*place, reference)
        except Exception as exc:
            if len(sealed) > self.max_payload_bytes:
                text = f"The result of {run.task_key} has {len(sealed):,} bytes and can't be stored: {exc}"
                raise StorageError(text) from exc
            logger.warning(
                "The result of run %s goes to the broker instead of its storage: %s", run.run_id, exc
            )
        self._check_length(run, len(sealed))
        return sealed

    def _check_length(self, run: ActiveRun, length: int) -> None:
        if length > self.max_payload_bytes:
            raise PayloadTooLarge(
                f"The result of {run.task_key} has {length:,} bytes; at most {self.max_payload_bytes:,} are "
                f"allowed (PREFECT_LITE_MAX_PAYLOAD_BYTES). Give it a place for long results "
                f"(PREFECT_LITE_RESULT_STORAGE, or the option result_storage).",
                run_id=run.run_id,
            )

    def _complete_beside(self, run: ActiveRun, *encoded: Any) -> None:
        """``_complete`` in another thread, which the run's coroutine need not wait for."""

        def complete() -> None:
            try:
                self._complete(run, *encoded)
            except BaseException as exc:
                self.broken(run, exc)

        try:
            self.beside.submit(complete)
        except RuntimeError:
            complete()  # the worker or the interpreter ends

    def _not_serializable(self, run: ActiveRun, exc: Exception, seconds: float) -> None:
        text = f"The result of {run.task_key} can't be serialized: {exc}"
        error = SerializationError(text)
        error.__cause__ = exc
        self.fail(run, error, text, seconds)

    def failure(self, run: ActiveRun, outcome: Outcome, seconds: float) -> Finish:
        """FINISH for anything but success. The connection thread calls it too, for errors of our own."""
        state, name = STATES[outcome.kind]
        if outcome.returned and outcome.state is not None:
            name = sendable(outcome.state.name, MAX_NAME)
        error = outcome.error
        sealed = None
        if error is not None:
            sealed = envelope.seal_error(self._keyring, self._namespace, run.task_key, run.run_id, error)
            if len(sealed) > self.max_payload_bytes:
                sealed = None
        message = sendable(outcome.message, MAX_MESSAGE)
        own_name = _own_name(run)
        return Finish(
            run.run_id, run.token, state.value, name, message, run.attempt, seconds, sealed, own_name
        )

    def fail(self, run: ActiveRun, error: BaseException | None, text: str, seconds: float = 0.0) -> None:
        outcome = Outcome("failed", error=error, message=text)
        self._desk.end(Ended(run, self.failure(run, outcome, seconds), outcome, seconds))

    def broken(self, run: ActiveRun, exc: BaseException) -> None:
        """A defect of ours, or a SystemExit while decoding, must not leave a run without an end."""
        logger.critical("Run %s broke the worker's own code.", run.run_id, exc_info=exc)
        text = f"The worker failed to execute the run: {describe(exc)}"
        outcome = Outcome("crashed", error=None, message=text)
        self._desk.end(Ended(run, self.failure(run, outcome, 0.0), outcome, 0.0))


def _own_name(run: ActiveRun) -> str:
    """What the task's option ``task_run_name`` calls the run, if it does."""
    name = run.context.run.given_name if run.context is not None else None
    return sendable(name, MAX_RUN_NAME) if name else ""
