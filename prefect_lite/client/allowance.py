"""How many runs, and how many bytes of arguments, this process may have handed over without a broker's word.

A ``delay()`` waits for that word by itself. Inside ``batch()``, with many coroutines or many threads nothing
else would keep a loop that is faster than its broker from filling the memory of its own process.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import OrderedDict

from prefect_lite.client.latch import Latch


class _Waiter(Latch):
    """Set when its place is taken for it."""

    __slots__ = ("runs", "size")

    def __init__(self, runs: int, size: int) -> None:
        super().__init__()
        self.runs = runs
        self.size = size


class Allowance:
    """Counts what is on its way, from any thread; who finds no place waits, first come, first served.

    One submission may be larger than the bounds if nothing else is on its way.

    Args:
        most_runs: Runs on their way at a time.
        most_bytes: Bytes of their arguments.

    Attributes:
        runs: On their way.
        bytes: Of their arguments.
    """

    def __init__(self, most_runs: int, most_bytes: int) -> None:
        self.runs = 0
        self.bytes = 0
        self._most_runs = most_runs
        self._most_bytes = most_bytes
        self._lock = allocate_lock()
        # In order. Of many that wait each has to leave from anywhere, and costs as much as one of few.
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()

    def try_enter(self, runs: int, size: int) -> bool:
        """Take a place if there is one now."""
        with self._lock:
            if self._waiters or not self._fits(runs, size):
                return False
            self.runs += runs
            self.bytes += size
            return True

    def enter(self, runs: int, size: int, timeout: float) -> bool:
        """Take a place, waiting at most ``timeout`` seconds; False when there was none."""
        waiter = self._line_up(runs, size)
        try:
            waiter.wait(timeout)
        except BaseException:
            if not self._withdraw(waiter):
                self.leave(runs, size)
            raise
        return not self._withdraw(waiter)

    async def enter_async(self, runs: int, size: int, timeout: float) -> bool:
        """``enter`` for coroutines."""
        waiter = self._line_up(runs, size)
        try:
            await waiter.wait_async(timeout)
        except BaseException:
            if not self._withdraw(waiter):
                self.leave(runs, size)
            raise
        return not self._withdraw(waiter)

    def leave(self, runs: int, size: int) -> None:
        """Give places back, and hand them to those who wait."""
        with self._lock:
            self.runs -= runs
            self.bytes -= size
        if self._waiters:
            self._grant()

    def _fits(self, runs: int, size: int) -> bool:
        return not self.runs or (
            self.runs + runs <= self._most_runs and self.bytes + size <= self._most_bytes
        )

    def _line_up(self, runs: int, size: int) -> _Waiter:
        waiter = _Waiter(runs, size)
        with self._lock:
            self._waiters[waiter] = None
        self._grant()  # a place may have come free since it was refused one
        return waiter

    def _grant(self) -> None:
        with self._lock:
            waiters = self._waiters
            while waiters:
                waiter = next(iter(waiters))
                if not self._fits(waiter.runs, waiter.size):
                    return
                del waiters[waiter]
                self.runs += waiter.runs
                self.bytes += waiter.size
                waiter.set()

    def _withdraw(self, waiter: _Waiter) -> bool:
        """Leave the line; False when the place was given already."""
        with self._lock:
            if waiter.done:
                return False
            del self._waiters[waiter]
        self._grant()  # it may have held up smaller ones
        return True
