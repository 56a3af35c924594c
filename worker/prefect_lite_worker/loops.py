"""The event loops that run coroutines: the main one, and fresh ones while a coroutine blocks it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from prefect_lite.logging import get_logger
from prefect_lite_worker.leases import ActiveRun, LoopRun

logger = get_logger("worker")

MAX_NAMES = 5


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where there is one, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class LoopHost:
    """Starts runs on one running loop; a burst is handed over with one wake-up.

    Args:
        loop: The loop; it need not run yet.
        execute: Coroutine function that executes a run on the loop it is given, which runs it.
        owner: The caller of ``aserve``, if the loop is that one's.

    Attributes:
        thread: Where it runs (``threading.get_ident``), known once it has started a run.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        execute: Callable[[LoopRun, asyncio.AbstractEventLoop], Coroutine[Any, Any, None]],
        owner: asyncio.Task[Any] | None = None,
    ) -> None:
        self.loop = loop
        self._owner = owner
        self._execute = execute
        self._inbox: deque[LoopRun] = deque()
        self._woken = False
        self.thread: int | None = None

    @property
    def closing(self) -> bool:
        """Whether ``aserve`` was cancelled; a program that ends cancels the runs on its loop with it."""
        return self._owner is not None and self._owner.cancelling() > 0

    def submit(self, runs: Iterable[LoopRun]) -> None:
        """Start these runs, soon. Called from the connection thread."""
        self._inbox.extend(runs)
        if not self._woken:
            self._woken = True
            self.call(self._start_all)

    def call(self, callback: Callable[[], object]) -> None:
        """Call something on the loop; nothing happens when it is closed."""
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            logger.debug("A loop for runs is closed already.")

    def _start_all(self) -> None:
        self._woken = False
        self.thread = threading.get_ident()
        inbox, loop, execute = self._inbox, self.loop, self._execute
        create = loop.create_task
        while inbox:
            create(execute(inbox.popleft(), loop))


class Loops:
    """The current loop for new runs, and the stuck ones.

    Args:
        main: The loop of the main thread (``serve``) or of the caller (``aserve``).
        execute: Coroutine function that executes a run on the loop it is given, which runs it.
        owner: The caller of ``aserve``, whose loop is not replaced; None under ``serve``.

    Attributes:
        current: Where new runs go.
    """

    def __init__(
        self,
        main: asyncio.AbstractEventLoop,
        execute: Callable[[LoopRun, asyncio.AbstractEventLoop], Coroutine[Any, Any, None]],
        owner: asyncio.Task[Any] | None = None,
    ) -> None:
        self._execute = execute
        self._may_replace = owner is None
        self.main = LoopHost(main, execute, owner)
        self.current = self.main
        self._stuck: set[LoopHost] = set()
        self._spare: deque[LoopHost] = deque()
        self._threads: list[tuple[LoopHost, threading.Thread]] = []

    @property
    def stuck(self) -> int:
        """Loops that do not react just now."""
        return len(self._stuck)

    def replace(self, host: LoopHost, waiting: Iterable[LoopRun]) -> bool:
        """The loop of ``host`` does not react: new runs, and those that wait for it, go to a fresh one.

        Args:
            host: The stuck loop.
            waiting: All runs that have not started.

        Returns:
            Whether it was replaced (not when that was done before, or may not be done).
        """
        if host is not self.current or not self._may_replace:
            return False
        self._stuck.add(host)
        host.call(lambda: self._recovered(host))
        self.current = self._spare.popleft() if self._spare else self._fresh()
        moved = [run for run in waiting if run.host is host]
        for run in moved:
            run.host = self.current
        self.current.submit(moved)
        return True

    def _recovered(self, host: LoopHost) -> None:
        """On a loop that was stuck: it reacts again, and may take the place of the next one that does not."""
        self._stuck.discard(host)
        self._spare.append(host)

    def _fresh(self) -> LoopHost:
        loop = new_event_loop()
        name = f"prefect-lite-loop-{len(self._threads) + 2}"
        thread = threading.Thread(target=_run_loop, args=(loop,), name=name, daemon=True)
        host = LoopHost(loop, self._execute)
        self._threads.append((host, thread))
        thread.start()
        return host

    def names(self, active: Iterable[ActiveRun]) -> dict[int, str]:
        """The coroutines under way in each loop's thread (``threading.get_ident``), as one text."""
        found: dict[int, set[str]] = {}
        for run in active:
            if isinstance(run, LoopRun) and run.host.thread is not None:
                found.setdefault(run.host.thread, set()).add(run.task.name)
        return {thread: " or ".join(sorted(names)[:MAX_NAMES]) for thread, names in found.items()}

    def stop(self) -> None:
        """End the fresh loops."""
        for host, _ in self._threads:
            host.call(host.loop.stop)
        for _, thread in self._threads:
            thread.join(1.0)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        close_loop(loop)


def close_loop(loop: asyncio.AbstractEventLoop, seconds: float = 1.0) -> None:
    """Cancel what is left on a stopped loop, wait a moment for it, and close the loop.

    A coroutine that does not react is left alone, and its loop stays open: closing would raise in there.
    """
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        _, pending = loop.run_until_complete(asyncio.wait(tasks, timeout=seconds))
        if pending:
            return
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
