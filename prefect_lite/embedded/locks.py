"""File locks by ``flock``: they end with the process that holds them, however it dies.

The lock belongs to the open file description, so it can be handed to a child process (Valkey keeps its data
directory's lock that way) and is never freed by the close of some other descriptor of the same file, as a
POSIX ``fcntl`` lock would be.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

POLL_SECONDS = 0.01


class LockTimeout(TimeoutError):
    """Somebody else kept a lock for longer than the caller would wait."""


class FileLock:
    """An exclusive lock on ``path``; the file stays behind and may name its owner.

    As a context manager it waits for ``timeout_seconds``. Not reentrant, not shared between threads.
    """

    def __init__(self, path: Path, timeout_seconds: float = 30.0) -> None:
        self.path = path
        self.timeout_seconds = timeout_seconds
        self._fd = -1

    @property
    def held(self) -> bool:
        """True between a successful acquire and release (or ``hand_over``)."""
        return self._fd >= 0

    def fileno(self) -> int:
        """The locked descriptor, for ``pass_fds``; -1 when not held."""
        return self._fd

    def try_acquire(self) -> bool:
        """Take the lock if it is free now.

        Raises:
            OSError: The lock file can't be opened.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def acquire(self, timeout_seconds: float) -> None:
        """Take the lock, polling: a blocking flock could not be given up on time.

        Raises:
            LockTimeout: It was not free within ``timeout_seconds``.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self.try_acquire():
            if time.monotonic() >= deadline:
                raise LockTimeout(f"{self.path} is locked by another process")
            time.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Free the lock. Unlocks explicitly: a child forked meanwhile has the same open file description."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def hand_over(self) -> None:
        """Close our descriptor but leave the lock to the child process that inherited it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def write_owner(self, owner: dict[str, Any]) -> None:
        """Store who holds the lock in the lock file itself; see ``owner_of``."""
        data = json.dumps(owner).encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)

    def __enter__(self) -> Self:
        self.acquire(self.timeout_seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock.

    Asks with a shared lock, so that two askers never mistake each other for an owner.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def owner_of(path: Path) -> dict[str, Any] | None:
    """What the present holder wrote with ``write_owner``.

    Returns:
        None when the lock is free; an empty dict when the holder has not introduced itself yet.
    """
    if not is_locked(path):
        return None
    try:
        owner: Any = json.loads(path.read_bytes() or b"{}")
    except (OSError, ValueError):  # written this very moment
        return {}
    return cast("dict[str, Any]", owner) if isinstance(owner, dict) else {}
