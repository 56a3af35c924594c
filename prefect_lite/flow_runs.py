"""Running a flow: its record, its task runner around the engine's attempts, and what the caller gets."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast

from prefect_lite import clock, direct, flow_results, local_runs, mapping, run_history, stepwise
from prefect_lite.belonging import place_of
from prefect_lite.context import FlowRunContext, current_context
from prefect_lite.engine import conclude
from prefect_lite.exceptions import ParameterTypeError, UpstreamFailedRun
from prefect_lite.futures import (
    PrefectFuture,
    PrefectFutureList,
    futures_in,
    resolve_futures_to_states,
    wait,
)
from prefect_lite.hooks import call_hooks
from prefect_lite.nesting import Replacement
from prefect_lite.persistence import persists
from prefect_lite.returned import of_another_run, outcome_state
from prefect_lite.run_ends import PLAIN, Outcome, describe, state_of
from prefect_lite.run_ids import new_run_id
from prefect_lite.runs import FlowRun
from prefect_lite.states import Completed, Crashed, State, StateType
from prefect_lite.tagging import current_tags
from prefect_lite.task_runners import PoolTaskRunner, TaskRunner, task_runner_from
from prefect_lite.thread_or_loop import in_thread, on_loop

if TYPE_CHECKING:
    from prefect_lite.flows import Flow

# Loaded before code that may be interrupted in the middle of an import, which would keep its lock.
_LOADED = (local_runs, mapping)

_COLLECTIONS = (list, tuple, set)


# -- a call -------------------------------------------------------------------------------------------


def call(flow: Flow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a flow here and now; see ``Flow.__call__``."""
    return_state = bool(kwargs.pop("return_state", False))
    wait_for = kwargs.pop("wait_for", None)
    flow.binder.check(args, kwargs)
    context = _context(flow, args, kwargs)
    if flow.isgenerator and not return_state:
        return _asteps(context, wait_for) if flow.isasync else _steps(context, wait_for)
    if flow.isasync:
        return _acall(context, wait_for, return_state)
    return _answer(_run(context, wait_for), context, return_state)


async def _acall(context: FlowRunContext, wait_for: Any, return_state: bool) -> Any:
    return _answer(await _arun(context, wait_for), context, return_state)


def _context(flow: Flow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> FlowRunContext:
    enclosing, around = current_context(), FlowRunContext.get()
    record = FlowRun(new_run_id(), flow.name, flow.options.version)
    record.transitions = [(StateType.PENDING, "Pending", None, clock.time_ns())]
    record.tags = current_tags()
    record.parent_flow_run_id, record.parent_task_run_id = place_of(enclosing)
    if around is not None:
        record.root_flow_run_id = around.flow_run.root_flow_run_id
    elif record.parent_flow_run_id is not None:  # in a task on a worker, which knows no more than that
        record.root_flow_run_id = record.parent_flow_run_id
    run_history.remember(record)
    lease = enclosing.lease if enclosing is not None else None
    return FlowRunContext(flow, flow.options, record, args, kwargs, lease, enclosing)


def _answer(outcome: Outcome, context: FlowRunContext, return_state: bool) -> Any:
    """What the caller gets: a returned state stands for its data or exception, several for themselves."""
    if return_state:
        return state_of(outcome, context.flow_run)
    if outcome.returned and isinstance(outcome.value, State):
        if outcome.error is not None:
            raise outcome.error
        return cast("State[Any]", outcome.state).data
    return direct.value_of(outcome)


# -- a run --------------------------------------------------------------------------------------------


def _run(context: FlowRunContext, wait_for: Any) -> Outcome:
    record: Any = context.run
    try:
        context.args, context.kwargs = direct.resolved(record, context.args, context.kwargs, wait_for)
    except UpstreamFailedRun as exc:
        return _upstream_failed(exc)
    refused = _checked(context)
    if refused is not None:
        return refused
    store = in_thread(flow_results.prepared(context)) if persists(context) else None
    if isinstance(store, Outcome):
        return store
    with _task_runner(context), _crashes_noted(context):
        outcome = _given_up(context, direct.run_sync(context))
        return outcome if store is None else in_thread(flow_results.persisted(context, store, outcome))


async def _arun(context: FlowRunContext, wait_for: Any) -> Outcome:
    record: Any = context.run
    try:
        context.args, context.kwargs = await direct.aresolved(record, context.args, context.kwargs, wait_for)
    except UpstreamFailedRun as exc:
        return _upstream_failed(exc)
    refused = _checked(context)
    if refused is not None:
        return refused
    store = await on_loop(flow_results.prepared(context)) if persists(context) else None
    if isinstance(store, Outcome):
        return store
    async with _atask_runner(context):
        with _crashes_noted(context):
            outcome = _given_up(context, await direct.run_async(context))
            return (
                outcome if store is None else await on_loop(flow_results.persisted(context, store, outcome))
            )


def _steps(context: FlowRunContext, wait_for: Any) -> Generator[Any, Any, Any]:
    """The run of a generator function, whose pace is the caller's."""
    record: Any = context.run
    context.args, context.kwargs = direct.resolved(record, context.args, context.kwargs, wait_for)
    refused = _checked(context)
    if refused is not None:
        return direct.value_of(refused)
    with _task_runner(context):
        return (yield from stepwise.steps(context))


def _asteps(context: FlowRunContext, wait_for: Any) -> AsyncGenerator[Any]:
    @asynccontextmanager
    async def opened() -> AsyncGenerator[FlowRunContext]:
        record: Any = context.run
        call = await direct.aresolved(record, context.args, context.kwargs, wait_for)
        context.args, context.kwargs = call
        refused = _checked(context)
        if refused is not None:
            direct.value_of(refused)
        async with _atask_runner(context):
            yield context

    return stepwise.asteps(opened)


def _checked(context: FlowRunContext) -> Outcome | None:
    """Check and convert the arguments; the run's outcome when they don't fit. Trying again can't help."""
    flow = context.flow
    if not flow.should_validate_parameters:
        return None
    try:
        context.args, context.kwargs = flow.parameter_check.checked(context.args, context.kwargs)
    except ParameterTypeError as exc:
        text = f"Validation of flow parameters failed with error: {describe(exc)}"
        return conclude(context, Outcome("failed", error=exc, message=text))
    return None


def _upstream_failed(error: UpstreamFailedRun) -> Outcome:
    return Outcome("upstream_failed", error=error, message=str(error))


@contextmanager
def _task_runner(context: FlowRunContext) -> Generator[None]:
    """Open for as long as the run, and until what it has submitted has ended."""
    with _parameters_shown(context), task_runner_from(context.flow.options.task_runner) as runner:
        context.task_runner = runner
        yield


@asynccontextmanager
async def _atask_runner(context: FlowRunContext) -> AsyncGenerator[None]:
    """The same, without blocking the event loop."""
    runner = context.task_runner = task_runner_from(context.flow.options.task_runner)
    runner.__enter__()
    try:
        with _parameters_shown(context):
            yield
    except BaseException:
        await _aexit(runner, *sys.exc_info())
        raise
    await _aexit(runner, None, None, None)


@contextmanager
def _parameters_shown(context: FlowRunContext) -> Generator[None]:
    """In the record for as long as the run: records are kept, and arguments may be large."""
    context.flow_run.parameters = context.parameters
    try:
        yield
    finally:
        context.flow_run.parameters = None


async def _aexit(runner: TaskRunner, *how: Any) -> None:
    if isinstance(runner, PoolTaskRunner):
        await runner.aexit(how[0])
    else:
        await asyncio.to_thread(runner.__exit__, *how)


def _given_up(context: FlowRunContext, outcome: Outcome) -> Outcome:
    """A run that is over its time does not begin anything more."""
    if outcome.kind == "timed_out":
        context.task_runner.cancel_all()
    return outcome


@contextmanager
def _crashes_noted(context: FlowRunContext) -> Generator[None]:
    """State and hooks for what ends more than the run: Ctrl-C, ``sys.exit``, a cancelled coroutine."""
    try:
        yield
    except Exception:
        raise
    except BaseException as exc:
        state = Crashed(message=f"{context.run.label} raised {describe(exc)}.", data=exc)
        context.flow_run.moved(state.type, state.name, state.message)
        if context.options.on_crashed:
            call_hooks(context.options.on_crashed, context.flow, context.flow_run, state)
        raise


# -- what the function returned -----------------------------------------------------------------------


def settling(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn``, for a flow: futures among what it returns are waited for and replaced by their values."""

    def body(*args: Any, **kwargs: Any) -> Any:
        value = fn(*args, **kwargs)
        if type(value) in PLAIN:
            return value
        futures = futures_in(value)
        if futures:
            wait(futures)
        return _settled(value, futures)

    return body


def asettling(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The same for a coroutine function."""

    async def body(*args: Any, **kwargs: Any) -> Any:
        value = await fn(*args, **kwargs)
        if type(value) in PLAIN:
            return value
        futures = futures_in(value)
        if futures:
            await PrefectFutureList(futures).wait_async()
        return _settled(value, futures)

    return body


def _settled(value: Any, futures: list[PrefectFuture[Any]]) -> Any:
    """The value with results for futures; a state that ends the run where it holds some.

    Futures beside states become states, as in Prefect.
    """
    if isinstance(value, State):
        state = cast("State[Any]", value)
        return outcome_state(state) if of_another_run(state) else state
    if not futures:
        return value
    states = [future.state for future in futures]
    if isinstance(value, _COLLECTIONS):
        items = [*cast("Iterable[Any]", value)]
        if all(isinstance(item, (PrefectFuture, State)) for item in items):
            if any(isinstance(item, State) for item in items):
                return resolve_futures_to_states(value)  # as if it had returned states only
            if all(state.is_completed() for state in states):
                return Completed(message="All states completed.", data=_with_results(value))
    if all(state.is_completed() for state in states):
        done = _with_results(value)
        return Completed(message="All states completed.", data=done) if value is futures[0] else done
    return outcome_state(states)


def _with_results(value: Any) -> Any:
    return Replacement((PrefectFuture,), lambda future: future.result())(value)
