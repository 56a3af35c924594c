"""One thread that interrupts work at its deadline (direct calls; a worker's connection thread does its own).

A ``threading.Timer`` per attempt would cost 50 us, and worse: starting one takes Python locks. A task that
calls a task may be interrupted in there, and leave them locked for ever. Here the caller only makes calls of
C functions, which an interruption can't split.
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from _thread import start_new_thread
from contextlib import suppress
from queue import Empty, SimpleQueue

from prefect_lite import waking
from prefect_lite.interrupts import PERMITS, Permits

SPARE = 1_000
WAKE_SECONDS = 0.05
"""An interrupted thread is woken again so often: once may be too early, just before it goes to sleep."""


class Alarms:
    """Deadlines of work. An alarm need not be taken back: without its permit it does nothing.

    Args:
        permits: Which work may still be interrupted.
    """

    def __init__(self, permits: Permits) -> None:
        self._permits = permits
        self.forget()

    def forget(self) -> None:
        """In a forked process, which has no thread for it, and none of the work."""
        self._queue: SimpleQueue[tuple[float, object]] = SimpleQueue()
        self._started = False

    def set(self, seconds: float, work: object) -> None:
        """Interrupt ``work`` in so many seconds, if it has its permit then."""
        self._queue.put((time.monotonic() + seconds, work))
        if not self._started:
            self._permits.uninterrupted(self._start)

    def _start(self) -> None:
        # Noted afterwards: two callers may have come, and a second thread does no harm.
        start_new_thread(self._work, (self._queue,))
        self._started = True

    def _work(self, queue: SimpleQueue[tuple[float, object]]) -> None:
        heap: list[tuple[float, int, object]] = []
        asleep: list[object] = []  # interrupted, and perhaps in a system call
        number = itertools.count()
        while True:
            left = max(0.0, heap[0][0] - time.monotonic()) if heap else None
            if asleep:
                left = WAKE_SECONDS if left is None else min(left, WAKE_SECONDS)
            with suppress(Empty):
                when, work = queue.get(timeout=left)
                heapq.heappush(heap, (when, next(number), work))
            while heap and heap[0][0] <= time.monotonic():
                work = heapq.heappop(heap)[2]
                if self._permits.interrupt(work):
                    asleep.append(work)
            if asleep:
                asleep = [work for work in asleep if self._woken(work)]
            if len(heap) > 2 * len(self._permits) + SPARE:
                heap = [entry for entry in heap if entry[2] in self._permits]
                heapq.heapify(heap)

    def _woken(self, work: object) -> bool:
        """Wake the thread that is to notice its interruption; False when it has done so."""
        thread = self._permits.unnoticed(work)
        if thread is not None:
            waking.wake(thread)
        return thread is not None or work in self._permits  # held back, and sent later


ALARMS = Alarms(PERMITS)
"""Those of this process."""

os.register_at_fork(after_in_child=ALARMS.forget)
