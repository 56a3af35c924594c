"""One eager run, from its sealed call to its sealed outcome."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect_lite import belonging, clock, envelope, known_tasks, run_history
from prefect_lite.direct import run_async, run_sync, task_context
from prefect_lite.exceptions import (
    EnvelopeRejected,
    ParameterBindError,
    PayloadTooLarge,
    SerializationError,
    UpstreamFailedRun,
)
from prefect_lite.options import applied
from prefect_lite.outcomes import open_record, state_from_record
from prefect_lite.own_loop import run_in_own_loop
from prefect_lite.protocol.messages import RunState, Submit
from prefect_lite.retry_decisions import is_bind_error
from prefect_lite.run_ends import STATES, Outcome, describe
from prefect_lite.runs import TaskRun
from prefect_lite.states import StateType
from prefect_lite.tagging import enter_tags
from prefect_lite.upstream_results import ended_how, fill_in

if TYPE_CHECKING:
    from prefect_lite.context import TaskRunContext
    from prefect_lite.keyring import Keyring
    from prefect_lite.settings import Settings

MILLISECOND_NS = 1_000_000


class EagerRun:
    """A run that was submitted.

    Args:
        message: Says what to run.
        keyring: Opens the call, seals the result.
        namespace: Part of what is signed.
        settings: Limits.
        records: The ends of all runs before this one.

    Attributes:
        end: How it has ended; unknown before, and when something from outside has ended it.
        interrupt: Ctrl-C came while it ran.
    """

    def __init__(
        self,
        message: Submit,
        keyring: Keyring,
        namespace: str,
        settings: Settings,
        records: Mapping[str, RunState],
    ) -> None:
        self._message = message
        self._keyring = keyring
        self._namespace = namespace
        self._settings = settings
        self._records = records
        self._begun_ns = clock.time_ns()
        self._task = known_tasks.find(message.task_key)
        self._record: TaskRun | None = None
        self.end = RunState(message.run_id)
        self.interrupt: KeyboardInterrupt | None = None

    @property
    def is_async(self) -> bool:
        """Whether ``execute_async`` is to be awaited; else ``execute`` is to be called."""
        return self._task is not None and self._task.isasync

    def execute(self) -> None:
        """Run a function in this thread, and a coroutine function on an event loop of its own.

        In a context that is its own.
        """
        if self.is_async:
            run_in_own_loop(self.execute_async(alone=True))
            return
        context = self._opened()
        if isinstance(context, RunState):
            self._note(context)
            return
        outcome = run_sync(context, outermost=True)
        self._note(self._sealed(outcome, context))
        if isinstance(outcome.value, KeyboardInterrupt):
            self.interrupt = outcome.value

    async def execute_async(self, *, alone: bool = False) -> None:
        """Run a coroutine function on the running loop, in an asyncio task of its own.

        Args:
            alone: There is nothing else on the loop: who cancels this is ``asyncio.run``, told by Ctrl-C.
        """
        context = self._opened()
        if isinstance(context, RunState):
            self._note(context)
            return
        outcome = await run_async(context, outermost=True)
        self._note(self._sealed(outcome, context))
        running = asyncio.current_task()
        if alone and running is not None and running.cancelling():
            self.interrupt = KeyboardInterrupt()

    def _note(self, end: RunState) -> None:
        """Let ``get_client`` tell of the run: the record of this process stands for that of a broker."""
        self.end, record = end, self._record
        if record is None:
            return
        if record.state_name != end.name:  # the engine has not seen this end
            record.moved(StateType(end.type), end.name, end.message or None)
        record.state = state_from_record(end, open_record(self._keyring, self._namespace, end))
        run_history.remember(record)

    # -- the call ---------------------------------------------------------------------------------

    def _opened(self) -> TaskRunContext | RunState:
        """The run's context, or its end if it has none."""
        message, task = self._message, self._task
        if task is None:
            text = f"No task with the key {message.task_key!r} is defined in this process."
            return self._failed(SerializationError(text), text)
        record = self._record = TaskRun(message.run_id, message.task_key, task.name, 0, task.options.version)
        record.transitions = [(StateType.SCHEDULED, "Scheduled", None, self._begun_ns)]
        record.tags = frozenset(message.tags)
        try:
            self._check_upstreams()
            call = envelope.open_call(
                self._keyring, self._namespace, message.task_key, message.run_id, message.body
            )
            args, kwargs = call.args, call.kwargs
            if type(call) is envelope.LinkedCall:
                args, kwargs = fill_in(call, _Ends(self._records), self._keyring, self._namespace)
        except UpstreamFailedRun as exc:
            return self._state("upstream_failed", str(exc), self._error(exc.with_traceback(None)))
        except EnvelopeRejected as exc:
            return self._failed(exc, f"The call was refused: {exc}")
        except Exception as exc:
            return self._failed(exc, f"The call can't be decoded on this worker: {describe(exc)}")
        options = applied(task.options, call.options) if call.options else task.options
        record.task_name, record.version = options.name or task.name, options.version
        packed = call.options.get(belonging.OPTION)
        if packed is not None:
            belonging.restore(record, packed)
            enter_tags(record.call_tags)
        context = task_context(task, args, kwargs, record)
        context.options, context.lease = options, _LEASE
        return context

    def _check_upstreams(self) -> None:
        """Raises: UpstreamFailedRun: A run that has to be completed is not, or unknown."""
        for run_id in self._message.parents:
            record = self._records.get(run_id) or RunState(run_id)
            if record.type != StateType.COMPLETED:
                raise UpstreamFailedRun(
                    f"Run {UUID(run_id)}, which this one waited for, {ended_how(record)}."
                )

    # -- the outcome ------------------------------------------------------------------------------

    def _sealed(self, outcome: Outcome, context: TaskRunContext) -> RunState:
        key = self._message.task_key
        if outcome.kind == "completed":
            try:
                if outcome.reference is not None:
                    sealed = self._seal(envelope.seal_reference, outcome.reference)
                else:
                    own = outcome.state is None or outcome.kept is not None
                    value = outcome.value if own else cast("Any", outcome.state).data
                    sealed = self._seal(envelope.seal_value, value)
            except Exception as exc:
                text = f"The result of {key} can't be serialized: {exc}"
                return self._failed(SerializationError(text), text)
            if len(sealed) > self._settings.max_payload_bytes:
                text = (
                    f"The result of {key} has {len(sealed):,} bytes; at most "
                    f"{self._settings.max_payload_bytes:,} are allowed (PREFECT_LITE_MAX_PAYLOAD_BYTES)."
                )
                return self._failed(PayloadTooLarge(text, run_id=self._message.run_id), text)
            return self._named("completed", outcome, sealed)
        if outcome.kind == "failed" and is_bind_error(context, outcome.error):
            text = f"The arguments don't fit {context.run.label}{context.task.signature}: {outcome.error}."
            return self._failed(ParameterBindError(text), text)
        error = outcome.error
        return self._named(outcome.kind, outcome, self._error(error) if error is not None else None)

    def _named(self, kind: str, outcome: Outcome, result: bytes | None) -> RunState:
        state = self._state(kind, outcome.message, result)
        if outcome.state is not None and (outcome.returned or outcome.kept is not None):
            return state._replace(name=outcome.state.name)
        return state

    def _failed(self, error: BaseException, text: str) -> RunState:
        return self._state("failed", text, self._error(error))

    def _error(self, error: BaseException) -> bytes:
        return self._seal(envelope.seal_error, error)

    def _seal(self, seal: Callable[[Keyring, str, str, str, Any], bytes], what: Any) -> bytes:
        return seal(self._keyring, self._namespace, self._message.task_key, self._message.run_id, what)

    def _state(self, kind: str, message: str, result: bytes | None) -> RunState:
        type_, name = STATES[kind]
        begun = self._begun_ns // MILLISECOND_NS
        attempts = self._record.run_count if self._record is not None else 0
        return RunState(
            self._message.run_id,
            type_.value,
            name,
            message,
            self._message.task_key,
            attempt=attempts,
            submitted_ms=begun,
            started_ms=begun if attempts else 0,
            ended_ms=clock.time_ns() // MILLISECOND_NS,
            result=result,
        )


class _Lease:
    """Makes a run one of the background; there is no slot to lend, and nobody keeps its log."""

    lock_patience_seconds = math.inf

    def line(self, line: list[Any]) -> None:
        """See ``RunLease``."""

    def lend(self, waits: int) -> None:
        """See ``RunLease``."""


_LEASE = _Lease()


class _Ends(dict[str, RunState]):
    """Ends of runs; those that there is no record of are unknown."""

    def __missing__(self, run_id: str) -> RunState:
        return RunState(run_id)
