"""Awaiting from a thread: the user's coroutine gets an event loop of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable
from typing import Any, TypeVar

from prefect_lite import thread_starts

T = TypeVar("T")


def run_in_own_loop(awaitable: Awaitable[T]) -> T:
    """Block until ``awaitable`` has a value.

    A thread has one running loop at most. Called under one (a task that is a plain function, called by a
    coroutine), the new loop runs in a helper thread; context variables are the caller's there.

    Raises:
        BaseException: What the awaitable raises.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(awaitable))
    values: list[T] = []
    errors: list[BaseException] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            values.append(context.run(asyncio.run, _awaited(awaitable)))
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=work, name="prefect-lite-await")
    thread_starts.start(thread)
    thread.join()
    if errors:
        raise errors.pop()
    return values[0]


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
