"""``Task.submit`` and ``Task.map`` in threads of this process."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from prefect_lite import direct, upstreams
from prefect_lite.futures import PrefectConcurrentFuture, PrefectFuture, PrefectFutureList

if TYPE_CHECKING:
    from prefect_lite.tasks import Task
    from prefect_lite.utilities.annotations import allow_failure

    WaitedFor = PrefectFuture[Any] | allow_failure[Any]

# Threads are made only when none is idle. Many, because tasks may submit tasks and wait for them.
MAX_THREADS = 256

_pool: ThreadPoolExecutor | None = None


def submit(task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Start one run in a thread; see ``Task.submit``."""
    arguments = dict(kwargs)
    return_state = arguments.pop("return_state", False)
    wait_for: list[WaitedFor] = list(arguments.pop("wait_for", None) or ())
    task.binder.check(args, arguments)
    future = _start(task, args, arguments, wait_for)
    if return_state:
        future.wait()
        return future.state
    return future


def submit_many(
    task: Task[..., Any],
    calls: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]],
    wait_for: list[WaitedFor],
) -> PrefectFutureList[Any]:
    """Start many runs in threads; their arguments bind."""
    return PrefectFutureList([_start(task, args, dict(kwargs), wait_for) for args, kwargs in calls])


def _start(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: list[WaitedFor]
) -> PrefectConcurrentFuture[Any]:
    context = contextvars.copy_context()
    return PrefectConcurrentFuture(_threads().submit(context.run, _run, task, args, kwargs, wait_for))


def _run(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: list[WaitedFor]
) -> Any:
    if wait_for:
        upstreams.wait_all(wait_for)
    if upstreams.has_futures(args, kwargs):
        args, kwargs = upstreams.resolve(args, kwargs)
    value = direct.call(task, args, kwargs)
    return asyncio.run(value) if task.isasync else value


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="prefect-lite-run")
    return _pool


def close_threads() -> None:
    """End the pool's threads once their runs have ended; the next run starts another pool."""
    global _pool
    pool, _pool = _pool, None
    if pool is not None:
        pool.shutdown()


def _after_fork() -> None:
    global _pool
    _pool = None  # its threads stayed in the parent


os.register_at_fork(after_in_child=_after_fork)
