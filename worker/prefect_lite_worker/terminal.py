"""Writing to the terminal from a thread of its own.

A terminal can stop reading (Ctrl-S, a full pipe). Whoever writes to it then waits; this must be neither the
connection thread, which would lose its leases, nor a run. Lines are dropped, and counted, when too many wait.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque

from prefect_lite.logging import RunLineFormatter

MAX_WAITING = 50_000
PAUSE_SECONDS = 0.02
"""Lines are collected this long, so that 10,000 runs a second cost 50 writes."""


class Terminal:
    """Lines for stderr. ``write`` never blocks."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._some = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefect-lite-terminal", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(self, line: str) -> None:
        """Write a line, soon."""
        if len(self._lines) >= MAX_WAITING:
            self._dropped += 1
            return
        self._lines.append(line)
        if not self._some.is_set():
            self._idle.clear()
            self._some.set()

    def flush(self, seconds: float = 1.0) -> None:
        """Wait until all is written, at most so long."""
        self._idle.wait(seconds)

    def stop(self) -> None:
        """Write what is left and end, within about a second."""
        self.flush()
        self._stop.set()
        self._some.set()
        self._thread.join(1.0)

    def _work(self) -> None:
        while not self._stop.is_set():
            self._some.wait()
            self._stop.wait(PAUSE_SECONDS)
            self._some.clear()
            self._write_waiting()
            if not self._some.is_set():
                self._idle.set()

    def _write_waiting(self) -> None:
        waiting: list[str] = []
        while self._lines:
            waiting.append(self._lines.popleft())
        if self._dropped:
            waiting.append(f"({self._dropped} lines were dropped: the terminal is too slow)")
            self._dropped = 0
        if not waiting:
            return
        try:
            sys.stderr.write("\n".join(waiting) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            self._lines.clear()  # closed: there is nobody to tell


class TerminalHandler(logging.Handler):
    """Log records, as lines of the terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal
        self.setFormatter(RunLineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.write(self.format(record))
