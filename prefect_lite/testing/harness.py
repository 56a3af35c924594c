"""``test_harness``: a private broker with its own Valkey, and a worker in this process."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from prefect_lite import clock, known_tasks
from prefect_lite.client.runtime import get_runtime
from prefect_lite.embedded.local_broker import find_or_start
from prefect_lite.exceptions import BrokerUnreachable, ConfigurationError
from prefect_lite.serving import FromSettings
from prefect_lite.testing.clocks import AdjustableClock, FakeClock, JumpingClock
from prefect_lite.testing.private_home import PrivateHome
from prefect_lite.waiting import answer_of

if TYPE_CHECKING:
    from pathlib import Path

    from prefect_lite.client.runtime import Runtime
    from prefect_lite.serving import WorkerApp
    from prefect_lite.tasks import Task

logger = logging.getLogger("prefect_lite.testing")

NOT_STARTED = "The harness is not started: use it in a block, `with test_harness() as harness:`."

ANSWER_SECONDS = 30.0
START_SECONDS = 60.0
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.002
PATIENCE_SECONDS = 2.0
BLOCKED_LOOKS = 15
"""A run that waits for others may be about to be let go: nothing has to move for so many looks in a row."""


class Harness:
    """A private broker and a worker for the time of a ``with`` block; made by ``test_harness``.

    ``delay``, ``apply_async``, futures, ``get_client`` and command lines started from here use them. Nothing
    of it is left afterwards, whatever happened inside: no process, file, thread or setting.
    """

    def __init__(
        self, tasks: tuple[Task[..., Any], ...], limit: int | FromSettings | None, settings: dict[str, Any]
    ) -> None:
        self._tasks = tasks
        self._limit = limit
        self._home = PrivateHome(settings)
        self._app: WorkerApp | None = None
        self._client: Runtime | None = None
        self._starting: _Starting | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._clock_before: clock.Clock | None = None
        self._listening = False
        self._entered = False
        self._pid = 0

    @property
    def folder(self) -> Path:
        """Where everything of the broker is; ``home/logs`` has what it and its Valkey said.

        Raises:
            ConfigurationError: The harness was never started.
        """
        if self._home.folder is None:
            raise ConfigurationError(NOT_STARTED)
        return self._home.folder

    @property
    def finished_task_runs(self) -> int:
        """Runs that have ended in this worker."""
        return self._app.finished if self._app is not None else 0

    # -- time -------------------------------------------------------------------------------------

    def advance(self, seconds: float, *, patience: float = PATIENCE_SECONDS) -> None:
        """Let so many seconds pass at once: for delays, ``eta``, ``expires``, kept results, and the clock.

        What can run is let run first: a task that fails just now has its retry set when time passes. Leases
        and timeouts of running code don't notice.

        Args:
            seconds: How many.
            patience: Real seconds to wait at most until nothing runs any more. A run may itself wait for one
                that is delayed, so this is no error.

        Raises:
            ConfigurationError: Time can't go on by this, or the harness is not started.
        """
        if not self._entered:
            raise ConfigurationError(NOT_STARTED)
        self._rest(patience)
        current = clock.current()
        if isinstance(current, AdjustableClock):
            current.advance(seconds)
        self._ask("advance", float(seconds))

    async def advance_async(self, seconds: float, *, patience: float = PATIENCE_SECONDS) -> None:
        """``advance`` without blocking the event loop."""
        await asyncio.to_thread(self.advance, seconds, patience=patience)

    def _rest(self, patience: float) -> None:
        """Wait until all runs have ended or wait for a moment, or for other runs."""
        until = time.monotonic() + patience
        looks = 0
        while time.monotonic() < until:
            stats = self._ask("stats")
            moving = stats["held"] or any(queue["length"] for queue in stats["queues"])
            looks = 0 if moving else looks + 1
            if looks > (BLOCKED_LOOKS if stats["blocked"] else 0):
                return
            time.sleep(LOOK_SECONDS)

    def _ask(self, what: str, arg: Any = None) -> Any:
        if self._client is None or self._client.closed:
            self._client = get_runtime()
        answered = self._client.ask(what, arg)  # not of another harness, or of eager mode, inside of this one
        if not answered.wait(ANSWER_SECONDS):
            raise BrokerUnreachable(f"The harness's broker did not answer in {ANSWER_SECONDS:g} s.")
        return answer_of(answered)

    # -- start ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._entered:
            raise ConfigurationError("This harness is started already; test_harness() makes another one.")
        self._home.enter()
        self._entered, self._pid = True, os.getpid()
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def _start(self) -> None:
        current = clock.current()  # one that stands still is turned by `advance`, too
        self._clock_before = current
        clock.replace(current if isinstance(current, FakeClock) else JumpingClock(current))
        starting = self._starting = _Starting(self._home)
        starting.start()  # the worker is imported meanwhile, which takes about as long
        try:
            from prefect_lite.serving import make_open_ended_worker

            self._app = make_open_ended_worker(self._tasks, limit=self._limit, name="test-harness")
            for task in () if self._tasks else known_tasks.known():
                self._app.serve_also(task)
        finally:
            starting.join()
        if starting.error is not None:
            raise starting.error
        self._thread = threading.Thread(target=self._serve, name="prefect-lite-test-worker", daemon=True)
        self._thread.start()
        self._client = get_runtime()
        if not self._app.wait_connected(START_SECONDS):
            raise BrokerUnreachable(f"The harness's worker found no broker in {START_SECONDS:g} s.")
        if self._error is not None:
            raise self._error
        self._wait_served(self._app.registry.keys)
        if not self._tasks:
            self._listening = True
            known_tasks.listen(self._serve_also)

    def _serve(self) -> None:
        assert self._app is not None
        try:
            self._app.serve()
        except BaseException as exc:
            self._error = exc

    def _serve_also(self, task: Task[..., Any]) -> None:
        if self._app is not None and not self._app.stopping and os.getpid() == self._pid:
            self._app.serve_also(task)
            self._wait_served([task.key])

    def _wait_served(self, keys: list[str]) -> None:
        """Else the first ``delay`` might be told that nobody serves its key."""
        until = time.monotonic() + ANSWER_SECONDS
        missing = set(keys)
        while missing and self._error is None and time.monotonic() < until:
            offset: int | None = 0
            while offset is not None:
                page = self._ask("served", offset)
                missing -= set(page["served"])
                offset = page["next"]
            if missing:
                time.sleep(LOOK_SECONDS)

    # -- end --------------------------------------------------------------------------------------

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        error, self._error = self._error, None
        if exc is None and error is not None:
            raise error

    def _stop(self) -> None:
        if os.getpid() != self._pid:
            return  # a fork that comes to the end of the block: all of it is the parent's
        if self._listening:
            self._listening = False
            known_tasks.stop_listening(self._serve_also)
        if self._starting is not None:
            self._starting.join(START_SECONDS)  # Ctrl-C came; what is not there yet can't be ended
        try:
            if self._app is not None and self._thread is not None:
                self._app.stop("the test is over", grace_seconds=0.0)
                self._thread.join(STOP_SECONDS)
                if self._thread.is_alive():
                    logger.warning("A coroutine blocks the harness's event loop; its thread is left behind.")
        finally:
            try:
                self._home.leave()
            finally:
                self._entered = False
                if self._clock_before is not None:
                    clock.replace(self._clock_before)
                self._thread = self._clock_before = self._starting = None

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread goes on; whoever was cancelled will not come to the end of the block.
            await asyncio.wait((starting,))
            if starting.exception() is None:
                await asyncio.to_thread(self._stop)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stopping = asyncio.ensure_future(asyncio.to_thread(self.__exit__, kind, exc, traceback))
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            await asyncio.wait((stopping,))
            raise


class _Starting(threading.Thread):
    """Starts the broker; ``error`` tells why it could not be."""

    def __init__(self, home: PrivateHome) -> None:
        super().__init__(name="prefect-lite-test-start", daemon=True)
        self._home = home
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            find_or_start(self._home.settings)
        except BaseException as exc:
            self.error = exc


def test_harness(
    *tasks: Task[..., Any],
    limit: int | FromSettings | None = FromSettings.LIMIT,  # noqa: PT028
    **settings: Any,
) -> Harness:
    """A private broker with its own Valkey, and a worker in this process, for a ``with`` or ``async with``.

    It takes well under a second and can be used again and again, nested, and in many processes at once. It
    changes the environment of this process, so it can't be used by two threads at the same time.

    Args:
        *tasks: What the worker executes. None given: every task that this process has defined, or defines
            inside the block.
        limit: Runs at a time; None for no limit. Default: the setting ``PREFECT_LITE_LIMIT`` (10).
        **settings: Any of ``prefect_lite.settings``, for broker, worker and client:
            ``result_ttl_seconds=600``. Not those that say where a broker is.

    Raises:
        ConfigurationError: No such setting, or an impossible value.
        EmbeddedStartError: The broker can't be started, with one sentence on why.

    Example:
        >>> with test_harness() as harness:  # doctest: +SKIP
        ...     assert add.delay(1, 2).result(timeout=5) == 3
    """
    return Harness(tasks, limit, settings)


test_harness.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # pytest would collect it
