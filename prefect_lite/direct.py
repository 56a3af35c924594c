"""Runs in this process: the engine's drivers with sleeps for delays and a timer for the timeout.

A direct call, ``submit``, ``map`` and flows all end up here. What a worker does instead is in its
``execution.py``; the attempts themselves are the engine's in both.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect_lite import clock
from prefect_lite.context import RunContext, TaskRunContext, current_context, enter_run, leave_run
from prefect_lite.direct_controls import CoroutineControl, ThreadControl
from prefect_lite.engine import drive_async, drive_sync
from prefect_lite.exceptions import UpstreamFailedRun
from prefect_lite.run_creation import new_record
from prefect_lite.run_ends import PLAIN, Outcome, describe, state_of, upstream_failed
from prefect_lite.states import StateType

if TYPE_CHECKING:
    from prefect_lite.runs import RunRecord, TaskRun
    from prefect_lite.tasks import Task

_CALL_OPTIONS = frozenset({"return_state", "wait_for"})


# Most runs have no timeout, and then a control has nothing to remember. The second ones are outermost.
_IN_THREAD = ThreadControl(None), ThreadControl(None, outermost=True)
_ON_LOOP = CoroutineControl(None), CoroutineControl(None, outermost=True)


def task_context(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], record: TaskRun
) -> TaskRunContext:
    """The context of a task run in this process."""
    enclosing = current_context()
    # Inside a run of a worker it is a part of that one: same log, same slot.
    lease = enclosing.lease if enclosing is not None else None
    return TaskRunContext(task, task.options, record, args, kwargs, lease, enclosing)


def run_sync(context: RunContext, outermost: bool = False) -> Outcome:
    """Run a function's attempts in this thread, with the waits between them.

    Args:
        context: The run; it is made the current one.
        outermost: Nobody above takes what is no ``Exception``: it ends the run as crashed.
    """
    timeout = context.options.timeout_seconds
    control = _IN_THREAD[outermost] if timeout is None else ThreadControl(timeout, outermost)
    outcome: Outcome | None = None
    token = enter_run(context)
    context.run.run_count = context.run.run_count or 1
    try:
        while (outcome := drive_sync(context, control)).kind == "retry":
            await_retry(context.run, outcome)
            clock.sleep(outcome.after_seconds)
            context.run.run_count += 1
        return outcome
    except BaseException as exc:
        note_crash(context.run, exc)
        raise
    finally:
        leave_run(token)
        outcome = None  # see the engine


async def run_async(context: RunContext, outermost: bool = False) -> Outcome:
    """The same for a coroutine function, in this asyncio task."""
    timeout = context.options.timeout_seconds
    control = _ON_LOOP[outermost] if timeout is None else CoroutineControl(timeout, outermost)
    outcome: Outcome | None = None
    token = enter_run(context)
    context.run.run_count = context.run.run_count or 1
    try:
        while (outcome := await drive_async(context, control)).kind == "retry":
            await_retry(context.run, outcome)
            await clock.asleep(outcome.after_seconds)
            context.run.run_count += 1
        return outcome
    except BaseException as exc:
        note_crash(context.run, exc)
        raise
    finally:
        leave_run(token)
        outcome = None  # see the engine


def await_retry(run: RunRecord, outcome: Outcome) -> None:
    """Note that the next attempt waits."""
    run.moved(StateType.SCHEDULED, "AwaitingRetry", outcome.message or None)
    run.expected_start_time = clock.now() + timedelta(seconds=outcome.after_seconds)


def note_crash(run: RunRecord, error: BaseException) -> None:
    """Note that a run was left by what is no failure of its function: Ctrl-C, ``sys.exit``, cancellation."""
    if not run.end_time_ns:  # it may be a hook that was interrupted, after the end
        run.moved(StateType.CRASHED, "Crashed", describe(error))


def execute(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wait_for: Any = None,
    record: TaskRun | None = None,
    outermost: bool = False,
) -> Outcome:
    """A whole run of a function: wait for what it depends on, then run it.

    Args:
        task: The task; a bound instance is among the arguments already.
        args: Positional arguments; futures and states among them are replaced by their results.
        kwargs: The same by name.
        wait_for: Futures that have to complete first.
        record: The run's, if it was made before.
        outermost: See ``run_sync``.
    """
    record = record if record is not None else new_record(task, args, kwargs, wait_for)
    try:
        args, kwargs = resolved(record, args, kwargs, wait_for)
    except UpstreamFailedRun as exc:
        return upstream_failed(exc)
    return run_sync(task_context(task, args, kwargs, record), outermost)


async def aexecute(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wait_for: Any = None,
    record: TaskRun | None = None,
    outermost: bool = False,
) -> Outcome:
    """``execute`` for coroutine functions."""
    record = record if record is not None else new_record(task, args, kwargs, wait_for)
    try:
        args, kwargs = await aresolved(record, args, kwargs, wait_for)
    except UpstreamFailedRun as exc:
        return upstream_failed(exc)
    return await run_async(task_context(task, args, kwargs, record), outermost)


def resolved(
    record: RunRecord, args: tuple[Any, ...], kwargs: Mapping[str, Any], wait_for: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a run once all that it waits for has ended.

    Raises:
        UpstreamFailedRun: Something of it did not complete; the record says so, too.
    """
    from prefect_lite import upstreams

    if wait_for is None and not upstreams.has_futures(args, kwargs):
        return args, dict(kwargs)
    with _failure_noted(record):
        if wait_for is not None:
            upstreams.wait_all((wait_for,))
        return upstreams.resolve(args, kwargs)


async def aresolved(
    record: RunRecord, args: tuple[Any, ...], kwargs: Mapping[str, Any], wait_for: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``resolved`` for coroutines."""
    from prefect_lite import upstreams

    if wait_for is None and not upstreams.has_futures(args, kwargs):
        return args, dict(kwargs)
    with _failure_noted(record):
        if wait_for is not None:
            await upstreams.await_all((wait_for,))
        return await upstreams.aresolve(args, kwargs)


@contextmanager
def _failure_noted(record: RunRecord) -> Generator[None]:
    try:
        yield
    except UpstreamFailedRun as exc:
        record.moved(StateType.FAILED, "UpstreamFailed", str(exc))
        raise
    except BaseException as exc:
        note_crash(record, exc)
        raise


def value_of(outcome: Outcome) -> Any:
    """What a direct call gives: what the function returned, even if that was a failed state.

    Raises:
        BaseException: What the run ended with.
    """
    if outcome.error is None or outcome.returned:
        return outcome.value
    try:
        raise outcome.error
    finally:
        del outcome  # an exception that is kept would otherwise keep this frame, and this frame the exception


def call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a task here and now, with its retries, timeout, hooks and log.

    Returns:
        The value; for a coroutine function, a coroutine that gives it; for a generator function, a generator.
        With ``return_state=True`` among the arguments, the final state instead.

    Raises:
        ParameterBindError: The arguments don't fit; there is no run then.
        UpstreamFailedRun: The run of a future among the arguments did not complete.
        TaskRunTimeoutError: An attempt was over ``timeout_seconds``.
        BaseException: What the task raised last.
    """
    if (
        not PLAIN.issuperset(map(type, args))
        or (
            kwargs and not (PLAIN.issuperset(map(type, kwargs.values())) and _CALL_OPTIONS.isdisjoint(kwargs))
        )
        or task.isgenerator
    ):
        return _call_as_asked(task, args, kwargs)
    task.binder.check(args, kwargs)
    if task.isasync:
        return _call_async(task, args, kwargs)
    return value_of(run_sync(task_context(task, args, kwargs, new_record(task, args, kwargs, plain=True))))


async def _call_async(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    record = new_record(task, args, kwargs, plain=True)
    return value_of(await run_async(task_context(task, args, kwargs, record)))


def _call_as_asked(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call with ``return_state``, ``wait_for`` or futures among its arguments, or of a generator."""
    kwargs = dict(kwargs)
    return_state = bool(kwargs.pop("return_state", False))
    wait_for = kwargs.pop("wait_for", None)
    task.binder.check(args, kwargs)
    if task.isgenerator and not return_state:
        from prefect_lite import stepwise

        return (stepwise.acall if task.isasync else stepwise.call)(task, args, kwargs, wait_for)
    from prefect_lite import upstreams

    plain = wait_for is None and not upstreams.has_futures(args, kwargs)
    record = new_record(task, args, kwargs, wait_for, plain=plain)
    if task.isasync:
        return _answer_async(task, args, kwargs, wait_for, record, return_state)
    return _answer(execute(task, args, kwargs, wait_for, record), record, return_state)


async def _answer_async(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wait_for: Any,
    record: TaskRun,
    return_state: bool,
) -> Any:
    return _answer(await aexecute(task, args, kwargs, wait_for, record), record, return_state)


def _answer(outcome: Outcome, record: RunRecord, return_state: bool) -> Any:
    try:
        return state_of(outcome, record) if return_state else value_of(outcome)
    finally:
        del outcome  # as in ``value_of``
