"""Whether a failed attempt is followed by another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from prefect_lite.retries import Condition, ask_condition, await_condition, next_retry
from prefect_lite.returned import of_another_run
from prefect_lite.run_ends import Outcome, state_of
from prefect_lite.states import State

if TYPE_CHECKING:
    from prefect_lite.context import RunContext
    from prefect_lite.thread_or_loop import Waits


def may_retry(context: RunContext, outcome: Outcome) -> bool:
    """Whether this is a failure that has a retry left, if the condition agrees."""
    return (
        outcome.kind in ("failed", "timed_out")
        and context.options.retries >= context.run.run_count
        and not (outcome.returned and _of_others(outcome.value))
        and not is_bind_error(context, outcome.error)
    )


def _of_others(value: Any) -> bool:
    """Whether a returned value, states, says how other runs ended: no attempt of this one."""
    return not isinstance(value, State) or of_another_run(cast("State[Any]", value))


def retried(context: RunContext, outcome: Outcome) -> Waits[Outcome]:
    """The outcome, or a retry instead of a failure that has one left; the condition is asked."""
    if not may_retry(context, outcome):
        return outcome
    condition = context.options.retry_condition_fn
    if condition is not None:
        state = state_of(outcome, context.run)
        answer: Any = ask_condition(condition, context.definition, context.run, state)
        if not isinstance(answer, Condition):
            answer = yield await_condition(answer)
        if not answer.retry and not answer.problem:
            return outcome
        if not answer.retry:
            return outcome._replace(message=f"{outcome.message} {answer.problem}.")
    retry = next_retry(context.options, context.run.run_count)
    if retry is None:
        return outcome
    return outcome._replace(kind="retry", after_seconds=retry.after_seconds, state=None)


def is_bind_error(context: RunContext, error: BaseException | None) -> bool:
    """Whether the call itself failed: arguments that don't fit the signature. Trying again can't help.

    Asked only once a TypeError is there, so that a normal run pays nothing for the check.
    """
    if not isinstance(error, TypeError) or error.__traceback__ is not None:
        return False  # raised inside the function; the engine's own frame has been taken off
    try:
        context.definition.signature.bind(*context.args, **context.kwargs)
    except TypeError:
        return True
    return False
