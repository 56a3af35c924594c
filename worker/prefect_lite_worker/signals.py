"""SIGTERM and SIGINT on the way to the connection thread, even while the main thread is stuck in a C call.

Python runs signal handlers on the main thread, between bytecodes. ``signal.set_wakeup_fd`` writes the
signal's number to a socket from the C handler, at once; the connection thread reads it there.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

HANDLED = (signal.SIGTERM, signal.SIGINT)


class SignalPipe:
    """Made and taken down on the main thread; read on the connection thread's loop."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._handlers: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Take over the signals."""
        for number in HANDLED:
            self._handlers[number] = signal.signal(number, _noted)
        self.divert()

    def divert(self) -> None:
        """Send signal numbers here. Once more on a running uvloop, which takes them for itself at start."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def restore(self) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def close(self) -> None:
        """Close both ends; nobody may read any more."""
        self._reader.close()
        self._writer.close()

    def attach(
        self, loop: asyncio.AbstractEventLoop, on_signal: Callable[[int], None], poke: Callable[[], None]
    ) -> None:
        """Call ``on_signal`` on the loop for the handled signals, ``poke`` for others.

        ``poke`` has to make the main thread run some bytecode, so that the program's own handlers run.
        """
        loop.add_reader(self._reader, self._read, on_signal, poke)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop reading."""
        loop.remove_reader(self._reader)

    def _read(self, on_signal: Callable[[int], None], poke: Callable[[], None]) -> None:
        try:
            numbers = self._reader.recv(256)
        except (BlockingIOError, InterruptedError):
            return
        for number in numbers:
            if number in HANDLED:
                on_signal(number)
            else:
                poke()


def _noted(number: int, frame: object) -> None:
    """Nothing is left to do: the number has gone through the socket."""
