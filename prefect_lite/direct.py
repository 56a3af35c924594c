"""Calling a task like a function: the engine's drivers with sleeps for delays and a timer for the timeout."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from prefect_lite.context import TaskRun, TaskRunContext, enter_run, leave_run
from prefect_lite.engine import TIMEOUT, Outcome, drive_async, drive_sync
from prefect_lite.interrupts import Permits, RunInterrupted
from prefect_lite.run_ids import new_run_id

if TYPE_CHECKING:
    from prefect_lite.tasks import Task

_permits = Permits()


class ThreadControl:
    """Timeout of a function that runs in the calling thread: a timer raises in it."""

    outermost = False

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout = timeout_seconds
        self._timer: threading.Timer | None = None

    def begin(self, attempt: int) -> None:
        if self._timeout is None:
            return
        self._timer = threading.Timer(self._timeout, _permits.interrupt, (self,))
        self._timer.daemon = True
        self._timer.name = "prefect-lite-timeout"
        _permits.grant(self)
        self._timer.start()

    def end(self) -> str | None:
        if self._timeout is None:
            return None
        interrupted = _permits.withdraw(self)
        if self._timer is not None:
            self._timer.cancel()
        return TIMEOUT if interrupted else None

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
    return TaskRunContext(task, task.options, TaskRun(new_run_id(), task.key, task.name), args, kwargs)


def _value(outcome: Outcome) -> Any:
    if outcome.error is None:
        return outcome.value
    try:
        raise outcome.error
    finally:
        del outcome  # an exception that is kept would otherwise keep this frame, and this frame the exception


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
