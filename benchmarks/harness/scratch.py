"""One folder below which everything temporary of a run lies, and what runs there: all gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from harness.processes import end_all

GRACE_SECONDS = 3.0


@contextmanager
def scratch_root() -> Iterator[Path]:
    """Temporary folders of this process are made below one new folder, which goes with its processes.

    Whoever starts a process ends it; this is for an interruption between the start and the note of it.
    """
    before = tempfile.tempdir
    root = Path(tempfile.mkdtemp(prefix="plb-", dir="/tmp"))  # the path of a socket has 107 bytes at most
    tempfile.tempdir = str(root)
    try:
        yield root
    finally:
        tempfile.tempdir = before
        end_all(processes_of(root), GRACE_SECONDS)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does; after the first one, all are ignored."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number: int, _frame: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)  # the clean-up is not to be interrupted
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt)
        for number in signals
        if signal.getsignal(number) != signal.SIG_IGN  # as nohup wants it
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def processes_of(root: Path) -> list[psutil.Process]:
    """Those that work in this folder, or have it in their environment or their arguments."""
    return [
        process for process in psutil.process_iter() if process.pid != os.getpid() and _is_of(process, root)
    ]


def _is_of(process: psutil.Process, root: Path) -> bool:
    try:
        if Path(process.cwd()).is_relative_to(root):
            return True
        texts = [*process.environ().values(), *process.cmdline()]
    except (psutil.Error, OSError):
        return False  # another user's, or gone
    return any(str(root) in text for text in texts)
