"""Methods that block, or give an awaitable to callers that can await: those that do so in Prefect.

The rule is that of ``State.result``: where an event loop runs in the thread, and the run is no plain function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from prefect_lite.own_loop import run_in_own_loop
from prefect_lite.state_objects import awaits
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop

T = TypeVar("T")

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
    told = _told.get()
    return on_loop(waits) if (awaits() if told is None else told) else in_thread(waits)


def either_way(call: Callable[[], T]) -> T:
    """``as_called`` for a function that blocks only shortly: the awaitable form calls it too."""
    told = _told.get()
    if not (awaits() if told is None else told):
        return call()

    async def later() -> T:
        return call()

    return cast(T, later())


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
