"""Waiting, in a thread or a coroutine, for something that the client's loop thread will announce."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from _thread import allocate_lock
from collections import deque

_local = threading.local()

SLICE_SECONDS = 0.1
"""How late the timeout or cancellation of a run may reach a wait inside it."""


class LoopBridge:
    """Resolves futures of one event loop from another thread, with one wake-up for a burst of them."""

    __slots__ = ("_due", "_scheduled", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    @staticmethod
    def current() -> LoopBridge:
        """The bridge of the running loop."""
        loop = asyncio.get_running_loop()
        bridge: LoopBridge | None = getattr(_local, "bridge", None)
        if bridge is None or bridge.loop is not loop:
            bridge = _local.bridge = LoopBridge(loop)
        return bridge

    def post(self, future: asyncio.Future[None]) -> None:
        """Resolve ``future`` soon; from any thread."""
        self._due.append(future)
        # Appended first, looked second; _deliver does the reverse. So nothing is left behind.
        if not self._scheduled:
            self._scheduled = True
            try:
                self.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                self._due.clear()  # the loop is closed, and nobody waits there any more

    def _deliver(self) -> None:
        self._scheduled = False
        due = self._due
        while due:
            future = due.popleft()
            if not future.done():
                future.set_result(None)


class Latch:
    """Set once, by the client's loop thread; waited for by one coroutine or any number of threads.

    Attributes:
        done: It is set.
    """

    # A bare lock: threading.Event costs 2 us to make, and there is one per delay().
    __slots__ = ("_async_waiter", "_lock", "done")

    def __init__(self) -> None:
        self.done = False
        self._lock = allocate_lock()
        self._lock.acquire()
        self._async_waiter: tuple[LoopBridge, asyncio.Future[None]] | None = None

    def set(self) -> None:
        """Let all waiters go."""
        if self.done:
            return
        self.done = True
        self._lock.release()
        waiter = self._async_waiter
        if waiter is not None:
            waiter[0].post(waiter[1])

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it is set.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            Whether it is set.
        """
        if self.done:
            return True
        if _inside_run():
            return self._wait_in_slices(timeout)
        limit = -1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
        if not self._lock.acquire(timeout=limit):
            return self.done
        self._lock.release()  # for the next waiter
        return True

    def _wait_in_slices(self, timeout: float | None) -> bool:
        """For a thread that may be stopped from outside: an exception can't reach it inside ``acquire``."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self.done:
            left = deadline - time.monotonic()
            if left <= 0:
                return self.done
            if self._lock.acquire(timeout=min(left, SLICE_SECONDS)):
                self._lock.release()
        return True

    async def wait_async(self, timeout: float | None = None) -> bool:
        """``wait`` for a coroutine; one at a time."""
        if self.done:
            return True
        bridge = LoopBridge.current()
        future: asyncio.Future[None] = bridge.loop.create_future()
        self._async_waiter = (bridge, future)
        if not self.done:  # else set() may have looked before there was anybody to tell
            try:
                async with asyncio.timeout(timeout):
                    await future
            except TimeoutError:
                return self.done
        return True


def _inside_run() -> bool:
    context = sys.modules.get("prefect_lite.context")  # else nothing has ever run here
    return context is not None and context.current_context() is not None
