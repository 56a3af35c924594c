"""One child process, as its worker sees it: start, messages, death."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prefect_lite_worker import child_setup
from prefect_lite_worker.leases import monotonic
from prefect_lite_worker.pipe import RUN, START, STOP, Channel

if TYPE_CHECKING:
    from prefect_lite_worker.handover import GivenRun

LEAVE_SECONDS = 2.0
"""For a child that was told to end; it may have to run exit handlers of the user."""
GONE_SECONDS = 0.5
"""For one that has closed its socket: as a rule it is just ending. If it lives on, it is of no use."""
DEATH_CHECK_SECONDS = 0.005


class Child:
    """A process that executes one run at a time.

    Args:
        loop: Of the connection thread, which must be the calling one: Linux ends a child with the thread that
            started it.
        command: Makes the command line for a descriptor.
        environment: Of the process.
        start: The first message.
        on_message: Takes its messages.
        on_death: Called once, when it has ended and was reaped.

    Attributes:
        ready: It has loaded the tasks.
        run: What it executes.
        given: How many runs it was given.
        leaving: It gets no more runs.
        killed: By us.

    Raises:
        OSError: No process can be started.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        environment: dict[str, str],
        start: dict[str, Any],
        on_message: Callable[[Child, list[Any]], None],
        on_death: Callable[[Child], None],
    ) -> None:
        self._loop = loop
        self._on_death = on_death
        self._dead = False
        self._timer: asyncio.TimerHandle | None = None
        self.ready = False
        self.run: GivenRun | None = None
        self.given = 0
        self.leaving = False
        self.killed = False
        self._hung_up = False
        ours, theirs = socket.socketpair()
        try:
            self.process = subprocess.Popen(
                child_setup.command(theirs.fileno()),
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in the terminal is for the worker, which lets runs finish first.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = Channel(ours, loop, lambda message: on_message(self, message), self._closed)
        self._channel.send([START, start])

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its session and process group."""
        return self.process.pid

    def execute(self, run: GivenRun, message: list[Any], outcomes: list[list[Any]] | None) -> None:
        """Give it a run."""
        self.given += 1
        self._channel.send([RUN, message, outcomes])

    def interrupt(self, run: GivenRun) -> None:
        """Ask it to stop a run; whether it does is up to the run's code."""
        self._channel.send([STOP, run.token, run.stop])

    def leave(self) -> None:
        """Let it end by itself, as it has nothing to do; killed if it does not."""
        self.leaving = True
        self._channel.close()
        self._check_until(monotonic() + LEAVE_SECONDS)

    def kill(self) -> None:
        """End it now, with what it has started in its own session."""
        self.killed = self.leaving = True
        # Before the channel: at its end the child leaves by itself, and then its group can not be found.
        if self.process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._channel.close()
        self._check_until(monotonic() + LEAVE_SECONDS)

    def check(self) -> bool:
        """Reap it if it has ended; returns whether it has."""
        if self._dead:
            return True
        if self.process.poll() is None:
            return False
        self._dead = True
        self._channel.close()
        if self._timer is not None:
            self._timer.cancel()
        self._on_death(self)
        return True

    def wait(self, seconds: float) -> None:
        """Block until it has ended; kill it if it has not after so long."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        self._dead = True
        if self._timer is not None:
            self._timer.cancel()

    def last_words(self) -> str:
        """How it ended, as the end of a sentence."""
        if self._hung_up and self.killed:
            return "closed its connection with the worker and was killed"
        code = self.process.returncode
        if code is None or code >= 0:
            return f"exited with code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        hint = "; the system does that when memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code} ({name}){hint}"

    def _closed(self) -> None:
        """Its end of the socket is closed."""
        self.leaving = self._hung_up = True
        if not self.check():
            self._check_until(monotonic() + GONE_SECONDS)

    def _check_until(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.check():
            return
        if monotonic() >= deadline:
            if self.killed:  # it waits for the disk, or for a debugger
                deadline += LEAVE_SECONDS
            else:
                self.kill()
                return
        self._timer = self._loop.call_later(DEATH_CHECK_SECONDS, self._check_until, deadline)
