"""One direction of one connection: reads, delays, meters, slices, loses, writes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

Address = str | tuple[str, int]
Direction = Literal["up", "down"]

CHUNK_BYTES = 65536
IN_FLIGHT_BYTES = 65536
"""What waits in one direction without latency: a proxy that swallowed more would hide a slow link."""
IN_FLIGHT_DELAYED_BYTES = 4 * 1024 * 1024
"""The same with latency, when many pieces are on their way at once."""
BURST_SECONDS = 0.02
"""A bandwidth limit is kept over any time longer than this."""


class Bucket:
    """A token bucket; whoever shares it shares its bytes per second."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.piece = max(1, int(rate * BURST_SECONDS))
        self._paid_until = 0.0

    async def take(self, size: int) -> None:
        """Wait until so many bytes may pass."""
        now = asyncio.get_running_loop().time()
        start = max(self._paid_until, now - BURST_SECONDS)
        self._paid_until = start + size / self.rate
        if self._paid_until > now:
            await asyncio.sleep(self._paid_until - now)


@dataclass(frozen=True)
class Trouble:
    """What is wrong with one direction.

    Attributes:
        latency: Seconds from the arrival of a piece until it is passed on.
        jitter: Seconds by which that differs at most, either way.
        bucket: Bytes per second, None without a limit.
        slice_bytes: Longest piece that is written at once, 0 without a limit.
        slice_pause: Seconds between two of them.
        held: Nothing is passed on.
        lossy: What comes is lost.
    """

    latency: float = 0.0
    jitter: float = 0.0
    bucket: Bucket | None = None
    slice_bytes: int = 0
    slice_pause: float = 0.0
    held: bool = False
    lossy: bool = False


class Flow:
    """Moves bytes from ``source`` to ``sink`` under a ``Trouble`` that may change meanwhile.

    Args:
        inspect: Called with each piece that has arrived; False ends the connection instead.
        count: Called with (bytes passed, bytes lost).

    Attributes:
        passed: Bytes handed to the sink.
        lost: Bytes or an end of the stream were lost.
        ended: How the source ended: "eof", "reset", or "" while it has not.
    """

    def __init__(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        trouble: Trouble,
        inspect: Callable[[bytes], bool],
        count: Callable[[int, int], None],
    ) -> None:
        self.trouble = trouble
        self.passed = 0
        self.lost = False
        self.ended: Literal["", "eof", "reset"] = ""
        self._source, self._sink = source, sink
        self._inspect, self._count = inspect, count
        self._queue: deque[tuple[float, bytes]] = deque()
        self._in_flight = 0
        self._last_due = 0.0
        self._changed = asyncio.Event()

    def change(self, **changes: Any) -> None:
        """Other trouble from now on."""
        self.trouble = replace(self.trouble, **changes)
        self._changed.set()

    async def run(self) -> bool:
        """Until the stream has ended and its end has been passed on; False if ``inspect`` said so."""
        taking = asyncio.create_task(self._take())
        giving = asyncio.create_task(self._give())
        try:
            await asyncio.wait((taking, giving), return_when=asyncio.FIRST_COMPLETED)
            if taking.done() and not taking.result():
                return False
            await giving
            return True
        finally:
            for task in (taking, giving):
                task.cancel()
            await asyncio.gather(taking, giving, return_exceptions=True)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # -- from the source --------------------------------------------------------------------------

    def _has_room(self) -> bool:
        trouble = self.trouble
        limit = IN_FLIGHT_DELAYED_BYTES if trouble.latency else IN_FLIGHT_BYTES
        return trouble.lossy or (not trouble.held and self._in_flight < limit)

    async def _take(self) -> bool:
        while not self.ended:
            await self._until(self._has_room)
            try:
                data = await self._source.read(CHUNK_BYTES)
            except OSError:
                data = b""
                self.ended = "reset"
            else:
                self.ended = "" if data else "eof"
            if self.trouble.lossy:
                self._lose(data)
                if not data:
                    await asyncio.Event().wait()  # nobody is told
                continue
            if data and not self._inspect(data):
                return False
            self._queue.append((self._due(), data))
            self._in_flight += len(data)
            self._changed.set()
        return True

    def _due(self) -> float:
        trouble = self.trouble
        if not trouble.latency and not trouble.jitter:
            return self._last_due  # not before those that are still delayed
        delay = max(0.0, trouble.latency + random.uniform(-trouble.jitter, trouble.jitter))
        self._last_due = max(self._last_due, asyncio.get_running_loop().time() + delay)
        return self._last_due

    def _lose(self, data: bytes) -> None:
        self.lost = True
        self._count(0, len(data))

    # -- to the sink ------------------------------------------------------------------------------

    async def _give(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._until(lambda: bool(self._queue))
            due, data = self._queue.popleft()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if data:
                await self._write(memoryview(data))
                self._in_flight -= len(data)
                self._changed.set()
                continue
            await self._until(lambda: not self.trouble.held)
            if self.trouble.lossy:
                self.lost = True
                await asyncio.Event().wait()
            if self.ended == "eof" and not self._sink.is_closing():
                with contextlib.suppress(OSError):  # it has been reset meanwhile
                    self._sink.write_eof()
            return

    async def _write(self, data: memoryview) -> None:
        while data:
            await self._until(lambda: not self.trouble.held or self.trouble.lossy)
            trouble = self.trouble
            if trouble.lossy:
                self._lose(bytes(data))
                return
            size = min(len(data), trouble.slice_bytes or len(data))
            if trouble.bucket is not None:
                size = min(size, trouble.bucket.piece)
                await trouble.bucket.take(size)
                if self.trouble is not trouble:
                    continue
            try:
                self._sink.write(data[:size])
                await self._sink.drain()
            except OSError:
                return  # the sink is gone; the other direction learns how
            self.passed += size
            self._count(size, 0)
            data = data[size:]
            if trouble.slice_bytes and data:
                await asyncio.sleep(trouble.slice_pause)
