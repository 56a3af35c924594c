"""Running a task: what an attempt's end leads to, and one short driver each for functions and coroutines.

The worker and a direct call (``add(1, 2)``) share all of it; they differ in the ``Control`` they pass, which
is told when an attempt begins and ends and knows whether somebody stopped it. Retries without delay run on in
place; a retry with a delay is handed back to the caller, who sleeps (direct call) or gives the run back.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from prefect_lite import retries
from prefect_lite.context import TaskRunContext
from prefect_lite.exceptions import CancelledRun, CrashedRun, TaskRunTimeoutError
from prefect_lite.hooks import Hooks, acall_hooks, call_hooks
from prefect_lite.interrupts import RunInterrupted
from prefect_lite.logging.prints import prints_to_log
from prefect_lite.own_loop import run_in_own_loop
from prefect_lite.run_names import given_name
from prefect_lite.states import Retrying, Running, State, StateType

if TYPE_CHECKING:
    from prefect_lite.tasks import Task

TIMEOUT, CANCEL, GIVE_UP, HAND_BACK = "timeout", "cancel", "give up", "hand back"
"""Why an attempt was stopped from outside: its deadline, a request, the end of its lease or worker, or (for
coroutines) the end of the program's event loop while the lease is still held."""

_NO_PRINTS = nullcontext()

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
"""Types of arguments that can't hold futures; most have one of these."""


class Outcome(NamedTuple):
    """How an attempt ended.

    Attributes:
        kind: completed, failed, timed_out, cancelled, crashed, upstream_failed, retry, or given_up (nothing
            to report).
        value: What the task returned.
        error: What it raised, or the exception that stands for what happened to it.
        message: A sentence for people.
        after_seconds: With ``retry``, the wait before the next attempt.
    """

    kind: str
    value: Any = None
    error: BaseException | None = None
    message: str = ""
    after_seconds: float = 0.0


STATES: dict[str, tuple[StateType, str]] = {
    "completed": (StateType.COMPLETED, "Completed"),
    "failed": (StateType.FAILED, "Failed"),
    "timed_out": (StateType.FAILED, "TimedOut"),
    "cancelled": (StateType.CANCELLED, "Cancelled"),
    "crashed": (StateType.CRASHED, "Crashed"),
    "upstream_failed": (StateType.FAILED, "UpstreamFailed"),
}
"""State type and name of each final kind."""


class Control(Protocol):
    """What a driver tells about a run's attempts, and asks.

    Attributes:
        outermost: Nothing above this run may see its SystemExit, CancelledError and the like: they end
            the run as crashed. False for a direct call, where they belong to the caller.
    """

    outermost: bool

    def begin(self, attempt: int) -> None:
        """User code is about to start; from now on the attempt may be interrupted.

        Raises:
            RunInterrupted: The run was stopped before it began.
        """
        ...

    def end(self) -> str | None:
        """User code has ended; from now on nothing can interrupt. Returns why it was stopped, or None."""
        ...

    def stop_reason(self) -> str | None:
        """Why the run is to be stopped, if it is."""
        ...


def describe(error: BaseException) -> str:
    """``ValueError: boom``, or the bare type when it has no text."""
    try:
        text = str(error)
    except Exception as exc:  # it may be the user's own __str__
        text = f"(its text raised {type(exc).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def state_of(outcome: Outcome) -> State[Any]:
    """The state that hooks and retry conditions see."""
    kind, name = STATES.get(outcome.kind, (StateType.FAILED, "Failed"))
    data = outcome.value if outcome.error is None else outcome.error
    return State(kind, name, outcome.message or None, data=data)


def stopped_outcome(
    task_name: str, reason: str, timeout_seconds: float | None, *, started: bool = True
) -> Outcome:
    """The outcome of an attempt that was stopped, whatever it returned or raised afterwards."""
    if reason == TIMEOUT:
        text = f"{task_name} took longer than its timeout of {timeout_seconds:g} s."
        return Outcome("timed_out", error=TaskRunTimeoutError(text), message=text)
    if reason == CANCEL:
        text = f"{task_name} was cancelled {'while it ran' if started else 'before it started'}."
        return Outcome("cancelled", error=CancelledRun(text), message=text)
    return Outcome("given_up")


def _failure(context: TaskRunContext, error: BaseException) -> Outcome:
    if isinstance(error, Exception):
        return Outcome("failed", error=error, message=describe(error))
    # SystemExit, KeyboardInterrupt and the like: rebuilt in a caller they would end that process.
    text = f"{context.task_run.task_name} raised {describe(error)}."
    return Outcome("crashed", error=CrashedRun(text).with_traceback(error.__traceback__), message=text)


def _after(context: TaskRunContext, outcome: Outcome) -> Outcome:
    """Turn a failure with retries left into a retry (the condition has agreed)."""
    retry = retries.next_retry(context.options, context.task_run.run_count)
    return outcome if retry is None else outcome._replace(kind="retry", after_seconds=retry.after_seconds)


def may_retry(context: TaskRunContext, outcome: Outcome) -> bool:
    """Whether this is a failure that has a retry left, if the condition agrees."""
    return (
        outcome.kind in ("failed", "timed_out")
        and context.options.retries >= context.task_run.run_count
        and not is_bind_error(context, outcome.error)
    )


def _refused(outcome: Outcome, answer: retries.Condition) -> Outcome:
    return outcome._replace(message=f"{outcome.message} {answer.problem}.") if answer.problem else outcome


def is_bind_error(context: TaskRunContext, error: BaseException | None) -> bool:
    """Whether the call itself failed: arguments that don't fit the signature. Trying again can't help.

    Asked only once a TypeError is there, so that a normal run pays nothing for the check.
    """
    if not isinstance(error, TypeError):
        return False
    traceback = error.__traceback__
    if traceback is not None and traceback.tb_next is not None:
        return False  # raised inside the task
    try:
        context.task.signature.bind(*context.args, **context.kwargs)
    except TypeError:
        return True
    return False


def _hooks(context: TaskRunContext, outcome: Outcome) -> Hooks | None:
    options = context.options
    if outcome.kind == "completed":
        return options.on_completion
    return options.on_failure if outcome.kind in ("failed", "timed_out", "crashed") else None


def drive_sync(context: TaskRunContext, control: Control) -> Outcome:
    """Run attempts until one ends the run or asks for a delay.

    Args:
        context: The run, already the current one.
        control: Told of each attempt.

    Raises:
        BaseException: Only what is no ``Exception``, and only when the control is not outermost.
    """
    options, run, function = context.options, context.task_run, context.task.fn
    if options.task_run_name is not None:
        run.given_name = given_name(context)
    with prints_to_log(context) if options.log_prints else _NO_PRINTS:
        while True:
            if options.on_running:
                call_hooks(options.on_running, context.task, run, _running(run.run_count))
            value: Any = None
            error: BaseException | None = None
            try:
                try:
                    control.begin(run.run_count)
                    value = function(*context.args, **context.kwargs)
                except BaseException as exc:
                    error = exc
                reason = control.end()
            except RunInterrupted:
                # It landed between the lines above.
                reason = control.end()
                if reason is None:
                    raise  # meant for the run that this one is called by
            outcome = retried(context, _conclude(context, control, value, error, reason))
            if outcome.kind == "retry" and outcome.after_seconds <= 0 and control.stop_reason() is None:
                run.run_count += 1
                continue
            hooks = _hooks(context, outcome)
            if hooks:
                call_hooks(hooks, context.task, run, state_of(outcome))
            return outcome


async def drive_async(context: TaskRunContext, control: Control) -> Outcome:
    """The same for a coroutine function."""
    options, run, function = context.options, context.task_run, context.task.fn
    if options.task_run_name is not None:
        run.given_name = given_name(context)
    with prints_to_log(context) if options.log_prints else _NO_PRINTS:
        while True:
            if options.on_running:
                await acall_hooks(options.on_running, context.task, run, _running(run.run_count))
            value: Any = None
            error: BaseException | None = None
            try:
                control.begin(run.run_count)
                value = await function(*context.args, **context.kwargs)
            except BaseException as exc:
                error = exc
            outcome = _conclude(context, control, value, error, control.end())
            if outcome.kind != "completed" and may_retry(context, outcome):
                outcome = await _ask_async(context, outcome)
            if outcome.kind == "retry" and outcome.after_seconds <= 0 and control.stop_reason() is None:
                run.run_count += 1
                continue
            hooks = _hooks(context, outcome)
            if hooks:
                await acall_hooks(hooks, context.task, run, state_of(outcome))
            return outcome


def _conclude(
    context: TaskRunContext, control: Control, value: Any, error: BaseException | None, reason: str | None
) -> Outcome:
    if reason == HAND_BACK and not isinstance(error, asyncio.CancelledError):
        reason = None  # it has ended all the same
    if reason is not None:
        return stopped_outcome(context.task_run.task_name, reason, context.options.timeout_seconds)
    if error is None:
        return Outcome("completed", value)
    if not isinstance(error, Exception) and not control.outermost:
        raise error
    return _failure(context, error)


def _running(attempt: int) -> State[Any]:
    return Running() if attempt == 1 else Retrying()


def retried(context: TaskRunContext, outcome: Outcome) -> Outcome:
    """The outcome, or a retry instead of a failure that has one left. May call the user's condition.

    The coroutine driver has a version of its own, which awaits the condition.
    """
    if outcome.kind == "completed" or not may_retry(context, outcome):
        return outcome
    condition = context.options.retry_condition_fn
    if condition is not None:
        answer = retries.ask_condition(condition, context.task, context.task_run, state_of(outcome))
        if not isinstance(answer, retries.Condition):
            answer = run_in_own_loop(retries.await_condition(answer))
        if not answer.retry:
            return _refused(outcome, answer)
    return _after(context, outcome)


async def _ask_async(context: TaskRunContext, outcome: Outcome) -> Outcome:
    condition = context.options.retry_condition_fn
    if condition is not None:
        answer = retries.ask_condition(condition, context.task, context.task_run, state_of(outcome))
        if not isinstance(answer, retries.Condition):
            answer = await retries.await_condition(answer)
        if not answer.retry:
            return _refused(outcome, answer)
    return _after(context, outcome)


def call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a task here and now, with its retries, timeout, hooks and log.

    Returns:
        The value; for a coroutine function, a coroutine that gives it.

    Raises:
        UpstreamFailedRun: The run of a future among the arguments did not complete.
        TaskRunTimeoutError: An attempt was over ``timeout_seconds``.
        BaseException: What the task raised last.
    """
    from prefect_lite import direct  # timers and threads: only once somebody calls a task

    if not (_PLAIN.issuperset(map(type, args)) and _PLAIN.issuperset(map(type, kwargs.values()))):
        from prefect_lite import upstreams

        if upstreams.has_futures(args, kwargs):
            return direct.call_when_resolved(task, args, kwargs)
    return direct.call(task, args, kwargs)
