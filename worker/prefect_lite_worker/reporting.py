"""What people see of runs: one line each in the terminal, and their log lines on the way to the broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from prefect_lite.engine import STATES
from prefect_lite.logging import get_logger
from prefect_lite.protocol.messages import Log, Retry
from prefect_lite_worker.desk import Desk, Ended

LINES_PER_MESSAGE = 200
MAX_LINE = 8_000
MAX_PIECE = 80_000
"""Characters; of at most four bytes each, so a LOG stays below the frame limit."""

logger = get_logger("worker.runs")


def duration(seconds: float) -> str:
    """A duration for people: ``0.3 ms``, ``12 ms``, ``1.5 s``, ``2:05 min``."""
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)}:{int(seconds % 60):02} min"


class Reporter:
    """Lines about ended runs.

    Args:
        write: Takes a finished line; None sends records through ``logging`` instead (the program has
            configured it), which costs about 10 us a run.
        level: Lowest level shown.
        worker: Name of this worker, for the records.
    """

    def __init__(self, write: Callable[[str], None] | None, level: int, worker: str) -> None:
        self._write = write
        self._level = level
        self._worker = worker
        self._second = 0
        self._clock = ""
        self.counts: dict[str, int] = {}

    def ended(self, ended: Ended) -> None:
        """A run or an attempt has ended here."""
        kind = ended.outcome.kind
        self.counts[kind] = self.counts.get(kind, 0) + 1
        level = logging.INFO if kind in ("completed", "given_up", "cancelled") else logging.ERROR
        if kind == "retry":
            level = logging.WARNING
        if level < self._level:
            return
        run, text = ended.run, self._text(ended)
        if self._write is not None:
            self._write(f"{self._now()} | {logging.getLevelName(level):<7} | {text}")
        elif logger.isEnabledFor(level):
            keys = {"run_id": run.run_id, "task_key": run.task_key, "worker": self._worker, "action": kind}
            logger.log(level, "%s", text, extra=keys)

    def _text(self, ended: Ended) -> str:
        run, outcome, message = ended.run, ended.outcome, ended.message
        name = STATES[outcome.kind][1] if outcome.kind in STATES else "Given up"
        if outcome.kind == "retry":
            name = "Retrying"
        text = f"{name:<9} {run.name} {run.run_id[:8]} {duration(ended.run_seconds)}"
        if run.attempt > 1 or outcome.kind == "retry":
            text += f" (attempt {run.attempt})"
        if isinstance(message, Retry):
            text += f" again in {duration(message.after_seconds)}"
        if outcome.message:
            text += f": {sendable(outcome.message.splitlines()[0], 300)}"
        return text

    def _now(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second, self._clock = now, time.strftime("%H:%M:%S", time.localtime(now))
        return self._clock


def sendable(text: str, limit: int) -> str:
    """``text`` as the wire takes it: cut, and without the lone surrogates that file names can bring."""
    if len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def log_messages(desk: Desk) -> list[Log]:
    """The waiting log lines as LOG messages, in order within each run, each small enough for a frame."""
    by_run: dict[str, list[list[Any]]] = {}
    while desk.lines:
        run_id, line = desk.lines.popleft()
        line[3] = sendable(line[3], MAX_LINE)
        by_run.setdefault(run_id, []).append(line)
    desk.lines_taken()
    messages: list[Log] = []
    for run_id, lines in by_run.items():
        piece: list[list[Any]] = []
        room = MAX_PIECE
        for line in lines:
            if piece and (len(piece) == LINES_PER_MESSAGE or len(line[3]) > room):
                messages.append(Log(run_id, piece))
                piece, room = [], MAX_PIECE
            piece.append(line)
            room -= len(line[3])
        messages.append(Log(run_id, piece))
    return messages
