"""Futures: handles on runs, from any thread, event loop or process.

``PrefectDistributedFuture`` stands for a run on a worker and is little more than its id;
``PrefectConcurrentFuture`` for one that a task runner of this process executes. Task runners may bring
their own: what is derived from ``PrefectFuture`` needs no more than ``state``, ``wait`` and ``result``.
"""

from __future__ import annotations

import concurrent.futures
import math
import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar, cast

from prefect_lite.client.latch import SLICE_SECONDS, Latch
from prefect_lite.exceptions import UpstreamFailedRun
from prefect_lite.future_base import PrefectFuture, call_back
from prefect_lite.nesting import Replacement, find
from prefect_lite.states import Cancelled, Completed, Crashed, Pending, Running, State, result_of

if TYPE_CHECKING:
    from uuid import UUID

    from prefect_lite.client.requests import Submission
    from prefect_lite.collecting import Collector
    from prefect_lite.protocol.messages import RunState
    from prefect_lite.runs import RunRecord

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
    "PrefectWrappedFuture",
    "as_completed",
    "resolve_futures_to_results",
    "resolve_futures_to_states",
    "wait",
]


class PrefectDistributedFuture(PrefectFuture[R]):
    """A run on a worker; made anew from its id in any process: ``PrefectDistributedFuture(run_id)``."""

    __slots__ = ("_collector", "_data", "_final", "_key", "_submission")

    def __init__(self, task_run_id: UUID | str) -> None:
        """Raises: ValueError: ``task_run_id`` is no UUID."""
        super().__init__(task_run_id)
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
        return await waiting.final_result_async(self, raise_on_failure)

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


class PrefectWrappedFuture(PrefectFuture[R]):
    """A run that something else has a future of its own for."""

    __slots__ = ("_wrapped",)

    def __init__(self, task_run_id: UUID | str, wrapped_future: Any) -> None:
        """Raises: ValueError: ``task_run_id`` is no UUID."""
        super().__init__(task_run_id)
        self._wrapped = wrapped_future

    @property
    def wrapped_future(self) -> Any:
        """The other future."""
        return self._wrapped


class PrefectConcurrentFuture(PrefectWrappedFuture[R]):
    """A run that a task runner of this process executes.

    Args:
        task_run_id: Id of the run.
        wrapped_future: Gets the run's final state as its result. Another value counts as that of a completed
            run, an exception as what broke the run.
        record: The run's, for its state before it has ended.
    """

    __slots__ = ("_latches", "_record")

    def __init__(
        self,
        task_run_id: UUID | str,
        wrapped_future: concurrent.futures.Future[Any],
        record: RunRecord | None = None,
    ) -> None:
        super().__init__(task_run_id, wrapped_future)
        self._record = record
        self._latches: list[Latch] | None = None  # of those who wait in a coroutine

    @property
    def wrapped_future(self) -> concurrent.futures.Future[Any]:
        """Gets the run's final state as its result."""
        return self._wrapped

    @property
    def done(self) -> bool:
        return self._wrapped.done()

    @property
    def state(self) -> State[R]:
        """Where the run stands; the state it has ended in, from then on."""
        wrapped = self._wrapped
        if not wrapped.done():
            state = self._record.state if self._record is not None else None
            if state is not None and not state.is_final():
                return state
            return Running() if wrapped.running() else Pending()
        if wrapped.cancelled():
            return Cancelled(message="The run was cancelled before it started.")
        error = wrapped.exception()
        if error is not None:
            return Crashed(message=f"{type(error).__name__}: {error}", data=error)
        value = wrapped.result()
        return cast("State[R]", value) if isinstance(value, State) else Completed(data=value)

    def wait(self, timeout: float | None = None) -> None:
        # Not concurrent.futures.wait: that waits for ever for one that was cancelled and that nobody takes.
        # In slices: the timeout of the run that waits here can't reach the thread inside the lock.
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not self._wrapped.done() and (left := end - time.monotonic()) > 0:
            with suppress(TimeoutError, concurrent.futures.CancelledError):
                self._wrapped.exception(min(left, SLICE_SECONDS))

    async def wait_async(self, timeout: float | None = None) -> None:
        # asyncio.wrap_future() would copy the exception, and complain when nobody looks at the copy.
        if self._wrapped.done():
            return
        latches = self._latches
        if latches is None:
            # One callback for all waits: none can be taken back, and somebody may ask again and again.
            latches = self._latches = []
            self.wrapped_future.add_done_callback(partial(_let_go, latches))
        ended = Latch()
        latches.append(ended)
        if self._wrapped.done():  # perhaps the callback came before
            return
        try:
            await ended.wait_async(timeout)
        finally:
            latches.remove(ended)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        self.wait(timeout)
        return self._result_now(timeout, raise_on_failure)

    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        await self.wait_async(timeout)
        if self._wrapped.done():
            return cast("R", await self.state.aresult(raise_on_failure))
        return self._result_now(timeout, raise_on_failure)

    def _result_now(self, timeout: float | None, raise_on_failure: bool) -> R:
        if not self._wrapped.done():
            raise TimeoutError(
                f"Task run {self.task_run_id} did not complete within {timeout or 0:g} seconds. Its state is "
                f"{self.state.name}; it is executed in this process."
            )
        return result_of(self.state, raise_on_failure)

    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], object]) -> None:
        self.wrapped_future.add_done_callback(lambda _: call_back(fn, self))


def _let_go(latches: list[Latch], _: object) -> None:
    for latch in [*latches]:
        latch.set()


class PrefectFutureList(list[PrefectFuture[T]]):
    """Futures of one ``map``, in the order of its items."""

    resolved_kind = list
    """What it is when something else is in the place of its futures."""

    def wait(self, timeout: float | None = None) -> None:
        """Block until all have ended or ``timeout`` seconds have passed."""
        wait(self, timeout)

    async def wait_async(self, timeout: float | None = None) -> None:
        """``wait`` without blocking the event loop."""
        await wait_async(self, timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[T]:
        """All values in order.

        Raises:
            TimeoutError: Not all have ended within ``timeout`` seconds; says why for one of them.
            BaseException: What the first failed run in the list raised.
        """
        late = _wait(self, timeout, decode=True).not_done
        if late:
            raise TimeoutError(f"{_late(len(late), len(self), timeout)} {_why(late, timeout)}".rstrip())
        return [future.result(raise_on_failure=raise_on_failure) for future in self]

    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[T]:
        """``result`` without blocking the event loop; ``await futures`` is the same."""
        late = await wait_async(self, timeout)
        if late:
            raise TimeoutError(_late(len(late), len(self), timeout))
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
    for future in local:
        future.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
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
    take: Callable[[queue.SimpleQueue[Any], float | None], Any] = take_in_slices
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
                late = f"{len(futures) - count} (of {len(futures)}) futures unfinished after {timeout:g} s."
                raise TimeoutError(late) from None
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        if collector is not None:
            collector.stop()


def take_in_slices(ended: queue.SimpleQueue[Any], timeout: float | None) -> Any:
    """The next item; an interruption of the run that waits here is noticed meanwhile.

    Raises:
        queue.Empty: None came in ``timeout`` seconds.
    """
    end = math.inf if timeout is None else time.monotonic() + timeout
    while True:  # in slices, see PrefectConcurrentFuture.wait
        left = max(0.0, end - time.monotonic())
        try:
            return ended.get(timeout=min(left, SLICE_SECONDS))
        except queue.Empty:
            if time.monotonic() >= end:
                raise


async def wait_async(
    futures: Sequence[PrefectFuture[T]], timeout: float | None = None
) -> set[PrefectFuture[T]]:
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
    futures: Sequence[PrefectFuture[T]],
) -> tuple[list[PrefectDistributedFuture[T]], list[PrefectFuture[T]]]:
    distributed: list[PrefectDistributedFuture[T]] = []
    local: list[PrefectFuture[T]] = []
    for future in futures:
        if isinstance(future, PrefectDistributedFuture):
            distributed.append(future)
        elif isinstance(cast("object", future), PrefectFuture):
            local.append(future)
        else:
            raise TypeError(f"Expected futures of this package, got {future!r}.")
    return distributed, local


def _late(late: int, total: int, timeout: float | None) -> str:
    return (
        f"Timed out waiting for all futures to complete within {timeout or 0:g} seconds: {late} of {total} "
        f"have not ended."
    )


def _why(late: set[PrefectFuture[T]], timeout: float | None) -> str:
    for future in late:
        if isinstance(future, PrefectDistributedFuture):
            from prefect_lite import waiting

            return waiting.late_text(future, timeout)
    return ""


# -- in the place of futures --------------------------------------------------------------------------


def futures_in(value: Any) -> list[PrefectFuture[Any]]:
    """The futures in a value: itself, or in its collections, dataclasses and models; each once."""
    return list(dict.fromkeys(find((value,), (PrefectFuture,))))


def resolve_futures_to_states(expr: Any) -> Any:
    """``expr`` with the final state of its run in the place of each future; waits for all of them.

    Args:
        expr: A future, or a collection, dataclass or model with futures; anything else is given back.

    Example:
        >>> resolve_futures_to_states({"a": 1})
        {'a': 1}
    """
    futures = futures_in(expr)
    if not futures:
        return expr
    wait(futures)
    states = {future: future.state for future in futures}
    return Replacement((PrefectFuture,), states.__getitem__)(expr)


def resolve_futures_to_results(expr: Any) -> Any:
    """``expr`` with the result of its run in the place of each future; waits for all of them.

    Args:
        expr: See ``resolve_futures_to_states``.

    Raises:
        UpstreamFailedRun: A run did not complete.
    """
    futures = futures_in(expr)
    if not futures:
        return expr
    wait(futures)
    results: dict[PrefectFuture[Any], Any] = {}
    for future in futures:
        state = future.state
        if not state.is_completed():
            raise UpstreamFailedRun(
                f"At least one result did not complete successfully: run {future.task_run_id} ended as "
                f"{state}."
            )
        results[future] = result_of(state)
    return Replacement((PrefectFuture,), results.__getitem__)(expr)
