"""What a test has started ends with the test process at the latest: after Ctrl-C too, or half a set-up."""

from __future__ import annotations

import os
import shutil
import subprocess
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class Ending(Protocol):
    """Calling it ends everything; a second call does nothing."""

    def __call__(self) -> object: ...


def end_with(owner: object, processes: Iterable[subprocess.Popen[bytes]], directory: Path) -> Ending:
    """Kill the processes and remove the directory when called, when the owner is forgotten, or at exit.

    Args:
        owner: Who has started them.
        processes: Looked at only then; must not refer to the owner.
        directory: Where they work.
    """
    return weakref.finalize(owner, _end, os.getpid(), processes, directory)


def _end(pid: int, processes: Iterable[subprocess.Popen[bytes]], directory: Path) -> None:
    if os.getpid() != pid:  # a copy of the test process, which they do not belong to
        return
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(directory, ignore_errors=True)
