"""Runs that were submitted to a task runner: from waiting for others, in no thread, to the final state."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from prefect_lite import direct, upstreams
from prefect_lite.exceptions import SerializationError, UpstreamFailedRun
from prefect_lite.futures import PrefectConcurrentFuture, PrefectFuture
from prefect_lite.run_creation import call_of, new_record
from prefect_lite.run_ends import Outcome, describe, state_of
from prefect_lite.run_inputs import inputs_of
from prefect_lite.states import Cancelled, Crashed, Failed, State, StateType

if TYPE_CHECKING:
    from prefect_lite.runs import TaskRun
    from prefect_lite.tasks import Task

_ends = threading.local()


def parameters_of(task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a task runner is told of a call: arguments by name, without the instance a method is bound to.

    Args:
        task: The task.
        args: Positional arguments, the instance among them.
        kwargs: Keyword arguments.

    Raises:
        ParameterBindError: They don't fit.
    """
    parameters = task.binder.parameters(args, kwargs)
    for name in [*task.signature.parameters][: len(task.bound_to)]:
        parameters.pop(name, None)
    return parameters


class LocalCall:
    """One submitted run.

    Args:
        task: What runs.
        parameters: Its arguments by name.
        wait_for: What has to complete first.
        dependencies: Further inputs for the run's record.

    Attributes:
        ended: Gets the final state as its result, always.
        future: The user's handle on it.
        record: The run's.
        context: Context variables of the caller, for whoever executes it in this process.
    """

    def __init__(
        self,
        task: Task[..., Any],
        parameters: Mapping[str, Any],
        wait_for: Any = None,
        dependencies: Mapping[str, Iterable[Any]] | None = None,
    ) -> None:
        self.task = task
        args, self.kwargs = call_of(task, parameters)
        self.args = (*task.bound_to, *args)
        task.binder.check(self.args, self.kwargs)
        if isinstance(wait_for, Iterator):  # looked at more than once
            wait_for = list(cast("Iterator[Any]", wait_for))
        self.wait_for = wait_for
        self.record = new_record(task, self.args, self.kwargs, wait_for)
        if dependencies:
            more = inputs_of({}, None, dependencies)
            self.record.task_inputs = {**self.record.task_inputs, **more}
        self.context = contextvars.copy_context()
        self.ended: concurrent.futures.Future[State[Any]] = concurrent.futures.Future()
        self.future: PrefectConcurrentFuture[Any] = PrefectConcurrentFuture(
            self.record.run_id, self.ended, self.record
        )
        self._claims = [True]  # popped by who executes it or gives it up: ``list.pop`` is atomic
        self._handed_to: concurrent.futures.Future[Any] | None = None

    # -- before it runs ---------------------------------------------------------------------------

    def when_ready(self, start: Callable[[LocalCall], None]) -> None:
        """Call ``start`` once everything that the run depends on has ended: at once, or in another thread.

        Raises:
            ParameterTypeError: A collection of an unknown kind holds futures.
        """
        futures = upstreams.awaited(self.args, self.kwargs, self.wait_for)
        waits = [future for future in dict.fromkeys(futures) if not future.done]
        if not waits:
            self._start(start)
            return
        lock, left = threading.Lock(), len(waits)

        def one_ended(_: PrefectFuture[Any]) -> None:
            nonlocal left
            with lock:
                left -= 1
                last = left == 0
            if last:
                self._start(start)

        for future in waits:
            future.add_done_callback(one_ended)

    def _start(self, start: Callable[[LocalCall], None]) -> None:
        if not self._claims:
            return  # given up; what would execute it may be closed
        try:
            start(self)
        except Exception as exc:  # nobody above: it may be a callback of the run before
            self.crash(f"The task runner could not start the run: {describe(exc)}", exc)

    def claim(self) -> bool:
        """Become the one who decides how the run ends; False when somebody else is."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        self.ended.set_running_or_notify_cancel()
        return True

    def cancel(self) -> bool:
        """Give the run up if it has not started; returns whether it was given up."""
        if self._handed_to is not None:
            return self._handed_to.cancel()
        if not self.claim():
            return False
        self.finish(Cancelled(message="The run was cancelled before it started."))
        return True

    def resolve(self) -> bool:
        """Put results in the place of futures, which have all ended.

        Returns:
            False when one of them failed: the run has ended then, without having begun.
        """
        try:
            self.args, self.kwargs = direct.resolved(self.record, self.args, self.kwargs, self.wait_for)
        except UpstreamFailedRun as exc:
            self.claim()
            state = state_of(Outcome("upstream_failed", error=exc, message=str(exc)), self.record)
            _one_after_the_other(lambda: self.finish(state))
        except Exception as exc:
            self.crash(describe(exc), exc)
        else:
            self.wait_for = None
            return True
        return False

    # -- how it runs ------------------------------------------------------------------------------

    def run(self) -> None:
        """Execute it in this thread, unless it was given up."""
        if self.claim() and self.resolve():
            self.finish(self.context.run(self.execute))

    def execute(self) -> State[Any]:
        """Execute it in this thread and the current context, with arguments that are resolved."""
        around, _ends.waiting = getattr(_ends, "waiting", None), None  # it may wait for a chain of its own
        try:
            return execute_here(self.task, self.args, self.kwargs, self.record)
        finally:
            _ends.waiting = around

    def hand_to(self, future: concurrent.futures.Future[Any]) -> None:
        """``future`` will execute ``run``; who cancels it gives the run up."""
        self._handed_to = future
        future.add_done_callback(self._maybe_cancelled)

    def await_answer(self, answer: concurrent.futures.Future[Callable[[], State[Any]]]) -> None:
        """The run is elsewhere; ``answer`` will know its state."""
        self._handed_to = answer
        answer.add_done_callback(self._answered)

    def _answered(self, answer: concurrent.futures.Future[Callable[[], State[Any]]]) -> None:
        if self._maybe_cancelled(answer) or not self.claim():
            return
        try:
            state = answer.result()()
        except SerializationError as exc:  # raised where the executor has pickled the call
            self.finish(Failed(message=str(exc), data=exc))
        except BaseException as exc:
            self.crash(f"The executor lost the run: {describe(exc)}", exc)
        else:
            self.finish(state)

    def _maybe_cancelled(self, future: concurrent.futures.Future[Any]) -> bool:
        cancelled = future.cancelled()
        if cancelled and self.claim():
            self.finish(Cancelled(message="The run was cancelled before it started."))
        return cancelled

    # -- how it ends ------------------------------------------------------------------------------

    def crash(self, message: str, error: BaseException | None = None) -> None:
        """The run has ended because what executes it broke."""
        if self.claim() or not self.ended.done():
            self.finish(Crashed(message=message, data=error))

    def finish(self, state: State[Any]) -> None:
        """The run has ended."""
        transitions = self.record.transitions
        last = transitions[-1][0] if transitions else StateType.PENDING
        if last not in (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED):
            self.record.moved(state.type, state.name, state.message)
        self.ended.set_result(state)
        # The future is the user's and may live long; what the run was made of need not.
        self.args, self.kwargs, self.context = (), {}, contextvars.Context()


def _one_after_the_other(end: Callable[[], None]) -> None:
    """Call ``end``, after the one that has led here: a failure may end a long chain of runs, link by link."""
    waiting: list[Callable[[], None]] | None = getattr(_ends, "waiting", None)
    if waiting is not None:
        waiting.append(end)
        return
    waiting = _ends.waiting = [end]
    try:
        while waiting:
            waiting.pop(0)()
    finally:
        _ends.waiting = None


def execute_here(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], record: TaskRun
) -> State[Any]:
    """A whole run in this thread; coroutines get an event loop of their own."""
    context = direct.task_context(task, args, kwargs, record)
    try:
        if task.isasync:
            outcome = asyncio.run(direct.run_async(context, outermost=True))
        else:
            outcome = direct.run_sync(context, outermost=True)
    except BaseException as exc:  # the thread belongs to nobody who could take it
        return Crashed(message=describe(exc), data=exc)
    return state_of(outcome, record)
