"""Futures: handles on runs, from any thread, event loop or process.

``PrefectDistributedFuture`` stands for a run on a worker and is little more than its id;
``PrefectConcurrentFuture`` for one in a thread of this process.
"""

from __future__ import annotations

import concurrent.futures
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

from prefect_lite.run_ids import new_run_id, parse_run_id
from prefect_lite.states import Completed, Failed, Pending, Running, State

if TYPE_CHECKING:
    from prefect_lite.client.requests import Submission
    from prefect_lite.collecting import Collector
    from prefect_lite.protocol.messages import RunState

R = TypeVar("R", covariant=True)
T = TypeVar("T")

UNDECODED: Final = object()
"""In the place of a result that nobody has asked for yet."""

__all__ = [
    "DoneAndNotDoneFutures",
    "PrefectConcurrentFuture",
    "PrefectDistributedFuture",
    "PrefectFuture",
    "PrefectFutureList",
    "as_completed",
    "wait",
]


class PrefectFuture(ABC, Generic[R]):
    """What ``delay``, ``submit`` and ``map`` give."""

    __slots__ = ("__weakref__", "_id")

    _id: str

    @property
    def task_run_id(self) -> UUID:
        """Id of the run."""
        return UUID(self._id)

    @property
    @abstractmethod
    def state(self) -> State[R]:
        """Where the run stands now."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether this future already knows the end of the run; asks nobody."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> None:
        """Block until the run has ended or ``timeout`` seconds have passed, however it ended."""

    @abstractmethod
    async def wait_async(self, timeout: float | None = None) -> None:
        """``wait`` without blocking the event loop."""

    @abstractmethod
    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """Wait for the run's value.

        Args:
            timeout: Seconds; None waits for ever.
            raise_on_failure: False returns the exception of a run that failed.

        Raises:
            TimeoutError: The run has not ended in time; says why, as far as anybody knows.
            BaseException: What the run raised.
        """

    @abstractmethod
    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """``result`` without blocking the event loop; ``await future`` is the same."""

    @abstractmethod
    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], object]) -> None:
        """Call ``fn(future)`` when the run has ended: at once, or later in a thread of this package."""

    def __await__(self) -> Generator[Any, None, R]:
        return self.result_async().__await__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrefectFuture) and self._id == cast("PrefectFuture[Any]", other)._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.task_run_id)!r})"


class PrefectDistributedFuture(PrefectFuture[R]):
    """A run on a worker; made anew from its id in any process: ``PrefectDistributedFuture(run_id)``."""

    __slots__ = ("_collector", "_data", "_final", "_key", "_submission")

    def __init__(self, task_run_id: UUID | str) -> None:
        """Raises: ValueError: ``task_run_id`` is no UUID."""
        self._id = parse_run_id(task_run_id)
        self._key = ""  # of its task; "" when not known
        self._collector: Collector | None = None  # waits for the end already
        self._final: RunState | None = None  # set by the client's loop thread
        self._data: Any = UNDECODED  # what its result holds
        self._submission: Submission | None = None  # of a batch: whether the run was accepted shows later

    @classmethod
    def from_run_id(cls, run_id: str, task_key: str) -> PrefectDistributedFuture[Any]:
        """The quick way, for ids of 32 hex digits that were made here."""
        future: PrefectDistributedFuture[Any] = object.__new__(cls)
        future._id = run_id
        future._key = task_key
        future._collector = None
        future._final = None
        future._data = UNDECODED
        future._submission = None
        return future

    def stand_for(self, run_id: str) -> None:
        """Mean another run from now on: the one that an idempotency key turned out to belong to."""
        if run_id == self._id:
            return
        self._id = run_id
        self._collector = None
        self._final = None
        self._data = UNDECODED

    @property
    def done(self) -> bool:
        return self._final is not None

    @property
    def state(self) -> State[R]:
        """Where the run stands; asks the broker until it has ended.

        Raises:
            RunExpired: The broker has no record of it.
            BrokerUnreachable: No broker answered.
        """
        from prefect_lite import waiting

        return waiting.current_state(self)

    def wait(self, timeout: float | None = None) -> None:
        from prefect_lite import waiting

        waiting.wait_all([self], timeout)

    async def wait_async(self, timeout: float | None = None) -> None:
        from prefect_lite import waiting

        await waiting.wait_all_async([self], timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        from prefect_lite import waiting

        if self._final is None and not waiting.wait_all([self], timeout):
            raise TimeoutError(waiting.late_text(self, timeout))
        return waiting.final_result(self, raise_on_failure)

    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        from prefect_lite import waiting

        if self._final is None and not await waiting.wait_all_async([self], timeout):
            raise TimeoutError(await waiting.late_text_async(self, timeout))
        return waiting.final_result(self, raise_on_failure)

    def cancel(self) -> bool:
        """Cancel the run, wherever it is.

        Returns:
            Whether it is, or is about to be, cancelled; False when it had already ended.

        Raises:
            RunExpired: The broker has no record of it.
            BrokerUnreachable: No broker answered.
        """
        from prefect_lite import waiting

        return waiting.cancel(self)

    async def cancel_async(self) -> bool:
        """``cancel`` without blocking the event loop."""
        from prefect_lite import waiting

        return await waiting.cancel_async(self)

    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], object]) -> None:
        from prefect_lite import waiting

        waiting.call_when_done(self, fn)

    def __reduce__(self) -> Any:
        return type(self), (self._id,)


class PrefectConcurrentFuture(PrefectFuture[R]):
    """A run in a thread of this process."""

    __slots__ = ("_wrapped",)

    def __init__(
        self, wrapped: concurrent.futures.Future[Any], task_run_id: UUID | str | None = None
    ) -> None:
        self._id = parse_run_id(task_run_id) if task_run_id is not None else new_run_id()
        self._wrapped = wrapped

    @property
    def wrapped_future(self) -> concurrent.futures.Future[Any]:
        """The thread pool's own future."""
        return self._wrapped

    @property
    def done(self) -> bool:
        return self._wrapped.done()

    @property
    def state(self) -> State[R]:
        if not self._wrapped.done():
            return Running() if self._wrapped.running() else Pending()
        error = self._wrapped.exception()
        if error is None:
            return Completed(data=self._wrapped.result())
        name = "TimedOut" if isinstance(error, TimeoutError) else "Failed"
        return Failed(name=name, message=f"{type(error).__name__}: {error}", data=error)

    def wait(self, timeout: float | None = None) -> None:
        concurrent.futures.wait([self._wrapped], timeout)

    async def wait_async(self, timeout: float | None = None) -> None:
        from prefect_lite.client.latch import Latch

        # asyncio.wrap_future() would copy the exception, and complain when nobody looks at the copy.
        ended = Latch()
        self._wrapped.add_done_callback(lambda _: ended.set())
        await ended.wait_async(timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        self.wait(timeout)
        return self._result_now(timeout, raise_on_failure)

    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        await self.wait_async(timeout)
        return self._result_now(timeout, raise_on_failure)

    def _result_now(self, timeout: float | None, raise_on_failure: bool) -> R:
        if not self._wrapped.done():
            raise TimeoutError(
                f"Run {self.task_run_id} has not ended after {timeout:g} s; it runs in a thread."
            )
        return cast("R", self.state.result(raise_on_failure=raise_on_failure))

    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], object]) -> None:
        self._wrapped.add_done_callback(lambda _: fn(self))


class PrefectFutureList(list[PrefectFuture[T]]):
    """Futures of one ``map``, in the order of its items."""

    def wait(self, timeout: float | None = None) -> None:
        """Block until all have ended or ``timeout`` seconds have passed."""
        wait(self, timeout)

    async def wait_async(self, timeout: float | None = None) -> None:
        """``wait`` without blocking the event loop."""
        await _wait_async(self, timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[T]:
        """All values in order.

        Raises:
            TimeoutError: Not all have ended within ``timeout`` seconds; says why for one of them.
            BaseException: What the first failed run in the list raised.
        """
        late = _wait(self, timeout, decode=True).not_done
        if late:
            raise TimeoutError(f"{len(late)} of {len(self)} runs have not ended. {_why(late, timeout)}")
        return [future.result(raise_on_failure=raise_on_failure) for future in self]

    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[T]:
        """``result`` without blocking the event loop; ``await futures`` is the same."""
        late = await _wait_async(self, timeout)
        if late:
            raise TimeoutError(f"{len(late)} of {len(self)} runs have not ended in {timeout:g} s.")
        return [await future.result_async(raise_on_failure=raise_on_failure) for future in self]

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self.result_async().__await__()


class DoneAndNotDoneFutures(NamedTuple, Generic[T]):
    """What ``wait`` gives: those that have ended, and the rest."""

    done: set[PrefectFuture[T]]
    not_done: set[PrefectFuture[T]]


def wait(futures: Iterable[PrefectFuture[T]], timeout: float | None = None) -> DoneAndNotDoneFutures[T]:
    """Block until all ``futures`` have ended, or ``timeout`` seconds have passed.

    Example:
        >>> done, not_done = wait([], timeout=1)
        >>> len(done)
        0
    """
    return _wait(list(futures), timeout)


def _wait(
    futures: list[PrefectFuture[T]], timeout: float | None, *, decode: bool = False
) -> DoneAndNotDoneFutures[T]:
    deadline = None if timeout is None else time.monotonic() + timeout
    distributed, local = _split(futures)
    if distributed:
        from prefect_lite import waiting

        waiting.wait_all(distributed, timeout, decode=decode)
    if local:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        concurrent.futures.wait([future.wrapped_future for future in local], remaining)
    done = {future for future in futures if future.done}
    return DoneAndNotDoneFutures(done, set(futures) - done)


def as_completed(
    futures: Iterable[PrefectFuture[T]], timeout: float | None = None
) -> Iterator[PrefectFuture[T]]:
    """The futures in the order in which their runs end.

    Raises:
        TimeoutError: Not all have ended within ``timeout`` seconds.
    """
    futures = list(dict.fromkeys(futures))
    deadline = None if timeout is None else time.monotonic() + timeout
    ended: queue.SimpleQueue[PrefectFuture[T] | Exception] = queue.SimpleQueue()
    distributed, local = _split(futures)
    for future in local:
        future.add_done_callback(ended.put)
    collector = None
    take: Callable[[queue.SimpleQueue[Any], float | None], Any] = _take
    if distributed:
        from prefect_lite import waiting

        collector = waiting.collect(distributed, ended.put)
        take = waiting.next_ended
    try:
        for count in range(len(futures)):
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                item = take(ended, remaining)
            except queue.Empty:
                text = f"{len(futures) - count} of {len(futures)} runs have not ended in {timeout:g} s."
                raise TimeoutError(text) from None
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        if collector is not None:
            collector.stop()


def _take(ended: queue.SimpleQueue[Any], timeout: float | None) -> Any:
    return ended.get(timeout=timeout)


async def _wait_async(futures: list[PrefectFuture[T]], timeout: float | None) -> set[PrefectFuture[T]]:
    """Wait like ``wait``; the futures that are late."""
    deadline = None if timeout is None else time.monotonic() + timeout
    distributed, local = _split(futures)
    if distributed:
        from prefect_lite import waiting

        await waiting.wait_all_async(distributed, timeout)
    for future in local:
        await future.wait_async(None if deadline is None else max(0.0, deadline - time.monotonic()))
    return {future for future in futures if not future.done}


def _split(
    futures: list[PrefectFuture[T]],
) -> tuple[list[PrefectDistributedFuture[T]], list[PrefectConcurrentFuture[T]]]:
    distributed: list[PrefectDistributedFuture[T]] = []
    local: list[PrefectConcurrentFuture[T]] = []
    for future in futures:
        if isinstance(future, PrefectDistributedFuture):
            distributed.append(future)
        elif isinstance(future, PrefectConcurrentFuture):
            local.append(future)
        else:
            raise TypeError(f"Expected futures of this package, got {future!r}.")
    return distributed, local


def _why(late: set[PrefectFuture[T]], timeout: float | None) -> str:
    for future in late:
        if isinstance(future, PrefectDistributedFuture):
            from prefect_lite import waiting

            return waiting.late_text(future, timeout)
    return ""
