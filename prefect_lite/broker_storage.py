"""The broker's Redis as a storage of results: all workers share it without a disk or a service of its own."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from prefect_lite import clock
from prefect_lite.either_way import as_called
from prefect_lite.exceptions import LockLost, MissingResult
from prefect_lite.thread_or_loop import Waits, on_loop

if TYPE_CHECKING:
    from prefect_lite.either_way import BytesToAwait, NoneToAwait

__all__ = ["BrokerStorage"]


class BrokerStorage:
    """Results in Redis, through the broker; for caches of tasks on workers, and for whoever else wants it.

    An entry goes when its result has expired; one without expiration when nobody has read it for
    ``cache_idle_seconds``. It may be as long as ``max_payload_bytes``.
    """

    def read_path(self, path: str) -> BytesToAwait:
        """The content of an entry; in coroutines to be awaited.

        Raises:
            FileNotFoundError: There is none.
            BrokerError: The broker, or its Redis, can't be reached.
        """
        return as_called(self.reading(path))

    async def aread_path(self, path: str) -> bytes:
        """``read_path`` for coroutines."""
        return await on_loop(self.reading(path))

    def write_path(self, path: str, content: bytes) -> NoneToAwait:
        """Write an entry; in coroutines to be awaited.

        Raises:
            BrokerError: The broker, or its Redis, can't be reached.
            StorageError: It is too long.
        """
        return as_called(self.writing(path, content))

    async def awrite_path(self, path: str, content: bytes) -> None:
        """``write_path`` for coroutines."""
        await on_loop(self.writing(path, content))

    def reading(self, path: str) -> Waits[bytes]:
        """``read_path`` for both threads and event loops."""
        from prefect_lite.client.keeping import read_entry  # it loads the client

        content = yield from read_entry(path)
        if content is None:
            raise FileNotFoundError(f"The broker has no entry {path!r} (any more).")
        return content

    def writing(
        self, path: str, content: bytes, ttl_seconds: float | None = None, fence: str | None = None
    ) -> Waits[None]:
        """``write_path`` for both threads and event loops.

        Args:
            path: The key.
            content: What to write.
            ttl_seconds: When the entry goes, from now; None: see the class.
            fence: Who must hold the lock of this key when it is written.

        Raises:
            LockLost: ``fence`` does not hold the lock any more; nothing was written.
        """
        from prefect_lite.client.keeping import write_entry

        if not (yield from write_entry(path, content, ttl_seconds, fence)):
            raise LockLost(
                f"The lock {path!r} was lost before its result was written: the broker had not heard from "
                f"its holder for too long, and another run may have taken it."
            )

    def existing(self, path: str) -> Waits[bool]:
        """Whether there is an entry."""
        from prefect_lite.client.keeping import entry_exists

        return (yield from entry_exists(path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrokerStorage)

    def __hash__(self) -> int:
        return hash(BrokerStorage)

    def __repr__(self) -> str:
        return "BrokerStorage()"


# -- storages of either kind --------------------------------------------------------------------------


def content_of(storage: Any, key: str) -> Waits[bytes]:
    """What is in a storage under a key.

    Raises:
        MissingResult: Nothing is.
        StorageError: It can't be read.
    """
    try:
        if isinstance(storage, BrokerStorage):
            return (yield from storage.reading(key))
        from prefect_lite.filesystems import reading

        return (yield from reading(storage, key))
    except FileNotFoundError as exc:
        raise MissingResult(
            f"There is no result {key!r} in {type(storage).__name__} (any more): it was never written, has "
            f"expired, or was deleted. Run the task again."
        ) from exc


def put(
    storage: Any, key: str, content: bytes, expiration: datetime | None = None, fence: str | None = None
) -> Waits[None]:
    """Write into a storage, over what is there.

    Args:
        storage: Where.
        key: Under which key.
        content: What.
        expiration: When it may go; only the broker's storage lets it go by itself.
        fence: For the broker's storage, who must hold the lock of the key.

    Raises:
        StorageError: It can't be written.
        LockLost: ``fence`` does not hold the lock any more.
    """
    if not isinstance(storage, BrokerStorage):
        from prefect_lite.filesystems import writing

        yield from writing(storage, key, content)
        return
    seconds = None if expiration is None else (expiration - clock.now()).total_seconds()
    if seconds is None or seconds > 0:  # else it has gone already
        yield from storage.writing(key, content, seconds, fence)
