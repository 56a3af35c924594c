"""The threads that run functions: a lean pool that grows when runs wait, and gives up on stuck threads."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any

from prefect_lite_worker.leases import ActiveRun, ThreadRun, monotonic

FIRST_THREADS = 4
"""Threads that are started without waiting whether fewer would do."""

SLOW_TICKS = 10
"""Waiting runs that would take longer than so many calls of ``grow`` get a few more threads."""

JOIN_SECONDS = 1.0

PATIENCE_SECONDS = 0.25
"""What stopped code gets to react; if it runs Python at all it does within a few GIL switches."""


class ThreadPool:
    """Runs ``execute(run)`` in at most ``limit`` threads beside the stuck ones.

    The connection thread calls ``submit``, ``grow``, ``abandon`` and ``stop``.

    Attributes:
        limit: Threads at most, the stuck ones not counted.
        strays: Threads that did not let go of a run that was ended without them.
    """

    run_class = ThreadRun
    runs_coroutines = False
    patience = PATIENCE_SECONDS

    def __init__(self, execute: Callable[[ThreadRun], None], limit: int) -> None:
        self._execute = execute
        self.limit = limit
        self._queue: SimpleQueue[ThreadRun | None] = SimpleQueue()
        self._context = contextvars.copy_context()
        self._threads: dict[int, threading.Thread] = {}  # by number; those that take new runs
        self._busy: dict[int, ThreadRun] = {}  # by number
        self._names: dict[int, str] = {}  # by number
        self._number = 0
        self._ended = 0  # runs, roughly (threads add to it without a lock)
        self._ended_before = 0
        self._looked = 0.0
        self.strays: dict[int, threading.Thread] = {}
        self.on_lost: Callable[[Any, str], None] = _never
        self.on_useless: Callable[[str], None] = _never
        self._starter: threading.Thread | None = None
        self._to_start: SimpleQueue[threading.Thread | None] = SimpleQueue()

    def open(self) -> None:
        """Threads are started when they are needed."""

    def submit(self, runs: Iterable[ThreadRun]) -> None:
        """Have these runs executed, soon."""
        for run in runs:
            self._queue.put(run)
        idle = len(self._threads) - len(self._busy)
        if len(self._threads) < FIRST_THREADS:
            self._spawn(min(self._queue.qsize() - idle, FIRST_THREADS - len(self._threads)))

    def grow(self) -> bool:
        """Add threads when runs wait and those there are don't get through. Called every few milliseconds.

        A burst of tiny runs is done faster by few threads (they hold the GIL in turn anyway); runs that block
        need one thread each. Whether all threads are in older runs, and how many runs ended since the last
        call, tells which it is.

        Returns:
            Whether runs wait.
        """
        waiting = self._queue.qsize()
        ended, self._ended_before = self._ended - self._ended_before, self._ended
        since, self._looked = self._looked, monotonic()
        if waiting:
            threads = len(self._threads)
            blocked = sum(1 for run in list(self._busy.values()) if 0.0 < run.started < since)
            if blocked >= threads:
                self._spawn(waiting)
            elif waiting > SLOW_TICKS * ended:
                self._spawn(min(waiting, FIRST_THREADS))
        return waiting > 0

    def abandon(self, run: ActiveRun) -> str:
        """The run is ended without its thread: that one takes no more runs, another may take its place.

        Returns:
            A sentence's end about it.
        """
        for number, busy in list(self._busy.items()):
            if busy is run:
                thread = self._threads.pop(number, None)
                if thread is not None:
                    self.strays[number] = thread
                self._busy.pop(number, None)
        if not self._threads and self._queue.qsize():
            self._spawn(1)
        return "its thread is lost until it returns"

    def names(self) -> dict[int, str]:
        """The task that runs, or ran last, in each living thread (``threading.get_ident``)."""
        return {
            thread.ident: self._names.get(number, "A task")
            for number, thread in [*self._threads.items(), *self.strays.items()]
            if thread.ident is not None and thread.is_alive()
        }

    def stop(self, *, exiting: bool = False) -> None:
        """End all idle threads, and wait a moment for them."""
        threads = list(self._threads.values())
        for _ in threads:
            self._queue.put(None)
        deadline = monotonic() + JOIN_SECONDS
        if self._starter is not None:
            self._to_start.put(None)
            self._starter.join(JOIN_SECONDS)
        for thread in threads:
            if thread.ident is not None:  # else the starter has not come to it
                thread.join(max(0.0, deadline - monotonic()))

    def _spawn(self, count: int) -> None:
        for _ in range(min(count, self.limit - len(self._threads))):
            self._number += 1
            thread = threading.Thread(
                target=self._work, args=(self._number,), name=f"prefect-lite-run-{self._number}", daemon=True
            )
            self._threads[self._number] = thread
            self._to_start.put(thread)
        if self._starter is None:
            self._starter = threading.Thread(
                target=self._start_threads, name="prefect-lite-starter", daemon=True
            )
            self._starter.start()

    def _start_threads(self) -> None:
        """Start threads, in a thread of its own.

        ``Thread.start`` waits until the new thread has had the interpreter. Beside a few that are busy in
        Python that takes so long that the connection thread missed a renewal, or two, while it started more.
        """
        while (thread := self._to_start.get()) is not None:
            thread.start()

    def _work(self, number: int) -> None:
        take, busy, execute, base = self._queue.get, self._busy, self._execute, self._context
        names = self._names
        while True:
            run = take()
            if run is None:
                self._threads.pop(number, None)
                names.pop(number, None)
                return
            busy[number] = run
            names[number] = run.task.name
            # A copy, so that context variables a task sets are gone when the next run comes; it is O(1).
            base.copy().run(execute, run)
            self._ended += 1
            busy.pop(number, None)
            if number not in self._threads:
                names.pop(number, None)
                self.strays.pop(number, None)  # abandoned meanwhile: another thread has this one's place
                return
            del run  # an idle thread must not keep the last run's arguments alive


def _never(*_: Any) -> None:
    """Threads don't end by themselves."""
