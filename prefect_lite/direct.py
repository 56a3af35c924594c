"""Calling a task like a function: the engine's drivers with sleeps for delays and a timer for the timeout."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from prefect_lite.alarms import ALARMS
from prefect_lite.context import TaskRun, TaskRunContext, enter_run, leave_run
from prefect_lite.engine import TIMEOUT, Outcome, drive_async, drive_sync
from prefect_lite.interrupts import PERMITS, RunInterrupted
from prefect_lite.run_ids import new_run_id

if TYPE_CHECKING:
    from prefect_lite.tasks import Task


class ThreadControl:
    """Timeout of a function that runs in the calling thread: an alarm raises in it."""

    outermost = False

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout = timeout_seconds
        self._attempt: object = None

    def begin(self, attempt: int) -> None:
        if self._timeout is None:
            return
        # A permit for each attempt: the alarm of the last one must not hit this one.
        self._attempt = object()
        PERMITS.grant(self._attempt)
        ALARMS.set(self._timeout, self._attempt)

    def end(self) -> str | None:
        if self._timeout is None:
            return None
        return TIMEOUT if PERMITS.withdraw(self._attempt) else None

    def stop_reason(self) -> str | None:
        return None


class CoroutineControl:
    """Timeout of a coroutine: its asyncio task is cancelled."""

    outermost = False

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout = timeout_seconds
        self._stop: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None

    def begin(self, attempt: int) -> None:
        if self._timeout is None:
            return
        self._stop = None
        self._task = asyncio.current_task()
        if self._task is None:
            raise RunInterrupted
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._expire)

    def end(self) -> str | None:
        if self._timer is not None:
            self._timer.cancel()
        if self._stop is None or self._task is None:
            return None
        # A count left over means that somebody outside has cancelled as well: that one wins.
        return self._stop if self._task.uncancel() == 0 else None

    def stop_reason(self) -> str | None:
        return None

    def _expire(self) -> None:
        self._stop = TIMEOUT
        if self._task is not None:
            self._task.cancel()


def _context(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskRunContext:
    enclosing = TaskRunContext.get()
    record = TaskRun(new_run_id(), task.key, task.name, version=task.options.version)
    # Inside a run of a worker it is a part of that one: same log, same slot.
    lease = enclosing.lease if enclosing is not None else None
    return TaskRunContext(task, task.options, record, args, kwargs, lease)


def _value(outcome: Outcome) -> Any:
    if outcome.error is None:
        return outcome.value
    try:
        raise outcome.error
    finally:
        del outcome  # an exception that is kept would otherwise keep this frame, and this frame the exception


def call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a task whose arguments are what it takes; see ``engine.call``."""
    return call_async(task, args, kwargs) if task.isasync else call_sync(task, args, kwargs)


def call_when_resolved(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same when there are futures among them, for whose results it waits."""
    from prefect_lite.upstreams import aresolve, resolve

    async def resolved() -> Any:
        return await call_async(task, *await aresolve(args, kwargs))

    return resolved() if task.isasync else call_sync(task, *resolve(args, kwargs))


def call_sync(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a function's attempts in this thread; see ``engine.call``."""
    context = _context(task, args, kwargs)
    token = enter_run(context)
    try:
        while True:
            outcome = drive_sync(context, ThreadControl(task.options.timeout_seconds))
            if outcome.kind != "retry":
                return _value(outcome)
            time.sleep(outcome.after_seconds)
            context.task_run.run_count += 1
    finally:
        leave_run(token)


async def call_async(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a coroutine function's attempts in this asyncio task; see ``engine.call``."""
    context = _context(task, args, kwargs)
    token = enter_run(context)
    try:
        while True:
            outcome = await drive_async(context, CoroutineControl(task.options.timeout_seconds))
            if outcome.kind != "retry":
                return _value(outcome)
            await asyncio.sleep(outcome.after_seconds)
            context.task_run.run_count += 1
    finally:
        leave_run(token)
