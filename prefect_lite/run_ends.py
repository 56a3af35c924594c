"""How runs end: the outcomes of attempts, and the states that they stand for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_lite.exceptions import (
    CancelledRun,
    CrashedRun,
    FlowRunTimeoutError,
    TaskRunTimeoutError,
    UpstreamFailedRun,
)
from prefect_lite.returned import error_of, outcome_state
from prefect_lite.runs import FlowRun
from prefect_lite.states import State, StateType

if TYPE_CHECKING:
    from prefect_lite.context import RunContext
    from prefect_lite.result_records import ResultRecord
    from prefect_lite.runs import RunRecord

TIMEOUT, CANCEL, GIVE_UP, HAND_BACK = "timeout", "cancel", "give up", "hand back"
"""Why an attempt was stopped from outside: its deadline, a request, the end of its lease or worker, or (for
coroutines) the end of the program's event loop while the lease is still held."""

PLAIN = frozenset({type(None), bool, int, float, str, bytes})
"""Types of arguments and results that can't hold futures or states; most have one of these."""


class Outcome(NamedTuple):
    """How an attempt ended.

    Attributes:
        kind: completed, failed, timed_out, cancelled, crashed, upstream_failed, retry, or given_up (nothing
            to report).
        value: What the task returned, or raised to end more than itself.
        error: What it raised, or the exception that stands for what happened to it.
        message: A sentence for people.
        after_seconds: With ``retry``, the wait before the next attempt.
        state: The final state, where one was made: because the function returned states or futures, because
            of hooks, or because this run's states are kept.
        returned: The function has returned ``value``, although there may be an error: that of the state.
        kept: The record of the value, where it is persisted.
        reference: Where the record is, for whoever has only the run; None: not where others could find it.
    """

    kind: str
    value: Any = None
    error: BaseException | None = None
    message: str = ""
    after_seconds: float = 0.0
    state: State[Any] | None = None
    returned: bool = False
    kept: ResultRecord[Any] | None = None
    reference: dict[str, Any] | None = None


STATES: dict[str, tuple[StateType, str]] = {
    "completed": (StateType.COMPLETED, "Completed"),
    "failed": (StateType.FAILED, "Failed"),
    "timed_out": (StateType.FAILED, "TimedOut"),
    "cancelled": (StateType.CANCELLED, "Cancelled"),
    "crashed": (StateType.CRASHED, "Crashed"),
    "upstream_failed": (StateType.FAILED, "UpstreamFailed"),
}
"""State type and name of each final kind."""

_NO_END = (StateType.FAILED, "Failed")  # of an attempt, as retry conditions see it
_KINDS = {
    StateType.COMPLETED: "completed",
    StateType.FAILED: "failed",
    StateType.CANCELLED: "cancelled",
    StateType.CRASHED: "crashed",
}


def describe(error: BaseException) -> str:
    """``ValueError: boom``, or the bare type when it has no text."""
    try:
        text = str(error)
    except Exception as exc:  # it may be the user's own __str__
        text = f"(its text raised {type(exc).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def judged(
    context: RunContext, value: Any, error: BaseException | None, reason: str | None, *, outermost: bool
) -> Outcome:
    """The outcome of an attempt; retries are not considered.

    Args:
        context: The run.
        value: What its function has returned.
        error: What it has raised instead.
        reason: Why it was stopped, if it was: then the other two don't count.
        outermost: Nobody above takes what is no ``Exception``: it ends the run as crashed.

    Raises:
        BaseException: What is no ``Exception``, unless this is the outermost run.
    """
    if reason == HAND_BACK and not isinstance(error, asyncio.CancelledError):
        reason = None  # it has ended all the same
    if reason is not None:
        outcome = stopped_outcome(context.run.label, reason, context.options.timeout_seconds)
        if reason == TIMEOUT and isinstance(context.run, FlowRun):
            return outcome._replace(error=FlowRunTimeoutError(outcome.message))
        return outcome
    if error is None:
        return completed(value)
    try:
        if isinstance(error, Exception):
            return Outcome("failed", error=error, message=describe(error))
        # A coroutine that is closed may not wait any more, not even for its hooks.
        if not outermost or isinstance(error, GeneratorExit):
            raise error
        # SystemExit, KeyboardInterrupt and the like: rebuilt in a caller they would end that process.
        text = f"{context.run.label} raised {describe(error)}."
        return Outcome("crashed", error, CrashedRun(text).with_traceback(error.__traceback__), text)
    finally:
        del error  # else the exception, this frame and all arguments keep each other


def completed(value: Any) -> Outcome:
    """The outcome of a function that has returned: a state, or several, decide if it gave some."""
    if type(value) in PLAIN:
        return Outcome("completed", value)
    state = outcome_state(value)
    if state is None:
        return Outcome("completed", value)
    kind = _KINDS[state.type]
    error = None if kind == "completed" else error_of(state)
    return Outcome(kind, value, error, state.message or "", state=state, returned=True)


def stopped_outcome(
    task_name: str, reason: str, timeout_seconds: float | None, *, started: bool = True
) -> Outcome:
    """The outcome of an attempt that was stopped, whatever it returned or raised afterwards."""
    if reason == TIMEOUT:
        text = f"{task_name} exceeded timeout of {timeout_seconds:g} second(s)."
        return Outcome("timed_out", error=TaskRunTimeoutError(text), message=text)
    if reason == CANCEL:
        text = f"{task_name} was cancelled {'while it ran' if started else 'before it started'}."
        return Outcome("cancelled", error=CancelledRun(text), message=text)
    return Outcome("given_up")


def nameless(problem: Exception) -> Outcome:
    """The outcome of a run that was given no name, and so was not started."""
    return Outcome("failed", error=problem, message=f"The run can't be named: {describe(problem)}")


def upstream_failed(error: UpstreamFailedRun) -> Outcome:
    """The outcome of a run that was not started because another one failed."""
    return Outcome("upstream_failed", error=error, message=str(error))


def state_of(outcome: Outcome, run: RunRecord) -> State[Any]:
    """The final state of a run, or what hooks and retry conditions see of a failed attempt."""
    state = outcome.state
    if state is not None:
        details = state.state_details
        if details.task_run_id is None and details.flow_run_id is None:  # it was made by the user's function
            return state.model_copy(update={"state_details": run.details})
        return state
    kind, name = STATES.get(outcome.kind, _NO_END)
    data = outcome.value if outcome.error is None else outcome.error
    return State(kind, name, outcome.message or None, state_details=run.details, data=data)


def note_end(run: RunRecord, outcome: Outcome) -> None:
    """Tell the record of a local run how it has ended, unless it is to be retried."""
    if outcome.kind == "retry":
        return
    state = outcome.state
    if state is not None:
        run.moved(state.type, state.name, state.message)
    else:
        kind, name = STATES.get(outcome.kind, _NO_END)
        run.moved(kind, name, outcome.message or None)
