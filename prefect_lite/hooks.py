"""State hooks: ``hook(task or flow, run, state)``. A hook that raises is logged and changes nothing."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from prefect_lite.context import FlowRunContext
from prefect_lite.logging import get_run_logger
from prefect_lite.run_ends import state_of
from prefect_lite.states import State, StateType
from prefect_lite.thread_or_loop import Waits, in_thread, is_cancelled_here

if TYPE_CHECKING:
    from prefect_lite.context import RunContext, TaskRunContext
    from prefect_lite.run_ends import Outcome
    from prefect_lite.runs import RunRecord

Hooks = Sequence[Callable[..., Any]]


def hooks_for(context: RunContext, outcome: Outcome) -> Hooks | None:
    """Those that are to be told of this end; None if nothing is to be done about it."""
    kind, options = outcome.kind, context.options
    hooks: Hooks | None = None
    if kind == "completed":
        hooks = options.on_completion
    elif kind in ("failed", "timed_out"):
        hooks = options.on_failure
    elif isinstance(context, FlowRunContext):  # it has hooks of their own for these
        return {"crashed": options.on_crashed, "cancelled": options.on_cancellation}.get(kind)
    elif kind == "crashed":
        hooks = options.on_failure
    return hooks if hooks is not None or not context.definition.materializes or kind == "retry" else ()


def told_of_start(context: RunContext, hooks: Hooks) -> Waits[None]:
    """Call ``on_running`` hooks: an attempt is about to start."""
    run = context.run
    state: State[Any] = State(StateType.RUNNING, run.running_name, state_details=run.details)
    yield from _told(hooks, context.definition, run, state)


def told_of_end(context: RunContext, hooks: Hooks, outcome: Outcome) -> Waits[Outcome]:
    """Record what the run has materialized, and call hooks for its end.

    Returns:
        The outcome with the state that they have seen.
    """
    if context.definition.materializes:
        from prefect_lite.assets import recording  # few tasks do

        yield from recording(cast("TaskRunContext", context), outcome)
    if not hooks:
        return outcome
    state = state_of(outcome, context.run)
    yield from _told(hooks, context.definition, context.run, state)
    return outcome if outcome.state is state else outcome._replace(state=state)


def call_hooks(hooks: Hooks, definition: Any, run: RunRecord, state: State[Any]) -> None:
    """Call hooks of a task or flow for any state, from a thread."""
    in_thread(_told(hooks, definition, run, state))


def _told(hooks: Hooks, definition: Any, run: RunRecord, state: State[Any]) -> Waits[None]:
    run.state = state  # not longer than for the hooks: it may hold a large result
    try:
        for hook in hooks:
            try:
                answer = hook(definition, run, state)
                if inspect.isawaitable(answer):
                    yield answer
            except (Exception, SystemExit):
                _log_failure(hook)
            except asyncio.CancelledError:
                if is_cancelled_here():
                    raise
                _log_failure(hook)
    finally:
        run.state = None


def _log_failure(hook: Callable[..., Any]) -> None:
    get_run_logger().exception("The hook %s raised an exception.", getattr(hook, "__name__", hook))
