"""Writing log lines and records from a thread of its own.

A terminal can stop reading (Ctrl-S, a full pipe), and a program's own log handlers can wait for anything.
Whoever writes to them then waits; this must be neither the connection thread, which would lose its leases,
nor a run. What waits is bounded: more is dropped, and counted.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeGuard

from prefect_lite.logging import LocklessHandler, RunLineFormatter, get_logger

MAX_WAITING = 50_000
PAUSE_SECONDS = 0.05
"""Lines are collected this long, so that 10,000 runs a second cost 20 writes, and 500 not many more."""
_NOBODY = logging.NullHandler()

_Item = str | Callable[[], str] | logging.LogRecord | threading.Event | None


class Terminal:
    """Lines for stderr, and records for the program's own handlers. ``write`` and ``relay`` never block."""

    def __init__(self) -> None:
        # Its ``put`` is one C call without a Python lock, see ``LocklessHandler``.
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._dropped = 0
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefect-lite-terminal", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(self, line: str | Callable[[], str] | logging.LogRecord) -> None:
        """Write a line, soon; what makes one is called here, many at a time, which is cheaper."""
        if self._queue.qsize() < MAX_WAITING:
            self._queue.put(line)
        else:
            self._dropped += 1

    def relay(self, record: logging.LogRecord) -> None:
        """Give a record to the handlers of the logger ``prefect_lite`` and those above it, soon."""
        self.write(record)

    def flush(self, seconds: float = 1.0) -> None:
        """Wait until all is written, at most so long."""
        written = threading.Event()
        self._queue.put(written)
        written.wait(seconds)

    def stop(self) -> None:
        """Write what is left and end, within about two seconds."""
        self._hurry.set()
        self.flush()
        self._queue.put(None)
        self._thread.join(1.0)

    def _work(self) -> None:
        queue, hurry = self._queue, self._hurry
        going = True
        while going:
            items = [queue.get()]
            hurry.wait(PAUSE_SECONDS)
            items += [queue.get() for _ in range(queue.qsize())]
            self._write(items)
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()
            going = None not in items

    def _write(self, items: list[_Item]) -> None:
        lines = [item if isinstance(item, str) else item() for item in items if _is_line(item)]
        if self._dropped:
            lines.append(f"({self._dropped} lines were dropped: the terminal is too slow)")
            self._dropped = 0
        if lines:
            with suppress(OSError, ValueError):  # closed: there is nobody to tell
                sys.stderr.write("\n".join(lines) + "\n")
                sys.stderr.flush()
        for item in items:
            if isinstance(item, logging.LogRecord):
                try:
                    get_logger().callHandlers(item)
                except Exception:
                    _NOBODY.handleError(item)  # to stderr, as logging does with errors of its handlers


def _is_line(item: _Item) -> TypeGuard[str | Callable[[], str]]:
    return isinstance(item, str) or callable(item)


class TerminalHandler(LocklessHandler):
    """Log records, as lines of the terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal
        self.setFormatter(RunLineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.write(self.format(record))


class Relay(LocklessHandler):
    """Stands between the loggers that the connection thread uses and the program's own handlers.

    Args:
        terminal: Hands the records over, in its thread.
    """

    LOGGERS = ("worker", "client", "protocol")

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal
        self._loggers: list[logging.Logger] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.relay(record)

    def attach(self) -> None:
        """From now on records go through here, unless another worker's relay has them already."""
        for logger in map(get_logger, self.LOGGERS):
            if not any(isinstance(handler, Relay) for handler in logger.handlers):
                self._loggers.append(logger)
                logger.addHandler(self)
                logger.propagate = False

    def detach(self) -> None:
        """Undo ``attach``."""
        while self._loggers:
            logger = self._loggers.pop()
            logger.propagate = True
            logger.removeHandler(self)
