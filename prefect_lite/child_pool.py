"""Child processes of a flow's ``ProcessPoolTaskRunner``, one run at a time in each.

A thread of this process stands for each of them and waits for its answer. So nothing is shared between
children: one that dies takes its own run with it, and the thread starts another one for the next.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import wait as ready
from typing import TYPE_CHECKING, Any

from prefect_lite import child_calls, child_program
from prefect_lite.child_program import command, program
from prefect_lite.exceptions import ConfigurationError, CrashedRun, SerializationError
from prefect_lite.packed_calls import pack, unpacked_end
from prefect_lite.run_ends import TIMEOUT, describe, state_of, stopped_outcome
from prefect_lite.states import Crashed, Failed, State, StateType

if TYPE_CHECKING:
    from prefect_lite.local_calls import LocalCall

KILL_SECONDS = 2.0
"""After its deadline code has so long to let go; then its process is killed."""
LEAVE_SECONDS = 2.0
"""For a child that has nothing to do."""
LOOK_SECONDS = 1.0
"""How often to look for a child whose socket lives on in a process that it has forked."""

_CODE = "from prefect_lite.child_calls import main; main(sys.argv[1])"


class ChildDied(Exception):
    """A child has ended while it had a run."""


class Child:
    """One process."""

    def __init__(self) -> None:
        self.given = 0
        self.resident = 0
        self._lost = False
        self._sock, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                command(_CODE, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in the terminal is for the program, which decides what becomes of its runs.
                start_new_session=True,
            )
        except BaseException:
            self._sock.close()
            raise
        finally:
            theirs.close()
        with suppress(BrokenPipeError):  # what has become of it shows in the first answer
            child_calls.write(self._sock, program())

    def execute(self, data: bytes, call: LocalCall) -> State[Any]:
        """The final state of a run.

        Raises:
            ChildDied: The child has ended first.
        """
        self.given += 1
        timeout = call.task.options.timeout_seconds
        deadline: float | None = None
        try:
            child_calls.write(self._sock, data)
            while True:
                kind, *message = self._message(deadline)
                if kind == child_calls.END:
                    answer, self.resident = message
                    return unpacked_end(answer)
                type, name, text, call.record.run_count = message
                call.record.moved(type, name, text)
                running = type is StateType.RUNNING
                deadline = time.monotonic() + timeout + KILL_SECONDS if running and timeout else None
        except TimeoutError:
            self.kill()
            return state_of(stopped_outcome(call.record.label, TIMEOUT, timeout), call.record)
        except (EOFError, ConnectionError):
            words = self._last_words()
            self.kill()  # what it has started may live on
            raise ChildDied(words) from None

    def _message(self, deadline: float | None) -> Any:
        """What it says next.

        Raises:
            TimeoutError: Nothing until then.
            EOFError: It has ended.
        """
        while True:
            left = LOOK_SECONDS if deadline is None else deadline - time.monotonic()
            ended = self._process.poll() is not None  # looked at first: its last words may lie there
            if ready([self._sock], 0.0 if ended else max(0.0, min(left, LOOK_SECONDS))):
                return child_calls.read(self._sock)
            if ended:
                raise EOFError
            if left <= 0:
                raise TimeoutError

    @property
    def alive(self) -> bool:
        """Whether it can be given another run."""
        return not self._lost

    def kill(self) -> None:
        """End it now, with what it has started in its own session."""
        self._lost = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """Tell it to end."""
        self._sock.close()

    def close(self) -> None:
        """Let it end, and wait for that."""
        self.hang_up()
        try:
            self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def _last_words(self) -> str:
        """How it ended, as the end of a sentence."""
        try:
            code = self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its socket"
        if code >= 0:
            return f"exited with code {code}"
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"


class ChildPool:
    """Executes calls in child processes, started when there is work for them.

    Args:
        size: Processes at most.
        max_tasks: Runs after which one is replaced; None: never.
        max_memory: Bytes; one that has more after a run is replaced; None: never.

    Raises:
        ConfigurationError: This process is itself a child that imports the program.
    """

    def __init__(self, size: int, max_tasks: int | None, max_memory: int | None) -> None:
        if child_program.imported_only:
            raise ConfigurationError(
                "The program starts a flow while a process of a flow imports it. Put what is to run once "
                'only under `if __name__ == "__main__":`.'
            )
        self._max_tasks = max_tasks
        self._max_memory = max_memory
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._killed = False
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="prefect-lite-child")

    def submit(self, call: LocalCall) -> None:
        """Execute a call that waits for nothing any more."""
        self._threads.submit(self._execute, call)

    def kill(self) -> None:
        """End the runs that are under way, and begin no others."""
        with self._lock:
            self._killed = True
            for child in self._busy:
                child.kill()

    def close(self) -> None:
        """Wait for all runs, then for all processes."""
        self._threads.shutdown()
        for child in self._idle:
            child.hang_up()  # first all of them, so that they end together
        for child in self._idle:
            child.close()

    def _execute(self, call: LocalCall) -> None:
        if not (call.claim() and call.resolve()):
            return
        child: Child | None = None
        began = time.monotonic()
        try:
            data = pack(call)
            child = self._take()
            began = time.monotonic()
            state = child.execute(data, call)
        except SerializationError as exc:
            state = Failed(message=str(exc), data=exc)
        except ChildDied as exc:
            seconds = time.monotonic() - began
            text = f"The process that executed {call.task.name}() {exc}, {seconds:.1f} s after its run began."
            state = Crashed(message=text, data=CrashedRun(text))
        except Exception as exc:  # no process can be started, its answer can't be read
            text = f"{call.task.name}() could not be executed in a process: {describe(exc)}"
            state = Crashed(message=text, data=CrashedRun(text))
            if child is not None:
                child.kill()  # nobody knows what it says next
        if child is not None:
            self._give_back(child)
        call.finish(state)

    def _take(self) -> Child:
        with self._lock:
            child = self._idle.pop() if self._idle else None
        if child is None:
            child = Child()
        with self._lock:
            self._busy.add(child)
            if self._killed:
                child.kill()
        return child

    def _give_back(self, child: Child) -> None:
        used_up = self._max_tasks is not None and child.given >= self._max_tasks
        too_large = self._max_memory is not None and child.resident > self._max_memory
        with self._lock:
            self._busy.discard(child)
            if child.alive and not used_up and not too_large:
                self._idle.append(child)
                return
        child.close()
