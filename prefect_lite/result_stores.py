"""Which store the results of a run go to: its options, those of the runs around it, and the settings."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_lite.broker_storage import BrokerStorage
from prefect_lite.context import RunContext, TaskRunContext, current_context
from prefect_lite.either_way import as_called
from prefect_lite.settings import get_settings
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect_lite.flow_options import FlowOptions
    from prefect_lite.locking.protocol import LockManager
    from prefect_lite.options import Options
    from prefect_lite.results import ResultStore
    from prefect_lite.serializers import Serializer


def is_in_background(context: RunContext) -> bool:
    """Whether the run, or one around it, is on a worker."""
    around: RunContext | None = context
    while around is not None:
        if around.lease is not None:
            return True
        around = around.enclosing
    return False


def store_for(context: RunContext) -> Waits[ResultStore]:
    """The store of a task run or flow run; a new one, that remembers only what this run reads.

    Storage and serializer are those of its options, else of the nearest run around it that has any, else of
    the settings; without any the broker's Redis on a worker, and files under ``storage_path`` elsewhere.

    Raises:
        ConfigurationError: An option or setting names no storage or serializer that there is.
        BrokerError: A saved storage can't be looked up.
    """
    from prefect_lite.results import ResultStore

    background = is_in_background(context)
    storage = nearest(context, "result_storage")
    if storage is None:
        storage = get_settings().result_storage or None
    store = ResultStore(
        result_storage=(yield from resolved_storage(storage, background)),
        cache_result_in_memory=context.options.cache_result_in_memory,
        serializer=resolved_serializer(nearest(context, "result_serializer")),
        default_locks=lambda: default_locks(background),
    )
    if isinstance(context, TaskRunContext):
        yield from configured(store, context.options)
    return store


def configured(store: ResultStore, options: Options) -> Waits[None]:
    """Give a store what a task's cache policy is configured with."""
    if options.cache_policy is None:
        return
    from prefect_lite.cache_keys import effective_policy

    policy = effective_policy(options)
    if policy.key_storage is not None:
        store.metadata_storage = yield from resolved_storage(policy.key_storage)
    if policy.lock_manager is not None:
        store.lock_manager = policy.lock_manager


def changed(store: ResultStore, options: Options | FlowOptions, *, of_task: bool) -> Waits[ResultStore]:
    """A copy of a store for a task or flow with these options; what they don't say stays."""
    copy = store.model_copy()
    if options.result_storage is not None:
        copy.result_storage = yield from resolved_storage(options.result_storage)
    if options.result_serializer is not None:
        copy.serializer = options.result_serializer
    copy.cache_result_in_memory = options.cache_result_in_memory
    if of_task:
        yield from configured(copy, options)  # pyright: ignore[reportArgumentType]
    return copy


def nearest(context: RunContext, option: str) -> Any:
    """The value of an option: the run's own, else that of the nearest run around it that has one."""
    around: RunContext | None = context
    while around is not None:
        value = getattr(around.options, option)
        if value is not None:
            return value
        around = around.enclosing
    return None


def resolved_serializer(given: Any) -> Any:
    """The serializer that an option names; None stays None.

    Raises:
        ConfigurationError: There is no such serializer.
    """
    if given is None:
        return None
    from prefect_lite.serializers import resolve_serializer

    return resolve_serializer(given)


def resolved_storage(given: Any, background: bool = False) -> Waits[Any]:
    """The storage that an option or setting names; the default one for None."""
    if isinstance(given, BrokerStorage):
        return given
    if given is None and background:
        return BrokerStorage()
    from prefect_lite.result_storage import default_local_storage, resolving

    return default_local_storage() if given is None else (yield from resolving(given))


def default_locks(background: bool) -> LockManager:
    """What locks keys where nobody has said anything about it."""
    if background:
        return _redis_locks()
    return _file_locks(str(get_settings().home.expanduser() / "locks"))


@lru_cache(maxsize=1)
def _redis_locks() -> LockManager:
    from prefect_lite.locking.redis import RedisLockManager

    return RedisLockManager()


@lru_cache(maxsize=4)
def _file_locks(directory: str) -> LockManager:
    from prefect_lite.locking.filesystem import FileSystemLockManager

    return FileSystemLockManager(Path(directory))


# -- what users ask for -------------------------------------------------------------------------------


def get_result_store() -> ResultStore:
    """The store of the current run; outside of runs one with the default storage.

    Raises:
        ConfigurationError: An option or setting names no storage or serializer that there is.
    """
    from prefect_lite.results import ResultStore

    context = current_context()
    if context is None:
        return ResultStore(default_locks=lambda: default_locks(False))
    return in_thread(store_for(context))


def should_persist_result() -> bool:
    """Whether the result of the current run is persisted; outside of runs what the setting says."""
    context = current_context()
    if context is None:
        return get_settings().persist_results
    from prefect_lite.persistence import persists

    return persists(context)


def default_storage() -> Waits[Any]:
    """The storage of direct runs that say nothing about it."""
    return (yield from resolved_storage(get_settings().result_storage or None))


def get_default_result_storage() -> Any:
    """The storage that the settings name, else files under ``storage_path``; in coroutines to be awaited."""
    return as_called(default_storage())


async def aget_default_result_storage() -> Any:
    """``get_default_result_storage`` for coroutines."""
    return await on_loop(default_storage())


def resolve_result_storage(result_storage: Any) -> Any:
    """The storage that a value of the option ``result_storage`` means; in coroutines to be awaited.

    Args:
        result_storage: A storage, a path, a URL, or the name of a saved one.

    Raises:
        ConfigurationError: It means none.
        ValueError: None is saved under this name.
    """
    return as_called(resolved_storage(result_storage))


async def aresolve_result_storage(result_storage: Any) -> Any:
    """``resolve_result_storage`` for coroutines."""
    return await on_loop(resolved_storage(result_storage))


def get_default_result_serializer() -> Serializer[Any]:
    """What persisted results are written with that say nothing about it: ``pickle``."""
    from prefect_lite.serializers import resolve_serializer

    return resolve_serializer("pickle")


def get_default_persist_setting() -> bool:
    """The setting ``persist_results``."""
    return get_settings().persist_results


get_default_persist_setting_for_tasks: Callable[[], bool] = get_default_persist_setting
"""There is one setting for both."""
