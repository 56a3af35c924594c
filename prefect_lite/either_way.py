"""Methods that block, or give an awaitable to callers that can await: those that do so in Prefect.

The rule is that of ``State.result``: where an event loop runs in the thread, unless the caller is a task or
flow that is no coroutine function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect_lite.own_loop import run_in_own_loop
from prefect_lite.state_objects import awaits
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop

_told: ContextVar[bool | None] = ContextVar("prefect_lite_told_to_await", default=None)
"""What our own calls expect; None: it is somebody else's call, and the rule holds."""

if TYPE_CHECKING:

    class BytesToAwait(bytes, Awaitable[bytes]):
        """Bytes; in a coroutine to be awaited."""

    class TextToAwait(str, Awaitable[str]):
        """Text; in a coroutine to be awaited."""

    class IdToAwait(UUID, Awaitable[UUID]):
        """An id; in a coroutine to be awaited."""

    class NoneToAwait(Awaitable[None]):
        """Nothing; in a coroutine to be awaited."""


def as_called(waits: Waits[Any]) -> Any:
    """The value of a program, or an awaitable that gives it, as the caller can use it."""
    return on_loop(waits) if _awaited() else in_thread(waits)


def called(function: Callable[..., Any], *args: Any) -> Any:
    """``as_called`` for a function that blocks; the awaitable calls it in a thread."""
    return asyncio.to_thread(function, *args) if _awaited() else function(*args)


def _awaited() -> bool:
    told = _told.get()
    if told is None:
        return awaits()
    return told and asyncio._get_running_loop() is not None


def blocking(call: Callable[[], Any]) -> Any:
    """Call a function that may be a coroutine function or one of ours, and block until there is its value."""
    token = _told.set(False)
    try:
        value = call()
        if isinstance(value, Awaitable):
            _told.set(True)  # its code can await, whatever run it is called in
            value = run_in_own_loop(cast("Awaitable[Any]", value))
        return value
    finally:
        _told.reset(token)
