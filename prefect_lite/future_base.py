"""What every future has, whatever executes its run."""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from uuid import UUID

from prefect_lite import thread_starts
from prefect_lite.run_ids import parse_run_id

if TYPE_CHECKING:
    from prefect_lite.states import State

R = TypeVar("R", covariant=True)

logger = logging.getLogger("prefect_lite.futures")


class PrefectFuture(ABC, Generic[R]):
    """What ``delay``, ``submit`` and ``map`` give."""

    __slots__ = ("__weakref__", "_id")

    _id: str

    def __init__(self, task_run_id: UUID | str) -> None:
        """Raises: ValueError: ``task_run_id`` is no UUID."""
        self._id = parse_run_id(task_run_id)

    @property
    def task_run_id(self) -> UUID:
        """Id of the run."""
        return UUID(self._id)

    @property
    @abstractmethod
    def state(self) -> State[R]:
        """Where the run stands now."""

    @property
    def done(self) -> bool:
        """Whether this future already knows the end of the run; those of this package ask nobody."""
        return self.state.is_final()

    @abstractmethod
    def wait(self, timeout: float | None = None) -> None:
        """Block until the run has ended or ``timeout`` seconds have passed, however it ended."""

    async def wait_async(self, timeout: float | None = None) -> None:
        """``wait`` without blocking the event loop."""
        await asyncio.to_thread(self.wait, timeout)

    @abstractmethod
    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """Wait for the run's value; a value everywhere, unlike that of a state.

        Args:
            timeout: Seconds; None waits for ever.
            raise_on_failure: False returns the exception of a run that failed.

        Raises:
            TimeoutError: The run has not ended in time; says why, as far as anybody knows.
            BaseException: What the run raised.
        """

    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """``result`` without blocking the event loop; ``await future`` is the same."""
        return await asyncio.to_thread(self.result, timeout, raise_on_failure)

    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], object]) -> None:
        """Call ``fn(future)`` when the run has ended: at once, or later in a thread of this package."""
        if self.done:
            call_back(fn, self)
        else:
            thread_starts.start(threading.Thread(target=self._wait_and_call, args=(fn,), daemon=True))

    def _wait_and_call(self, fn: Callable[[PrefectFuture[R]], object]) -> None:
        self.wait()
        call_back(fn, self)

    def __await__(self) -> Generator[Any, None, R]:
        return self.result_async().__await__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrefectFuture) and self._id == cast("PrefectFuture[Any]", other)._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.task_run_id)!r})"


def call_back(fn: Callable[[Any], object], future: PrefectFuture[Any]) -> None:
    """Tell somebody that a run has ended; what he raises is logged."""
    try:
        fn(future)
    except Exception:  # of the user's own code, and nobody is there to catch it
        logger.exception("A callback of run %s raised.", future.task_run_id)
