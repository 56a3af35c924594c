"""A worker as a whole: its threads, from the first line in the terminal to the exit code.

``serve`` owns the process: coroutines run on the main thread, signals are handled, SIGTERM ends it.
``aserve`` is a guest: coroutines run on the caller's loop, and nothing of the process is touched.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from prefect_lite.embedded.home import load_or_create_keyring
from prefect_lite.exceptions import ConfigurationError, PrefectException, WorkerStuck
from prefect_lite.logging import ensure_output, get_logger, restore_output
from prefect_lite.serving import FromSettings
from prefect_lite.settings import Settings, get_settings
from prefect_lite.task_runners import ProcessPoolTaskRunner
from prefect_lite_worker.assembly import Parts, Plan, assemble
from prefect_lite_worker.lifecycle import EXIT_OK, EXIT_STUCK, EXIT_UNACKNOWLEDGED, SERVING
from prefect_lite_worker.loops import close_loop, new_event_loop
from prefect_lite_worker.registry import AnyTask, Registry
from prefect_lite_worker.signals import SignalPipe
from prefect_lite_worker.status import StatusServer
from prefect_lite_worker.terminal import Relay, Terminal, TerminalHandler
from prefect_lite_worker.turns import Turns

logger = get_logger("worker")

NO_LIMIT = 2_000
"""Slots of a worker without a limit; a session can't hold many more leases than that."""
MAIN_SECONDS = 2.0
"""For the main thread to return after everything has been handed back; it may be stuck in user code."""


class WorkerApp:
    """One worker. Use it once.

    Args:
        tasks: What to execute.
        limit: Runs at a time, None for no limit. Default: the setting.
        settings: Default: those of the process.
        name: For people; default host and process id.
        status_server_port: Port of the status server; 0 takes a free one, None has none.
        status_server_host: Its address.
        max_stray_threads: Stuck threads at which the worker stops with exit code 75; default ``limit``.
        open_ended: Tasks, even the first, may come later: ``serve_also``.
        runner: Where runs are executed; default in threads and, coroutines, on the event loop.

    Raises:
        ConfigurationError: No task, or an impossible limit.
        DuplicateTaskKey: Two tasks have one key.

    Attributes:
        exit_code: After the end: 0, 1 (ends not acknowledged) or 75 (too many stuck threads). It is the
            process's own under ``serve`` on the main thread; anywhere else the process is left alone.
    """

    def __init__(
        self,
        tasks: Iterable[AnyTask],
        *,
        limit: int | FromSettings | None = FromSettings.LIMIT,
        settings: Settings | None = None,
        name: str = "",
        status_server_port: int | None = None,
        status_server_host: str = "127.0.0.1",
        max_stray_threads: int | None = None,
        open_ended: bool = False,
        runner: ProcessPoolTaskRunner | Executor | None = None,
    ) -> None:
        self.settings = settings if settings is not None else get_settings()
        if limit is FromSettings.LIMIT:
            limit = self.settings.limit
        if limit is not None and limit < 1:
            raise ConfigurationError(f"limit must be at least 1, got {limit}; None means no limit.")
        self.registry = Registry(tasks, may_be_empty=open_ended)
        self.limit = min(limit, NO_LIMIT) if limit is not None else NO_LIMIT
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.started_at: datetime | None = None
        self.exit_code = EXIT_OK
        self._terminal = Terminal()
        self._relay = Relay(self._terminal)
        self._own_output = False
        keyring = load_or_create_keyring(self.settings)
        strays = max_stray_threads if max_stray_threads is not None else self.limit
        self._plan = Plan(self.settings, keyring, self.registry, self.limit, self.name, strays, runner)
        self._parts: Parts | None = None
        self._status: StatusServer | None = None
        if status_server_port is not None:
            self._status = StatusServer(status_server_port, status_server_host, self.status, self._is_healthy)
        self._pipe: SignalPipe | None = None
        self._hard_exit = False
        self._error: BaseException | None = None
        self._reason = ""
        self._ready = threading.Event()
        self._stop_early: str | None = None
        self._main_back = threading.Event()
        self._told_down = False

    # -- the two ways to run ----------------------------------------------------------------------

    def serve(self, timeout: float | None = None) -> None:
        """Run until stopped. SIGTERM ends the process; Ctrl-C and the timeout return from here.

        Args:
            timeout: Stop after so many seconds.

        Raises:
            ConfigurationError: Called under a running event loop, or the status port is taken.
            AuthenticationFailed, ProtocolVersionError: The broker can't be used.
            SystemExit: The end was not clean; ``exit_code`` tells. On the main thread only.
            WorkerStuck: Too many threads are stuck, and this is not the main thread (there: exit code 75).
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop = new_event_loop()
        else:
            raise ConfigurationError("serve() can't run under a running event loop; await aserve() there.")
        asyncio.set_event_loop(loop)
        if threading.current_thread() is threading.main_thread():
            self._pipe = SignalPipe()
            self._pipe.install()
            # uvloop takes the wake-up descriptor for itself when it starts to run.
            loop.call_soon(self._pipe.divert)
            # What has been imported stays for good: full collections need not look at it again.
            gc.collect()
            gc.freeze()
        thread = self._start(loop, loop.stop, timeout, owner=None)
        try:
            loop.run_forever()
        finally:
            self._main_back.set()
            if self._pipe is not None:
                self._pipe.restore()
            thread.join()
            close_loop(loop)
            asyncio.set_event_loop(None)
            self._finish()
        if self._pipe is None:
            self._raise_as_guest()
        elif self._error is not None:
            raise self._error
        elif self.exit_code:
            sys.exit(self.exit_code)

    async def aserve(self, timeout: float | None = None) -> None:
        """The same in the caller's loop, without signal handlers. Cancel it to stop at once.

        Args:
            timeout: Stop after so many seconds.

        Raises:
            ConfigurationError, AuthenticationFailed, ProtocolVersionError: As ``serve``.
            WorkerStuck: Too many threads are stuck in code that does not let go.
        """
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        thread = self._start(loop, over.set, timeout, owner=asyncio.current_task())
        try:
            await over.wait()
        except asyncio.CancelledError:
            self.stop("cancelled", grace_seconds=0.0)
            await _uncancelled(over)
            raise
        finally:
            self._main_back.set()
            thread.join()
            self._finish()
        self._raise_as_guest()

    def _raise_as_guest(self) -> None:
        """The process is not ours to end."""
        if self._error is not None:
            raise self._error
        if self.exit_code == EXIT_STUCK:
            raise WorkerStuck(
                f"The worker has stopped: {self._reason}. Restart the process to get them back."
            )

    def stop(self, reason: str = "asked to", grace_seconds: float | None = None) -> None:
        """Begin to stop; a second call hands back at once what still runs. Safe from any thread.

        Args:
            reason: For people.
            grace_seconds: How long runs may go on; default the setting.
        """
        grace = self.settings.grace_seconds if grace_seconds is None else grace_seconds
        self._stop_early = reason
        parts = self._parts
        if parts is not None:
            with suppress(RuntimeError):  # the loop is closed: it has stopped
                parts.loop.call_soon_threadsafe(parts.work.lifecycle.stop, reason, grace)

    def serve_also(self, task: AnyTask) -> None:
        """Serve another task from now on, in place of one that has its key. Safe from any thread."""
        parts = self._parts
        if parts is None:
            self.registry.replace(task)
            return
        with suppress(RuntimeError):  # the loop is closed: it has stopped
            parts.loop.call_soon_threadsafe(parts.work.serve_also, task)

    def wait_connected(self, timeout: float) -> bool:
        """Block until a broker has welcomed this worker, or the worker has ended; False: neither, in time."""
        return self._ready.wait(timeout)

    # -- the connection thread --------------------------------------------------------------------

    def _start(
        self,
        loop: asyncio.AbstractEventLoop,
        on_stopped: Callable[[], None],
        timeout: float | None,
        *,
        owner: asyncio.Task[Any] | None,
    ) -> threading.Thread:
        self._terminal.start()
        self._own_output = ensure_output(TerminalHandler(self._terminal))
        if not self._own_output:
            self._relay.attach()
        self.started_at = datetime.now(UTC)

        def run() -> None:
            try:
                with asyncio.Runner(loop_factory=new_event_loop) as runner:
                    runner.run(self._connect_and_work(loop, timeout, owner=owner))
            except BaseException as exc:
                self._error = exc
            finally:
                self._ready.set()
                self._leave(loop, on_stopped)

        thread = threading.Thread(target=run, name="prefect-lite-connection", daemon=True)
        thread.start()
        return thread

    async def _connect_and_work(
        self, user_loop: asyncio.AbstractEventLoop, timeout: float | None, *, owner: asyncio.Task[Any] | None
    ) -> None:
        parts = self._parts = assemble(
            self._plan,
            user_loop,
            owner=owner,
            write=self._terminal.write if self._own_output else None,
            on_up=self._on_up,
            on_down=self._on_down,
        )
        loop, lifecycle = parts.loop, parts.work.lifecycle
        running: asyncio.Task[None] | None = None
        try:
            if self._status is not None:
                await self._status.start()
            if self._pipe is not None:
                parts.work.turns = Turns()
                self._pipe.attach(loop, self._on_signal, lambda: parts.loops.main.call(_nothing))
            if self._stop_early is not None:
                lifecycle.stop(self._stop_early, 0.0)
            if timeout is not None:
                grace = self.settings.grace_seconds
                loop.call_later(timeout, lifecycle.stop, f"served for {timeout:g} s", grace)
            self._greet()
            parts.pool.open()
            running = loop.create_task(parts.connection.run())
            stopping = loop.create_task(lifecycle.requested())
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if running.done() and not running.cancelled():
                running.result()  # it ends by itself only when no broker will ever take us
            await lifecycle.drain()
            self.exit_code, self._reason = lifecycle.exit_code, lifecycle.reason
        finally:
            await parts.connection.aclose("the worker stops")
            if running is not None:
                running.cancel()
                await asyncio.wait({running}, timeout=1.0)
            parts.work.close()
            parts.pool.stop(exiting=self._hard_exit or lifecycle.exit_code == EXIT_STUCK)
            parts.loops.stop()
            parts.execution.close()
            if self._pipe is not None:
                self._pipe.detach(loop)
            if self._status is not None:
                await self._status.stop()
        if self._hard_exit:
            self._exit()  # from here: closing the loop would wait for a broker that is just being started

    def _leave(self, user_loop: asyncio.AbstractEventLoop, on_stopped: Callable[[], None]) -> None:
        """The last step of the connection thread: end the process, or let the main thread go on."""
        if self._hard_exit or (self.exit_code == EXIT_STUCK and self._pipe is not None):
            self._exit()
        with suppress(RuntimeError):  # the caller's loop was closed without waiting for us
            user_loop.call_soon_threadsafe(on_stopped)
            if self._pipe is not None and not self._main_back.wait(MAIN_SECONDS):
                self._exit()

    def _exit(self) -> None:
        """End the process now: a stuck thread would hold a normal exit for ever."""
        self._terminal.stop()
        if self._error is not None:
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.write(f"The worker has failed. {_told(self._error)}\n")
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or none at all
                stream.flush()
        os._exit(self.exit_code if self._error is None else EXIT_UNACKNOWLEDGED)

    def _finish(self) -> None:
        if self._own_output:
            restore_output()
        self._relay.detach()
        self._terminal.stop()
        if self._pipe is not None:
            self._pipe.close()

    # -- events -----------------------------------------------------------------------------------

    def _greet(self) -> None:
        keys = self.registry.keys
        shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        where = f"; status on port {self._status.port}" if self._status is not None else ""
        stop = " Ctrl-C stops." if self._pipe is not None else ""
        logger.info("Serving %s with %d slots%s%s.%s", shown, self.limit, self._executed, where, stop)

    @property
    def _executed(self) -> str:
        """Where runs are executed, unless it is here."""
        runner = self._plan.runner
        if runner is None:
            return ""
        processes = isinstance(runner, ProcessPoolTaskRunner)
        return f" in {'child processes' if processes else type(runner).__name__}"

    def _on_signal(self, number: int) -> None:
        parts = self._parts
        if parts is None:
            return
        if number == signal.SIGTERM:
            self._hard_exit = True
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        parts.work.lifecycle.stop(name, self.settings.grace_seconds)

    def _on_up(self, welcome: Any) -> None:
        self._ready.set()
        again = "again " if self._told_down else ""
        self._told_down = False
        kind = "broker" if self.settings.broker_url else "local broker"
        logger.info("Connected %sto %s %s.", again, kind, welcome.broker, extra={"action": "connected"})

    def _on_down(self, fault: Exception | None) -> None:
        parts = self._parts
        if self._told_down or (parts is not None and parts.work.lifecycle.phase != SERVING):
            return
        self._told_down = True
        why = f" ({fault})" if fault is not None else ""
        logger.warning("No broker%s; trying again until there is one.", why, extra={"action": "disconnected"})

    # -- what it tells ----------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether it takes no more runs."""
        parts = self._parts
        return self._stop_early is not None or (parts is not None and parts.work.lifecycle.phase != SERVING)

    @property
    def current(self) -> int:
        """Runs under way."""
        return len(self._parts.leases.active) if self._parts is not None else 0

    @property
    def available(self) -> int:
        """Slots that are free."""
        return self._parts.leases.free if self._parts is not None else self.limit

    @property
    def finished(self) -> int:
        """Runs that have ended here."""
        counts = self._parts.reporter.counts if self._parts is not None else {}
        return sum(count for kind, count in counts.items() if kind not in ("retry", "given_up"))

    def _is_healthy(self) -> bool:
        return not self.stopping

    def status(self) -> dict[str, Any]:
        """What ``GET /status`` answers."""
        parts = self._parts
        runs = list(parts.leases.active.values()) if parts is not None else []
        in_flight: dict[str, dict[str, float]] = {}
        now = asyncio.get_running_loop().time() if parts is not None else 0.0
        for run in runs:
            seconds = round(now - run.started, 3) if run.started else 0.0
            in_flight.setdefault(run.task_key, {})[run.run_id] = seconds
        counts = dict(parts.reporter.counts) if parts is not None else {}
        return {
            "client_id": self.name,
            "started_at": self.started_at.isoformat() if self.started_at is not None else None,
            "stopping": self.stopping,
            "limit": self.limit,
            "current": self.current,
            "available": self.available,
            "tasks": self.registry.keys,
            "finished": self.finished,
            "outcomes": counts,
            "in_flight": in_flight,
            "stray_threads": parts.work.stops.stuck if parts is not None else 0,
            "connected": parts.connection.connected if parts is not None else False,
            "broker": parts.work.broker if parts is not None else "",
        }


async def _uncancelled(over: asyncio.Event) -> None:
    """Wait for an event whatever happens to the waiting task; the other side has a limit of its own."""
    while not over.is_set():
        with suppress(asyncio.CancelledError):
            await over.wait()


def _told(error: BaseException) -> str:
    """Ours are sentences; of others the traceback is of use."""
    if isinstance(error, PrefectException):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()


def _nothing() -> None:
    """Makes a loop run some bytecode, after which Python calls pending signal handlers."""
