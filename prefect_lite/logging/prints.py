"""``log_prints``: text that a run prints becomes lines of its log.

While at least one such run is under way, ``sys.stdout`` is a proxy that asks the current context variable
whose text it is. So it is safe with threads and coroutines, and all other prints go straight through.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from prefect_lite.context import RunContext, current_context
from prefect_lite.logging import get_run_logger


class PrintProxy:
    """Stands in for ``sys.stdout``."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        context = current_context()
        if context is None or not context.log_prints:
            return self.stream.write(text)
        lines = (context.prints + text).split("\n")
        context.prints = lines.pop()
        if lines:
            logger = get_run_logger(context)
            for line in lines:
                logger.info("%s", line)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_lock = threading.Lock()
_users: set[RunContext] = set()


def _take(context: RunContext) -> None:
    with _lock:
        _users.add(context)
        # Somebody (a test runner, say) may have put another stream there meanwhile: wrap that one.
        if not isinstance(sys.stdout, PrintProxy):
            sys.stdout = PrintProxy(sys.stdout)


def _give_back(context: RunContext) -> None:
    with _lock:
        _users.discard(context)
        if not _users and isinstance(sys.stdout, PrintProxy):
            sys.stdout = sys.stdout.stream


@contextmanager
def prints_to_log(context: RunContext) -> Generator[None]:
    """Around a run with ``log_prints``: its prints are logged, the last unfinished line too."""
    try:
        _take(context)  # inside: an interruption may land in it, and giving back twice does no harm
        yield
    finally:
        _give_back(context)
        if context.prints:
            get_run_logger(context).info("%s", context.prints)
            context.prints = ""


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it, and that one stayed in the parent


os.register_at_fork(after_in_child=_after_fork)
