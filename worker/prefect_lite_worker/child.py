"""A child process of a worker: receives runs, executes them with the worker's own code, tells how they end.

Runs are executed on the main thread. One thread reads what the worker says, another one writes what lies on
the desk, so code that may be interrupted never writes to the socket. When the worker has gone, so has the
child: the socket ends, and on Linux the kernel sends SIGKILL, also to code that lets no Python run.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import spawn
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from prefect_lite import child_program
from prefect_lite.exceptions import PrefectException
from prefect_lite.keyring import Keyring
from prefect_lite.logging import ensure_output, get_logger
from prefect_lite.protocol.messages import Run
from prefect_lite.run_ends import Outcome
from prefect_lite_worker.desk import Desk
from prefect_lite_worker.elsewhere import Elsewhere, end_message, take_outcomes
from prefect_lite_worker.leases import ActiveRun, LoopRun, ThreadRun
from prefect_lite_worker.pipe import (
    BROKEN,
    LEFT,
    LEND,
    LINES,
    NEED,
    READY,
    STARTED,
    STOP,
    read_message,
    write_message,
)
from prefect_lite_worker.registry import AnyTask

LOCK_PATIENCE_SECONDS = 10.0
"""Each slot that is lent meanwhile takes a process more."""

LEAVE_SECONDS = 5.0
"""For exit handlers and threads of the user that don't want to end."""
WAKING_SIGNAL = signal.SIGURG
"""Ignored unless somebody handles it, and hardly anybody does."""
HANDLED = (signal.SIGTERM, signal.SIGINT, WAKING_SIGNAL)
_PR_SET_PDEATHSIG = 1

_page_bytes = os.sysconf("SC_PAGE_SIZE")


class ChildDesk(Desk):
    """What lies here goes to the worker.

    Args:
        write: Sends a message at once.

    Attributes:
        wakes: There is something to take.
        left: Attempts whose code has ended: token and number.
    """

    def __init__(self, write: Callable[[list[Any]], None]) -> None:
        super().__init__()
        self.write = write
        self.wakes: SimpleQueue[bool] = SimpleQueue()  # ``put`` is one call of C: no interruption splits it
        self.left: deque[tuple[str, int]] = deque()

    def wake(self) -> None:
        self.wakes.put(True)

    def line(self, run_id: str, line: list[Any]) -> None:
        """There are no ticks here, and who is killed or crashes next should have said it."""
        super().line(run_id, line)
        if self.wakes.empty():
            self.wakes.put(True)

    def begin(self, run: ActiveRun, attempt: int) -> None:
        """The code of an attempt is about to start: say so before it can hold the interpreter.

        The calling thread writes, which can't be interrupted yet.
        """
        name = run.context.task_run.given_name if run.context is not None else None
        self.write([STARTED, run.token, attempt, name])

    def leave(self, run: ActiveRun) -> None:
        """The code has ended; what comes now is not of the timeout."""
        if run.timeout is not None:
            self.left.append((run.token, run.attempt))
            self.wake()


class ChildRun(ThreadRun):
    """A function's run, on the child's main thread."""

    __slots__ = ()
    desk: ChildDesk
    lock_patience_seconds = LOCK_PATIENCE_SECONDS

    def begin(self, attempt: int) -> None:
        self.desk.begin(self, attempt)
        super().begin(attempt)

    def end(self) -> str | None:
        reason = super().end()
        self.desk.leave(self)
        return reason

    def interrupt(self) -> None:
        super().interrupt()
        if self.inside:
            # Wakes a thread that sleeps in a system call, so that the interruption is raised there.
            signal.pthread_kill(_main_thread_id(), WAKING_SIGNAL)


class ChildCoroutine(LoopRun):
    """A coroutine's run, on the child's loop."""

    __slots__ = ()
    desk: ChildDesk
    lock_patience_seconds = LOCK_PATIENCE_SECONDS

    def begin(self, attempt: int) -> None:
        self.desk.begin(self, attempt)
        super().begin(attempt)

    def end(self) -> str | None:
        reason = super().end()
        self.desk.leave(self)
        return reason


class ChildProcess:
    """What a child knows and does.

    Args:
        sock: Connected with the worker.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._writing = threading.Lock()
        self._desk = ChildDesk(self.write)
        self._runs: SimpleQueue[list[Any] | None] = SimpleQueue()
        self._run: ChildRun | ChildCoroutine | None = None
        self._stops: dict[str, str] = {}
        self._measured = False
        self._leaving = False
        self._forked = False
        self._tasks: dict[str, AnyTask] = {}

    def write(self, message: list[Any]) -> None:
        """Send a message to the worker; without a worker there is nothing left to do."""
        try:
            with self._writing:
                write_message(self._sock, message)
        except OSError:
            if not self._leaving:  # else exit handlers are to run, whatever they log
                os._exit(1)

    def forked(self) -> None:
        """This is a copy that a task has made of the process: it does not speak for the run."""
        self._forked = True
        self._writing = threading.Lock()  # perhaps the writer had it
        self._sock.close()

    def work(self) -> None:
        """Load the tasks, then execute runs until the worker wants no more."""
        first = read_message(self._sock)
        if first is None:
            return
        start = first[1]
        try:
            self._load(start)
        except BaseException as exc:
            self.write([BROKEN, _told(exc)])
            return
        key_id, key = start["key"]
        there = Elsewhere(
            self._desk,
            Keyring([(key_id, key)] if key_id else []),
            start["namespace"],
            start["max_payload_bytes"],
        )
        self._measured = start["measured"]
        get_logger().setLevel(start["log_level"])  # else it is looked up in the settings, which take long
        ensure_output()
        gc.collect()
        gc.freeze()
        for work, name in ((self._read, "reader"), (self._write_all, "writer")):
            threading.Thread(
                target=_or_end, args=(work,), name=f"prefect-lite-child-{name}", daemon=True
            ).start()
        self.write([READY])
        while (order := self._runs.get()) is not None:
            run = self._made(there, *order)
            del order  # the call may be large, and the run long
            self._execute(there, run)
            del run
        there.close()

    def _load(self, start: dict[str, Any]) -> None:
        from prefect_lite.pickling import loads

        child_program.imported_only = True
        spawn.prepare(start["program"])
        child_program.imported_only = False
        for keys, data in start["tasks"]:
            self._tasks.update(dict.fromkeys(keys, loads(data)))

    def _made(
        self, there: Elsewhere, fields: list[Any], outcomes: list[list[Any]] | None
    ) -> ChildRun | ChildCoroutine:
        message = Run(*fields)
        task = self._tasks[message.task_key]
        run = (
            ChildCoroutine(message, task, self._desk, there.host)
            if task.isasync
            else ChildRun(message, task, self._desk)
        )
        take_outcomes(run, outcomes)
        return run

    def _execute(self, there: Elsewhere, run: ChildRun | ChildCoroutine) -> None:
        self._run = run  # before looking: the reader looks the other way round
        run.stop = self._stops.pop(run.token, None)
        there.execute(run)
        self._run = None
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or none at all
                stream.flush()
        if self._forked:
            # The task has not ended its copy, as it should have. Nothing here is the copy's to go on with.
            os._exit(_exit_code(self._desk.ended[-1].outcome))

    # -- two threads --------------------------------------------------------------------------------

    def _read(self) -> None:
        while True:
            message = read_message(self._sock)
            if message is None:
                if self._run is None:
                    self._leaving = True
                    self._runs.put(None)
                    time.sleep(LEAVE_SECONDS)
                os._exit(1)  # the worker has gone, and with it the lease
            verb, *fields = message
            if verb != STOP:
                self._runs.put(fields)
                continue
            token, reason = fields
            self._stops[token] = reason
            run = self._run
            if run is not None and run.token == token and self._stops.pop(token, None) is not None:
                run.stop = reason
                run.interrupt()

    def _write_all(self) -> None:
        desk = self._desk
        while True:
            desk.wakes.get()
            ends = len(desk.ended)  # counted first: the lines of an ended run go before its end
            while desk.lines:
                lines: dict[str, list[Any]] = {}
                for _ in range(len(desk.lines)):
                    run_id, line = desk.lines.popleft()
                    lines.setdefault(run_id, []).append(line)
                desk.lines_taken()
                for run_id, found in lines.items():
                    self.write([LINES, run_id, found])
            while desk.lent:
                run, waits = desk.lent.popleft()
                self.write([LEND, run.token, waits])
            while desk.left:
                self.write([LEFT, *desk.left.popleft()])
            while desk.needs:
                run, run_ids = desk.needs.popleft()
                self.write([NEED, run.token, list(run_ids)])
            for _ in range(ends):
                self.write(end_message(desk.ended.popleft(), resident_bytes() if self._measured else 0))
            desk.started.clear()


def resident_bytes() -> int:
    """Memory of this process that is in RAM now (where the system does not tell: the most it ever had)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _page_bytes
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def main(descriptor: str) -> None:
    """Entry point; the worker starts it (``child_setup.command``)."""
    sock = socket.socket(fileno=int(descriptor))
    sock.set_inheritable(False)
    _die_with_the_worker()
    # Handlers, not SIG_IGN, which programs that a task starts would inherit. A supervisor that signals the
    # whole group wants the worker to drain, and the worker tells us.
    for number in HANDLED:
        signal.signal(number, _noted)
    # What a task forks has to be as easy to end as anywhere, from its first moment on.
    os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_in, after_in_child=_unhandle)
    process = ChildProcess(sock)
    os.register_at_fork(after_in_child=process.forked)
    process.work()


def _die_with_the_worker() -> None:
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _exit_code(outcome: Outcome) -> int:
    """Of a forked copy whose task has ended so."""
    if isinstance(outcome.value, SystemExit) and isinstance(outcome.value.code, int | None):
        return outcome.value.code or 0
    return 0 if outcome.kind == "completed" else 1


def _or_end(work: Callable[[], None]) -> None:
    """A child that no longer hears or speaks is of no use, and its run would never end."""
    try:
        work()
    finally:
        os._exit(1)


def _main_thread_id() -> int:
    ident = threading.main_thread().ident
    assert ident is not None
    return ident


def _noted(number: int, frame: object) -> None:
    """Nothing is to be done, and a pending interruption is raised in here."""


def _hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


def _let_signals_in() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _unhandle() -> None:
    for number in HANDLED:
        if signal.getsignal(number) is _noted:
            signal.signal(number, signal.SIG_DFL)
    _let_signals_in()


def _told(error: BaseException) -> str:
    """Ours are sentences; of others the traceback is of use."""
    if isinstance(error, PrefectException):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()
