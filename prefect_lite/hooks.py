"""A task's state hooks: ``hook(task, run, state)``. A hook that raises is logged and changes nothing."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from prefect_lite.logging import get_run_logger
from prefect_lite.own_loop import run_in_own_loop

Hooks = Sequence[Callable[..., Any]]


def call_hooks(hooks: Hooks, task: Any, run: Any, state: Any) -> None:
    """From a thread: hooks that are coroutine functions run in a loop of their own."""
    for hook in hooks:
        try:
            answer = hook(task, run, state)
            if inspect.isawaitable(answer):
                run_in_own_loop(answer)
        except (Exception, SystemExit, asyncio.CancelledError):
            _log_failure(hook)


async def acall_hooks(hooks: Hooks, task: Any, run: Any, state: Any) -> None:
    """From a coroutine: hooks are awaited where they need it."""
    for hook in hooks:
        try:
            answer = hook(task, run, state)
            if inspect.isawaitable(answer):
                await answer
        except (Exception, SystemExit):
            _log_failure(hook)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise  # it is this coroutine that was cancelled, not something the hook waited for
            _log_failure(hook)


def _log_failure(hook: Callable[..., Any]) -> None:
    get_run_logger().exception("The hook %s raised an exception.", getattr(hook, "__name__", hook))
