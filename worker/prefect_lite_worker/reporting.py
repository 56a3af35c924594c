"""What people see of runs: one line each in the terminal, and their log lines on the way to the broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from prefect_lite.logging import get_logger
from prefect_lite.protocol.messages import Log, Retry
from prefect_lite.run_ends import STATES
from prefect_lite_worker.desk import Desk, Ended

LINES_PER_MESSAGE = 200
MAX_LINE = 8_000
MAX_SAID = 300
"""Characters of an outcome's message that the line of its run shows."""
MAX_PIECE = 80_000
"""Characters; of at most four bytes each, so a LOG stays below the frame limit."""

_NAMES = {kind: name for kind, (_, name) in STATES.items()} | {"retry": "Retrying", "given_up": "Given up"}
_LEVELS = {
    "completed": logging.INFO,
    "given_up": logging.INFO,
    "cancelled": logging.INFO,
    "retry": logging.WARNING,
}

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
        write: Takes what makes a line, to be called in another thread; None sends records through
            ``logging`` instead (the program has configured it), which costs about 10 us a run.
        level: Lowest level shown.
        worker: Name of this worker, for the records.
    """

    def __init__(self, write: Callable[[Callable[[], str]], None] | None, level: int, worker: str) -> None:
        self._write = write
        self._level = level
        self._worker = worker
        self.counts: dict[str, int] = {}

    def ended(self, ended: Ended) -> None:
        """A run or an attempt has ended here."""
        run, message, outcome, seconds = ended
        kind = outcome.kind
        self.counts[kind] = self.counts.get(kind, 0) + 1
        level = _LEVELS.get(kind, logging.ERROR)
        if level < self._level:
            return
        again_seconds = message.after_seconds if isinstance(message, Retry) else None
        # What changes, or goes, once the run has ended is taken out now; the rest of the work can wait.
        said = sendable(outcome.message.splitlines()[0], MAX_SAID) if outcome.message else ""
        text = partial(_text, kind, run.name, run.run_id, run.attempt, seconds, again_seconds, said)
        if self._write is not None:
            self._write(partial(_line, time.time(), level, text))
        elif logger.isEnabledFor(level):
            keys = {"run_id": run.run_id, "task_key": run.task_key, "worker": self._worker, "action": kind}
            logger.log(level, "%s", text(), extra=keys)


def _line(now: float, level: int, text: Callable[[], str]) -> str:
    return f"{_clock(int(now))} | {logging.getLevelName(level):<7} | {text()}"


@lru_cache(maxsize=4)
def _clock(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


def _text(
    kind: str,
    name: str,
    run_id: str,
    attempt: int,
    seconds: float,
    again_seconds: float | None,
    message: str,
) -> str:
    text = f"{_NAMES[kind]:<9} {name} {run_id[:8]} {duration(seconds)}"
    if attempt > 1 or kind == "retry":
        text += f" (attempt {attempt})"
    if again_seconds is not None:
        text += f" again in {duration(again_seconds)}"
    if message:
        text += f": {message}"
    return text


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
