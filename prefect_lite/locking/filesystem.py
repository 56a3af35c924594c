"""Locks between the processes of a machine: files in a directory.

A lock is a small file that says who has it. It is read by anybody, and changed only under a ``flock`` that
lasts for the change. It also names the process of its holder: a file that this process keeps locked for as
long as it lives. The kernel ends that lock with the process, however it dies, so a lock of a dead process is
seen to be free at once, without guessing from process ids.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

from prefect_lite.embedded.locks import FileLock, is_locked
from prefect_lite.exceptions import StorageError
from prefect_lite.locking.polling import until, whole
from prefect_lite.locking.protocol import not_held
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop

GUARDS = 16
GUARD_SECONDS = 5.0
PAUSES_SECONDS = (0.005, 0.1)
PROCESSES = "processes"


class Note(NamedTuple):
    """What the file of a lock says.

    Attributes:
        holder: Who has it.
        process: Whose process that is.
        expires: Unix time at which it is free; infinite: when it is released.
    """

    holder: str
    process: str
    expires: float

    def packed(self, key: str) -> bytes:
        """As it is written; the key is for people who look."""
        expires = None if self.expires == math.inf else self.expires
        plain = {"key": key, "holder": self.holder, "process": self.process, "expires": expires}
        return json.dumps(plain).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> Note | None:
        """None for what nobody has written like this: all that is left after a crash of the machine."""
        try:
            plain: Any = json.loads(data)
            expires: Any = plain["expires"]
            return cls(
                str(plain["holder"]), str(plain["process"]), math.inf if expires is None else float(expires)
            )
        except (ValueError, TypeError, KeyError):
            return None


class FileSystemLockManager:
    """Locks between processes that share a directory.

    A lock whose holder's process has died is free. On network disks that needs a ``flock`` that works between
    machines, as with NFS version 4.

    Args:
        lock_files_directory: Made when the first lock is taken.
    """

    def __init__(self, lock_files_directory: Path | str) -> None:
        self.lock_files_directory = Path(lock_files_directory).expanduser()

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take a lock, or wait for it; see ``LockManager``.

        Raises:
            StorageError: The directory can't be used.
        """
        return in_thread(self.acquiring(key, holder, acquire_timeout, hold_timeout))

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """``acquire_lock`` for coroutines."""
        return await on_loop(self.acquiring(key, holder, acquire_timeout, hold_timeout))

    def release_lock(self, key: str, holder: str) -> None:
        """Let go of a lock.

        Raises:
            ValueError: ``holder`` does not have it.
            StorageError: The directory can't be used.
        """
        in_thread(self.releasing(key, holder))

    def is_locked(self, key: str) -> bool:
        """Whether anybody has a lock."""
        return self._note(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether ``holder`` has a lock."""
        note = self._note(key)
        return note is not None and note.holder == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until a lock is free, for so many seconds; returns whether it is."""
        return in_thread(until(lambda: self._is_free(key), timeout, PAUSES_SECONDS))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """``wait_for_lock`` for coroutines."""
        return await on_loop(until(lambda: self._is_free(key), timeout, PAUSES_SECONDS))

    def acquiring(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> Waits[bool]:
        """``acquire_lock`` for both threads and event loops; not for longer than until ``stopped``."""
        with self._explained():
            self.lock_files_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            process = whole(lambda: _process_in(self.lock_files_directory))
        return (
            yield from until(
                lambda: self._taken(key, holder, process, hold_timeout),
                acquire_timeout,
                PAUSES_SECONDS,
                stopped,
            )
        )

    def releasing(self, key: str, holder: str) -> Waits[None]:
        """``release_lock`` for both."""
        done: list[bool] = []
        if not (yield from until(lambda: self._released(key, holder, done), GUARD_SECONDS, PAUSES_SECONDS)):
            raise StorageError(
                f"The lock {key!r} could not be released: another process stands still in the midst of "
                f"changing a lock in {self.lock_files_directory}."
            )
        if not done[0]:
            raise not_held(key, holder)

    # -- under the guard --------------------------------------------------------------------------

    def _taken(self, key: str, holder: str, process: str, hold_timeout: float | None) -> Waits[bool]:
        return whole(lambda: self._take(key, holder, process, hold_timeout))
        yield

    def _take(self, key: str, holder: str, process: str, hold_timeout: float | None) -> bool:
        """Take it if it is free now; whoever changes a lock beside it this moment counts as having it."""
        with self._explained(), self._guarded(key) as guarded:
            note = self._note(key) if guarded else None
            if not guarded or (note is not None and note.holder != holder):
                return False
            expires = math.inf if hold_timeout is None else time.time() + hold_timeout
            file = self._file(key)
            new = file.with_suffix(".new")
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
                out.write(Note(holder, process, expires).packed(key))
            new.replace(file)
        return True

    def _released(self, key: str, holder: str, done: list[bool]) -> Waits[bool]:
        return whole(lambda: self._release(key, holder, done))
        yield

    def _release(self, key: str, holder: str, done: list[bool]) -> bool:
        with self._explained(), self._guarded(key) as guarded:
            if guarded:
                held = self.is_lock_holder(key, holder)
                if held:
                    self._file(key).unlink(missing_ok=True)
                done.append(held)
        return guarded

    @contextlib.contextmanager
    def _guarded(self, key: str) -> Generator[bool]:
        """Change the file of a lock; False: somebody else does."""
        if not self.lock_files_directory.is_dir():
            yield True
            return
        number = int(_digest(key)[:4], 16) % GUARDS
        guard = FileLock(self.lock_files_directory / f"guard-{number}")
        guarded = guard.try_acquire()
        try:
            yield guarded
        finally:
            guard.release()

    # -- without it -------------------------------------------------------------------------------

    def _is_free(self, key: str) -> Waits[bool]:
        return not self.is_locked(key)
        yield

    def _note(self, key: str) -> Note | None:
        """Who has a lock, if it still counts."""
        try:
            note = Note.unpacked(self._file(key).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        if note is None or note.expires <= time.time():
            return None
        return note if self._lives(note.process) else None

    def _lives(self, process: str) -> bool:
        return process == _own.get(str(self.lock_files_directory)) or is_locked(
            self.lock_files_directory / PROCESSES / process
        )

    def _file(self, key: str) -> Path:
        return self.lock_files_directory / f"{_digest(key)}.lock"

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except OSError as exc:
            raise StorageError(
                f"Locks can't be kept in {self.lock_files_directory}: {exc}. Choose a directory that this "
                f"account can write: FileSystemLockManager(directory)."
            ) from exc

    def __repr__(self) -> str:
        return f"FileSystemLockManager({str(self.lock_files_directory)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileSystemLockManager):
            return NotImplemented
        return other.lock_files_directory == self.lock_files_directory

    def __hash__(self) -> int:
        return hash(self.lock_files_directory)


def _digest(key: str) -> str:
    # Any text can be a key; file names are shorter, and have no slashes.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]


# -- this process, as the directories know it ----------------------------------------------------------

_own: dict[str, str] = {}
_files: list[FileLock] = []
_entering = threading.Lock()


def _process_in(directory: Path) -> str:
    """The name of this process's file in a directory; made, and locked for good, by the first call."""
    known = _own.get(str(directory))
    if known is not None:
        return known
    with _entering:
        if (known := _own.get(str(directory))) is not None:
            return known
        folder = directory / PROCESSES
        folder.mkdir(exist_ok=True, mode=0o700)
        _sweep(folder)
        file = _locked_file(folder)
        _files.append(file)
        _own[str(directory)] = file.path.name
        return file.path.name


def _locked_file(folder: Path) -> FileLock:
    while True:
        file = FileLock(folder / uuid.uuid4().hex)
        if file.try_acquire() and _is_there(file):
            return file
        file.release()  # somebody swept it in the moment between making and locking


def _is_there(file: FileLock) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), file.path.stat())
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Remove what dead processes have left: their locks are free with the file or without it."""
    for path in folder.iterdir():
        lock = FileLock(path)
        with contextlib.suppress(OSError):
            if lock.try_acquire():
                try:
                    path.unlink(missing_ok=True)
                finally:
                    lock.release()


def _leave() -> None:
    _own.clear()
    while _files:
        file = _files.pop()
        with contextlib.suppress(OSError):
            file.path.unlink(missing_ok=True)
            file.release()


def _after_fork() -> None:
    """The child is another process: it must not keep its parent's files locked after the parent's death."""
    global _entering
    _entering = threading.Lock()
    _own.clear()
    while _files:
        _files.pop().hand_over()


atexit.register(_leave)
os.register_at_fork(after_in_child=_after_fork)
