"""What an adapter gives the driver: a peer's own client behind five methods.

An adapter subclasses one of these, defines `send` and `value`, and as many of the others as the library has
a way of its own for; with a documented call for many at once (the mode "bulk") also `send_bulk(task, args)`,
which enqueues one run per argument and returns their handles. Tasks go by name: "noop", "async_noop", "nap",
"async_nap", "echo", "async_echo". Results come from the library and through it. A run that failed or whose
result is not there in time raises.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod


class SyncClient(ABC):
    """A blocking library. The driver calls `send` and `value` from several threads at once."""

    def open(self):
        """Connect; called once, after the import."""

    def close(self):
        """Disconnect; called once, at the end."""

    @abstractmethod
    def send(self, task, arg):
        """Enqueue one run by the library's plain call; returns its handle when that returns."""

    @abstractmethod
    def value(self, handle, timeout):
        """Wait for one result, by the library's documented wait; ``timeout`` is in seconds."""

    def values(self, handles, timeout):
        """Wait for all results, in order; the library's own wait for many where it has one."""
        ends = time.monotonic() + timeout
        return [self.value(handle, max(0.001, ends - time.monotonic())) for handle in handles]


class AsyncClient(ABC):
    """A library of coroutines. The driver runs it on one loop, of uvloop where that is installed."""

    async def open(self):
        """Connect; called once, after the import."""

    async def close(self):
        """Disconnect; called once, at the end."""

    @abstractmethod
    async def send(self, task, arg):
        """Enqueue one run by the library's plain call; returns its handle when that returns."""

    @abstractmethod
    async def value(self, handle, timeout):
        """Wait for one result, by the library's documented wait; ``timeout`` is in seconds."""

    async def values(self, handles, timeout):
        """Wait for all results, in order; the library's own wait for many where it has one."""
        async with asyncio.timeout(timeout):
            return [await self.value(handle, timeout) for handle in handles]
