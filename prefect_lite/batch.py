"""``with batch():`` lets many ``delay()`` calls share the wait for the broker's word."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import Token
from types import TracebackType
from typing import Any, Self

from prefect_lite.client.requests import Submission, give_up, wait_for_all, wait_for_all_async
from prefect_lite.futures import PrefectDistributedFuture
from prefect_lite.submission import current_batch, raise_refusals
from prefect_lite.upstreams import UNSETTLED


class batch:
    """Inside the block every ``delay`` and ``apply_async`` returns at once; leaving it waits for all.

    The runs are sent as they come, and are durable when the block has been left without an exception. It
    covers the calls of its own thread or coroutine, and works with ``with`` and ``async with``.

    Args:
        queue_timeout: Seconds for which the runs wait for room in a full queue, or for a store that is away;
            None: the setting ``queue_wait_seconds``, not that of a batch around it. ``apply_async`` may say
            otherwise for its run.

    Raises:
        BatchError: On leaving: some runs were refused; its ``errors`` says which and why. The others run,
            and are its ``futures``.

    Example:
        with batch():
            futures = [add.delay(n, 1) for n in range(1000)]
    """

    def __init__(self, *, queue_timeout: float | None = None) -> None:
        self.queue_timeout = queue_timeout
        self._submissions: list[Submission] = []
        self._futures: dict[str, PrefectDistributedFuture[Any]] = {}
        self._token: Token[batch | None] | None = None
        self._open = False
        self._lock = threading.Lock()

    def add(self, submission: Submission, futures: Sequence[PrefectDistributedFuture[Any]]) -> bool:
        """Take part in the wait: called for each run sent inside the block.

        Args:
            submission: The runs on their way.
            futures: Of the same runs.

        Returns:
            False when the block has been left: threads and coroutines started inside it may outlive it.
        """
        with self._lock:
            if not self._open:
                return False
            self._submissions.append(submission)
            for future in futures:
                self._futures[future._id] = future  # pyright: ignore[reportPrivateUsage]
                future._submission = submission  # pyright: ignore[reportPrivateUsage]
        return True

    def __enter__(self) -> Self:
        self._open = True
        self._token = current_batch.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)
        try:
            wait_for_all(self._submissions)
        finally:
            self._forget()
        self._finish(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)
        try:
            await wait_for_all_async(self._submissions)
        finally:
            self._forget()
        self._finish(error)

    def _leave(self, error: BaseException | None) -> None:
        with self._lock:
            self._open = False
        if self._token is not None:
            current_batch.reset(self._token)
            self._token = None
        if error is not None and not isinstance(error, Exception):
            give_up(self._submissions)  # a cancellation must not take as long as a queue is full

    def _forget(self) -> None:
        """No other run has to wait for these to be settled."""
        for run_id in self._futures:
            UNSETTLED.pop(run_id, None)

    def _finish(self, error: BaseException | None) -> None:
        submissions, self._submissions = self._submissions, []
        futures, self._futures = self._futures, {}
        for submission in submissions:
            for asked, existing in submission.aliases.items():
                if asked in futures:  # else it knew already when it came here
                    futures[asked].stand_for(existing)
        refused = {run_id for submission in submissions for run_id in submission.errors}
        for future in futures.values():
            if future._id not in refused:  # pyright: ignore[reportPrivateUsage]
                future._submission = None  # pyright: ignore[reportPrivateUsage]
        if error is None:  # the block's own exception says more
            raise_refusals(submissions, futures.values())
